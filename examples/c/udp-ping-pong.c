/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * udp-ping-pong: one datagram back and forth, how long the round trips took, and how many were lost.
 *
 *   udp-ping-pong --server --config a.toml --address 10.0.0.1
 *   udp-ping-pong --client --config b.toml --address 10.0.0.1 --count 100000 [--size 64]
 *
 * --count: round trips (client, default 10000), datagrams to answer (server, default: no limit).
 * --size: bytes of the client's datagram, at least 8. The first 8 bytes number it, so that a late answer is not
 * taken for the next one.
 */
#define _POSIX_C_SOURCE 200809L

#include "common.h"
#include "histogram.h"

/* How long an answer may take before it counts as lost. */
#define ANSWER_TIMEOUT_MS 200

/* Lost datagrams in a row after which the client gives up. */
#define LOST_IN_A_ROW 25

static demi_sgarray_t allocate(size_t size)
{
    demi_sgarray_t array = demi_sgaalloc(size);
    if (array.sga_numsegs == 0)
        check(ENOBUFS, "demi_sgaalloc");
    return array;
}

static void run_server(const struct options *options)
{
    uint64_t answered = 0;
    int qd = -1;
    check(demi_socket(&qd, options->address.ss_family, SOCK_DGRAM, 0), "demi_socket");
    check(demi_bind(qd, (const struct sockaddr *)&options->address, options->address_len), "demi_bind");
    printf("udp-ping-pong: listening\n");
    fflush(stdout);

    while (!stopping() && (options->count == 0 || answered < options->count)) {
        const struct timespec slice = {.tv_sec = 0, .tv_nsec = 10 * 1000 * 1000};
        demi_qtoken_t pop;
        demi_qtoken_t push;
        demi_ext_qresult_t from;
        demi_qresult_t result;
        int error;
        check(demi_pop(&pop, qd), "demi_pop");
        do {
            error = demi_ext_wait(&from, pop, &slice);
        } while (error == ETIMEDOUT && !stopping());
        if (error == ETIMEDOUT)
            break;
        check(error, "demi_ext_wait");
        if (from.qr_opcode != DEMI_OPC_POP)
            continue;
        error = demi_ext_pushto(&push, qd, from.qr_segs, from.qr_numsegs, (const struct sockaddr *)&from.qr_addr,
                                from.qr_addrlen);
        for (size_t i = 0; i < from.qr_numsegs; i++)
            check(demi_ext_free(&from.qr_segs[i]), "demi_ext_free");
        if (error == 0)
            error = finish(push, &result, ANSWER_TIMEOUT_MS);
        if (error == 0)
            answered++;
    }
    check(demi_close(qd), "demi_close");
}

/* Waits for the answer with that number and compares it. Late answers to earlier datagrams are dropped. */
static int receive_answer(int qd, const uint8_t *message, size_t size)
{
    for (;;) {
        demi_qtoken_t token;
        demi_qresult_t result;
        check(demi_pop(&token, qd), "demi_pop");
        int error = finish(token, &result, ANSWER_TIMEOUT_MS);
        if (error != 0) {
            demi_ext_cancel(token); /* its own completion says ECANCELED, or has an answer after all */
            if (demi_wait(&result, token, NULL) == 0 && result.qr_opcode == DEMI_OPC_POP)
                check(demi_sgafree(&result.qr_value.sga), "demi_sgafree");
            return error;
        }
        demi_sgarray_t *array = &result.qr_value.sga;
        size_t len = array->sga_segs[0].sgaseg_len;
        const uint8_t *bytes = array->sga_segs[0].sgaseg_buf;
        bool numbered = len >= sizeof(uint64_t) && memcmp(bytes, message, sizeof(uint64_t)) == 0;
        bool good = len == size && memcmp(bytes, message, size) == 0;
        check(demi_sgafree(array), "demi_sgafree");
        if (numbered)
            return good ? 0 : EPROTO;
    }
}

static int run_client(const struct options *options)
{
    static struct histogram histogram;
    uint64_t count = options->count != 0 ? options->count : 10000;
    uint64_t number = 0;
    uint64_t lost = 0;
    unsigned lost_in_a_row = 0;
    demi_qtoken_t token;
    demi_qresult_t result;
    int qd = -1;
    int error = 0;
    uint8_t *message = malloc(options->size);
    if (message == NULL)
        check(ENOMEM, "message");

    check(demi_socket(&qd, options->address.ss_family, SOCK_DGRAM, 0), "demi_socket");
    check(demi_connect(&token, qd, (const struct sockaddr *)&options->address, options->address_len),
          "demi_connect");
    check(finish(token, &result, ANSWER_TIMEOUT_MS), "connect");

    while (histogram.count < count && !stopping()) {
        number++;
        memset(message, (int)('a' + number % 26), options->size);
        memcpy(message, &number, sizeof number);
        demi_sgarray_t array = allocate(options->size);
        memcpy(array.sga_segs[0].sgaseg_buf, message, options->size);
        uint64_t sent_ns = now_ns();
        error = demi_push(&token, qd, &array);
        check(demi_sgafree(&array), "demi_sgafree");
        if (error == 0)
            error = finish(token, &result, ANSWER_TIMEOUT_MS);
        if (error == 0)
            error = receive_answer(qd, message, options->size);
        if (error == 0) {
            histogram_record(&histogram, now_ns() - sent_ns);
            lost_in_a_row = 0;
            continue;
        }
        if (error == ECANCELED || error == EPROTO || ++lost_in_a_row == LOST_IN_A_ROW)
            break;
        lost++;
        error = 0;
    }
    if (error == ECANCELED)
        error = 0;
    if (error != 0)
        fprintf(stderr, "udp-ping-pong: after %llu round trips: %s\n", (unsigned long long)histogram.count,
                strerror(error));
    histogram_print(&histogram, "udp-ping-pong");
    printf("udp-ping-pong: %llu lost\n", (unsigned long long)lost);
    check(demi_close(qd), "demi_close");
    free(message);
    return error;
}

int main(int argc, char *argv[])
{
    struct options options = start(argc, argv, "--server|--client [--size BYTES] ");
    int error = 0;
    if (options.size < sizeof(uint64_t))
        options.size = sizeof(uint64_t);
    if (options.server)
        run_server(&options);
    else
        error = run_client(&options);
    shut_down();
    return error == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
