/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tcp-transfer: sends a long stream to an echo server while it takes what comes back, and compares both.
 *
 *   tcp-transfer --config a.toml --address 10.0.0.2 --port 7 --count 100      --count: megabytes (default 100)
 *
 * What is sent is noise, made once more for the comparison: every byte that comes back is looked at. Prints the hash
 * (FNV-1a, 64 bits) of what was sent and of what came back.
 */
#define _POSIX_C_SOURCE 200809L

#include "common.h"
#include <inttypes.h>

/* Bytes of one push: a multiple of 8. */
#define PIECE_BYTES 65536
/* How long the server may be silent. */
#define SILENCE_MS 10000

/* Noise, eight bytes at a time (xorshift64), and the hash of all of it so far. */
struct noise {
    uint64_t state;
    uint64_t hash;
    uint8_t word[8];
    unsigned left;
};

static const struct noise NOISE = {.state = 0x5ca1ab1e, .hash = 0xcbf29ce484222325u};

static void next_word(struct noise *noise)
{
    noise->state ^= noise->state << 13;
    noise->state ^= noise->state >> 7;
    noise->state ^= noise->state << 17;
    memcpy(noise->word, &noise->state, sizeof noise->word);
    noise->left = sizeof noise->word;
}

static void hash_bytes(struct noise *noise, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        noise->hash = (noise->hash ^ bytes[i]) * 0x100000001b3u;
}

static void fill(struct noise *noise, uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (noise->left == 0)
            next_word(noise);
        bytes[i] = noise->word[sizeof noise->word - noise->left--];
    }
    hash_bytes(noise, bytes, len);
}

/* True when the bytes are those that fill() would have made. */
static bool compare(struct noise *noise, const uint8_t *bytes, size_t len)
{
    bool same = true;
    hash_bytes(noise, bytes, len);
    for (size_t i = 0; i < len; i++) {
        if (noise->left == 0)
            next_word(noise);
        same &= bytes[i] == noise->word[sizeof noise->word - noise->left--];
    }
    return same;
}

/* Pushes the next piece. */
static int push_piece(int qd, struct noise *noise, uint64_t left, demi_qtoken_t *token)
{
    size_t len = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
    demi_sgarray_t array = demi_sgaalloc(len);
    if (array.sga_numsegs == 0)
        return ENOBUFS;
    fill(noise, array.sga_segs[0].sgaseg_buf, len);
    int error = demi_push(token, qd, &array);
    check(demi_sgafree(&array), "demi_sgafree");
    return error;
}

/* Sends and receives until both are done. */
static int transfer(int qd, uint64_t bytes, struct noise *sent, struct noise *received)
{
    const struct timespec silence = {.tv_sec = SILENCE_MS / 1000, .tv_nsec = 0};
    uint64_t to_send = bytes, to_receive = bytes;
    /* The pop, and behind it the push while there is one. */
    demi_qtoken_t tokens[2];
    bool pushing = false;
    int error = demi_pop(&tokens[0], qd);
    while (error == 0 && to_receive > 0 && !stopping()) {
        demi_qresult_t result;
        int which = 0;
        if (!pushing && to_send > 0) {
            error = push_piece(qd, sent, to_send, &tokens[1]);
            if (error != 0)
                break;
            to_send -= to_send < PIECE_BYTES ? to_send : PIECE_BYTES;
            pushing = true;
        }
        error = demi_wait_any(&result, &which, tokens, pushing ? 2 : 1, &silence);
        if (error != 0)
            break;
        if (result.qr_opcode == DEMI_OPC_FAILED)
            return (int)result.qr_ret;
        if (which == 1) {
            pushing = false;
            continue;
        }
        demi_sgarray_t *array = &result.qr_value.sga;
        size_t len = array->sga_segs[0].sgaseg_len;
        bool good = len > 0 && len <= to_receive && compare(received, array->sga_segs[0].sgaseg_buf, len);
        check(demi_sgafree(array), "demi_sgafree");
        if (!good)
            return len == 0 ? EPIPE : EPROTO;
        to_receive -= len;
        if (to_receive > 0)
            error = demi_pop(&tokens[0], qd);
    }
    return error != 0 ? error : to_receive == 0 ? 0 : ECANCELED;
}

int main(int argc, char *argv[])
{
    struct options options = start(argc, argv, "");
    struct noise sent = NOISE, received = NOISE;
    uint64_t bytes = (options.count != 0 ? options.count : 100) * 1000000;
    demi_qtoken_t token;
    demi_qresult_t result;
    int qd = -1;

    check(demi_socket(&qd, options.address.ss_family, SOCK_STREAM, 0), "demi_socket");
    check(demi_connect(&token, qd, (const struct sockaddr *)&options.address, options.address_len), "demi_connect");
    check(finish(token, &result, SILENCE_MS), "connect");
    uint64_t begun_ns = now_ns();
    int error = transfer(qd, bytes, &sent, &received);
    double seconds = (double)(now_ns() - begun_ns) / 1e9;
    check(demi_close(qd), "demi_close");
    shut_down();
    if (error != 0 || sent.hash != received.hash) {
        fprintf(stderr, "tcp-transfer: %s\n", error != 0 ? strerror(error) : "other bytes came back");
        return EXIT_FAILURE;
    }
    printf("tcp-transfer: %" PRIu64 " MB there and back in %.2f s (%.0f MB/s each way), FNV-1a %016" PRIx64 " sent, %016" PRIx64
           " received\n",
           bytes / 1000000, seconds, (double)bytes / 1e6 / seconds, sent.hash, received.hash);
    return EXIT_SUCCESS;
}
