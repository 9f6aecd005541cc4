/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tcp-ping-pong: one message back and forth over one connection, and how long the round trips took.
 *
 *   tcp-ping-pong --server --config a.toml --address 10.0.0.1
 *   tcp-ping-pong --client --config b.toml --address 10.0.0.1 --count 100000 [--size 64]
 *
 * --count: round trips (client, default 10000), connections to serve (server, default: no limit).
 * --size: bytes of a message, the same on both sides. The client checks every byte that comes back.
 */
#define _POSIX_C_SOURCE 200809L

#include "common.h"
#include "histogram.h"
#include <netinet/tcp.h>

/* How long an answer may take. */
#define ANSWER_TIMEOUT_MS 10000

/* Receives size bytes and calls on_piece for every piece of them. EPIPE when the peer has ended the stream,
 * which before the first byte is an orderly end. */
static int receive(int qd, size_t size, bool (*on_piece)(size_t offset, const uint8_t *bytes, size_t len, void *),
                   void *context, uint64_t timeout_ms)
{
    size_t received = 0;
    while (received < size) {
        demi_qtoken_t token;
        demi_qresult_t result;
        int error = demi_pop(&token, qd);
        if (error == 0)
            error = finish(token, &result, timeout_ms);
        if (error != 0)
            return error;
        demi_sgarray_t *array = &result.qr_value.sga;
        size_t len = array->sga_segs[0].sgaseg_len;
        bool good = len <= size - received && on_piece(received, array->sga_segs[0].sgaseg_buf, len, context);
        check(demi_sgafree(array), "demi_sgafree");
        if (len == 0)
            return EPIPE;
        if (!good)
            return EPROTO;
        received += len;
    }
    return 0;
}

/* Sends an array and gives it back. */
static int send_array(int qd, demi_sgarray_t *array)
{
    demi_qtoken_t token;
    demi_qresult_t result;
    int error = demi_push(&token, qd, array);
    check(demi_sgafree(array), "demi_sgafree");
    return error != 0 ? error : finish(token, &result, ANSWER_TIMEOUT_MS);
}

static demi_sgarray_t allocate(size_t size)
{
    demi_sgarray_t array = demi_sgaalloc(size);
    if (array.sga_numsegs == 0)
        check(ENOBUFS, "demi_sgaalloc");
    return array;
}

static bool copy_piece(size_t offset, const uint8_t *bytes, size_t len, void *message)
{
    if (len != 0)
        memcpy((uint8_t *)message + offset, bytes, len);
    return true;
}

static bool compare_piece(size_t offset, const uint8_t *bytes, size_t len, void *message)
{
    return len == 0 || memcmp((const uint8_t *)message + offset, bytes, len) == 0;
}

/* Answers message by message until the client ends the stream. */
static void serve(int qd, size_t size)
{
    int error;
    do {
        demi_sgarray_t answer = allocate(size);
        error = receive(qd, size, copy_piece, answer.sga_segs[0].sgaseg_buf, UINT64_MAX / 2000000);
        if (error == 0)
            error = send_array(qd, &answer);
        else
            check(demi_sgafree(&answer), "demi_sgafree");
    } while (error == 0);
    if (error != EPIPE && error != ECANCELED)
        fprintf(stderr, "tcp-ping-pong: %s\n", strerror(error));
}

static void run_server(const struct options *options)
{
    int listener = -1;
    uint64_t served = 0;
    check(demi_socket(&listener, options->address.ss_family, SOCK_STREAM, 0), "demi_socket");
    check(demi_bind(listener, (const struct sockaddr *)&options->address, options->address_len), "demi_bind");
    check(demi_listen(listener, 16), "demi_listen");
    printf("tcp-ping-pong: listening\n");
    fflush(stdout);

    while (!stopping() && (options->count == 0 || served < options->count)) {
        demi_qtoken_t token;
        demi_qresult_t result;
        check(demi_accept(&token, listener), "demi_accept");
        int error = finish(token, &result, UINT64_MAX / 2000000);
        if (error == ECANCELED)
            break;
        check(error, "accept");
        serve(result.qr_value.ares.qd, options->size);
        check(demi_close(result.qr_value.ares.qd), "demi_close");
        served++;
    }
    check(demi_close(listener), "demi_close");
}

static int run_client(const struct options *options)
{
    static struct histogram histogram;
    uint64_t count = options->count != 0 ? options->count : 10000;
    demi_qtoken_t token;
    demi_qresult_t result;
    int qd = -1;
    int on = 1;
    int error;
    uint8_t *message = malloc(options->size);
    if (message == NULL)
        check(ENOMEM, "message");

    check(demi_socket(&qd, options->address.ss_family, SOCK_STREAM, 0), "demi_socket");
    check(demi_setsockopt(qd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), "TCP_NODELAY");
    check(demi_connect(&token, qd, (const struct sockaddr *)&options->address, options->address_len),
          "demi_connect");
    check(finish(token, &result, ANSWER_TIMEOUT_MS), "connect");

    error = 0;
    while (histogram.count < count && !stopping() && error == 0) {
        memset(message, (int)('a' + histogram.count % 26), options->size);
        demi_sgarray_t array = allocate(options->size);
        memcpy(array.sga_segs[0].sgaseg_buf, message, options->size);
        uint64_t sent_ns = now_ns();
        error = send_array(qd, &array);
        if (error == 0)
            error = receive(qd, options->size, compare_piece, message, ANSWER_TIMEOUT_MS);
        if (error == 0)
            histogram_record(&histogram, now_ns() - sent_ns);
    }
    if (error == ECANCELED)
        error = 0;
    if (error != 0)
        fprintf(stderr, "tcp-ping-pong: after %llu round trips: %s\n", (unsigned long long)histogram.count,
                strerror(error));
    histogram_print(&histogram, "tcp-ping-pong");
    check(demi_close(qd), "demi_close");
    free(message);
    return error;
}

int main(int argc, char *argv[])
{
    struct options options = start(argc, argv, "--server|--client [--size BYTES] ");
    int error = 0;
    if (options.size == 0)
        options.size = 1;
    if (options.server)
        run_server(&options);
    else
        error = run_client(&options);
    shut_down();
    return error == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
