/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tcp-echo: sends every client what it sent. Any number of clients, one thread, no copies: a popped array is
 * pushed back as it is.
 *
 *   tcp-echo --config tap.toml --port 7 [--count N]     N: stop after that many connections have ended
 *
 * Each connection has one operation under way at a time: a pop, then the push of what came, then the next
 * pop. A client that sends without reading is slowed down by that: its push does not complete.
 */
#define _POSIX_C_SOURCE 200809L

#include "common.h"

/* Open connections by descriptor, to close them at the end. */
struct connections {
    bool *open;
    size_t capacity;
};

static void connection_opened(struct connections *connections, int qd)
{
    if ((size_t)qd >= connections->capacity) {
        size_t capacity = (size_t)qd * 2 + 64;
        bool *open = realloc(connections->open, capacity * sizeof *open);
        if (open == NULL)
            check(ENOMEM, "connections");
        memset(open + connections->capacity, 0, (capacity - connections->capacity) * sizeof *open);
        connections->open = open;
        connections->capacity = capacity;
    }
    connections->open[qd] = true;
}

static void connection_closed(struct connections *connections, int qd)
{
    connections->open[qd] = false;
    check(demi_close(qd), "demi_close");
}

/* Starts the next pop of a connection. False when the connection is beyond use. */
static bool pop_next(int qd)
{
    demi_qtoken_t token;
    return demi_pop(&token, qd) == 0;
}

/* Pushes back what was popped and gives the array back: the library keeps the memory while it needs it.
 * False at the end of the stream, or when the connection is beyond use. */
static bool push_back(int qd, demi_sgarray_t *array)
{
    demi_qtoken_t token;
    bool pushed = array->sga_segs[0].sgaseg_len != 0 && demi_push(&token, qd, array) == 0;
    check(demi_sgafree(array), "demi_sgafree");
    return pushed;
}

int main(int argc, char *argv[])
{
    struct options options = start(argc, argv, "");
    const struct timespec slice = {.tv_sec = 0, .tv_nsec = 10 * 1000 * 1000};
    struct connections connections = {NULL, 0};
    demi_qresult_t results[32];
    demi_qtoken_t accept_token;
    uint64_t ended = 0;
    int listener = -1;

    check(demi_socket(&listener, options.address.ss_family, SOCK_STREAM, 0), "demi_socket");
    check(demi_bind(listener, (const struct sockaddr *)&options.address, options.address_len), "demi_bind");
    check(demi_listen(listener, 128), "demi_listen");
    check(demi_accept(&accept_token, listener), "demi_accept");
    printf("tcp-echo: listening\n");
    fflush(stdout);

    while (!stopping() && (options.count == 0 || ended < options.count)) {
        int count = 0;
        int error = demi_wait_next_n(results, 32, &count, &slice);
        if (error == ETIMEDOUT)
            continue;
        check(error, "demi_wait_next_n");

        for (int i = 0; i < count; i++) {
            demi_qresult_t *result = &results[i];
            int qd = result->qr_qd;
            bool going_on = true;
            switch (result->qr_opcode) {
            case DEMI_OPC_ACCEPT:
                qd = result->qr_value.ares.qd;
                connection_opened(&connections, qd);
                going_on = pop_next(qd);
                check(demi_accept(&accept_token, listener), "demi_accept");
                break;
            case DEMI_OPC_POP:
                going_on = push_back(qd, &result->qr_value.sga);
                break;
            case DEMI_OPC_PUSH:
                going_on = pop_next(qd);
                break;
            case DEMI_OPC_FAILED:
                if (qd == listener) {
                    fprintf(stderr, "accept: %s\n", strerror((int)result->qr_ret));
                    check(demi_accept(&accept_token, listener), "demi_accept");
                } else {
                    going_on = false;
                }
                break;
            case DEMI_OPC_INVALID:
            case DEMI_OPC_CONNECT:
            case DEMI_OPC_CLOSE:
                break;
            }
            if (!going_on) {
                connection_closed(&connections, qd);
                ended++;
            }
        }
    }

    for (size_t qd = 0; qd < connections.capacity; qd++) {
        if (connections.open[qd])
            connection_closed(&connections, (int)qd);
    }
    check(demi_close(listener), "demi_close");
    shut_down();
    free(connections.open);
    printf("tcp-echo: %llu connections ended\n", (unsigned long long)ended);
    return EXIT_SUCCESS;
}
