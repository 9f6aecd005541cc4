/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * udp-echo: sends every datagram back to its sender, over IPv4 or IPv6, without copying it.
 *
 *   udp-echo --config tap.toml --port 7 [--count N]     N: stop after that many datagrams
 *
 * It uses the wide results of demi/ext.h, because a sender's IPv6 address does not fit the plain ones.
 */
#define _POSIX_C_SOURCE 200809L

#include "common.h"

/* Pops kept under way, so that a burst finds them. */
#define POPS 16

/* Sends the datagram back and gives its memory back. A datagram that cannot be sent is lost, as datagrams are. */
static void send_back(int qd, demi_ext_qresult_t *result)
{
    demi_qtoken_t token;
    int error = demi_ext_pushto(&token, qd, result->qr_segs, result->qr_numsegs,
                                (const struct sockaddr *)&result->qr_addr, result->qr_addrlen);
    if (error != 0)
        fprintf(stderr, "pushto: %s\n", strerror(error));
    for (size_t i = 0; i < result->qr_numsegs; i++)
        check(demi_ext_free(&result->qr_segs[i]), "demi_ext_free");
}

/* Starts a pop in one of the places. */
static void pop_next(int qd, demi_qtoken_t *place)
{
    check(demi_ext_pop(place, qd, DEMI_EXT_POP_MAXSEGS, SIZE_MAX), "demi_ext_pop");
}

/* The place of a pop's token, NULL for the token of a push. */
static demi_qtoken_t *place_of(demi_qtoken_t pops[POPS], demi_qtoken_t token)
{
    for (int i = 0; i < POPS; i++) {
        if (pops[i] == token)
            return &pops[i];
    }
    return NULL;
}

int main(int argc, char *argv[])
{
    struct options options = start(argc, argv, "");
    const struct timespec slice = {.tv_sec = 0, .tv_nsec = 10 * 1000 * 1000};
    demi_ext_qresult_t results[POPS];
    demi_qtoken_t pops[POPS];
    uint64_t echoed = 0;
    uint64_t failed = 0;
    int qd = -1;

    check(demi_socket(&qd, options.address.ss_family, SOCK_DGRAM, 0), "demi_socket");
    check(demi_bind(qd, (const struct sockaddr *)&options.address, options.address_len), "demi_bind");
    for (int i = 0; i < POPS; i++)
        pop_next(qd, &pops[i]);
    printf("udp-echo: listening\n");
    fflush(stdout);

    while (!stopping() && (options.count == 0 || echoed < options.count)) {
        int count = 0;
        int error = demi_ext_wait_next_n(results, POPS, &count, &slice);
        if (error == ETIMEDOUT)
            continue;
        check(error, "demi_ext_wait_next_n");

        for (int i = 0; i < count; i++) {
            demi_qtoken_t *place = place_of(pops, results[i].qr_qt);
            if (results[i].qr_opcode == DEMI_OPC_POP) {
                send_back(qd, &results[i]);
                echoed++;
            } else if (results[i].qr_opcode == DEMI_OPC_FAILED) {
                failed++; /* of a push: the datagram is lost; of a pop: start another */
            }
            if (place != NULL)
                pop_next(qd, place);
        }
    }

    check(demi_close(qd), "demi_close");
    shut_down();
    printf("udp-echo: %llu datagrams echoed, %llu operations failed\n", (unsigned long long)echoed,
           (unsigned long long)failed);
    return EXIT_SUCCESS;
}
