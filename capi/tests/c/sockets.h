/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the test programs with sockets share: addresses, connections, and operations that end as they should. */
#ifndef CATNIP_TESTS_SOCKETS_H
#define CATNIP_TESTS_SOCKETS_H

#include "expect.h"

#include <arpa/inet.h>
#include <demi/ext.h>
#include <demi/libos.h>
#include <demi/sga.h>
#include <demi/wait.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Longer than anything here takes. */
static const struct timespec LONG = {10, 0};
static const struct timespec NOW = {0, 0};

static struct sockaddr_storage host;
static socklen_t host_len;

static inline const struct sockaddr *as_sockaddr(const struct sockaddr_storage *storage)
{
    return (const struct sockaddr *)storage;
}

static inline in_port_t *port_of(struct sockaddr_storage *storage)
{
    return storage->ss_family == AF_INET ? &((struct sockaddr_in *)storage)->sin_port
                                         : &((struct sockaddr_in6 *)storage)->sin6_port;
}

static inline bool same_address(const struct sockaddr_storage *one, const struct sockaddr_storage *other)
{
    if (one->ss_family == AF_INET)
        return memcmp(one, other, offsetof(struct sockaddr_in, sin_zero)) == 0;
    const struct sockaddr_in6 *a = (const struct sockaddr_in6 *)one;
    const struct sockaddr_in6 *b = (const struct sockaddr_in6 *)other;
    return a->sin6_family == b->sin6_family && a->sin6_port == b->sin6_port &&
           memcmp(&a->sin6_addr, &b->sin6_addr, sizeof a->sin6_addr) == 0;
}

static inline struct sockaddr_storage local_name(int qd)
{
    struct sockaddr_storage name = {0};
    socklen_t len = sizeof name;
    EXPECT_ERROR(demi_getsockname(qd, (struct sockaddr *)&name, &len), 0);
    EXPECT(len, host_len);
    return name;
}

static inline struct sockaddr_storage peer_name(int qd)
{
    struct sockaddr_storage name = {0};
    socklen_t len = sizeof name;
    EXPECT_ERROR(demi_getpeername(qd, (struct sockaddr *)&name, &len), 0);
    EXPECT(len, host_len);
    return name;
}

static inline int make_socket(int type)
{
    int qd = -1;
    EXPECT_ERROR(demi_socket(&qd, host.ss_family, type, 0), 0);
    return qd;
}

static inline int bound_socket(int type)
{
    int qd = make_socket(type);
    EXPECT_ERROR(demi_bind(qd, as_sockaddr(&host), host_len), 0);
    return qd;
}

/* The result of an operation that goes well. */
static inline demi_ext_qresult_t finish(demi_qtoken_t token, demi_opcode_t opcode)
{
    demi_ext_qresult_t result = {0};
    EXPECT_ERROR(demi_ext_wait(&result, token, &LONG), 0);
    EXPECT(result.qr_opcode, opcode);
    EXPECT_ERROR((int)result.qr_ret, 0);
    return result;
}

/* The error of an operation that fails, which its result tells: what follows from the state of a queue is told there. */
static inline int failure(int started, const demi_qtoken_t *token)
{
    demi_qresult_t result = {0};
    EXPECT_ERROR(started, 0);
    if (started != 0)
        return started;
    EXPECT_ERROR(demi_wait(&result, *token, &LONG), 0);
    EXPECT(result.qr_opcode, DEMI_OPC_FAILED);
    return (int)result.qr_ret;
}

static inline void close_queue(int qd)
{
    EXPECT_ERROR(demi_close(qd), 0);
}

static inline demi_qtoken_t start_push(int qd, const void *bytes, size_t len)
{
    demi_qtoken_t token = 0;
    demi_ext_seg_t segment = {(void *)(uintptr_t)bytes, len, NULL};
    EXPECT_ERROR(demi_ext_push(&token, qd, &segment, 1), 0);
    return token;
}

static inline void push_text(int qd, const char *text)
{
    finish(start_push(qd, text, strlen(text)), DEMI_OPC_PUSH);
}

/* Pops until the text has arrived; a stream may bring it in pieces. */
static inline void expect_text(int qd, const char *text)
{
    size_t wanted = strlen(text);
    size_t seen = 0;
    while (seen < wanted) {
        demi_qtoken_t token = 0;
        demi_qresult_t result = {0};
        EXPECT_ERROR(demi_pop(&token, qd), 0);
        EXPECT_ERROR(demi_wait(&result, token, &LONG), 0);
        EXPECT(result.qr_opcode, DEMI_OPC_POP);
        size_t len = result.qr_value.sga.sga_segs[0].sgaseg_len;
        if (result.qr_opcode != DEMI_OPC_POP || len == 0 || len > wanted - seen) {
            EXPECT(len, wanted - seen);
            return;
        }
        EXPECT(memcmp(result.qr_value.sga.sga_segs[0].sgaseg_buf, text + seen, len), 0);
        EXPECT_ERROR(demi_sgafree(&result.qr_value.sga), 0);
        seen += len;
    }
}

static inline void expect_end(int qd)
{
    for (int i = 0; i < 2; i++) { /* the end stays */
        demi_qtoken_t token = 0;
        demi_qresult_t result = {0};
        EXPECT_ERROR(demi_pop(&token, qd), 0);
        EXPECT_ERROR(demi_wait(&result, token, &LONG), 0);
        EXPECT(result.qr_opcode, DEMI_OPC_POP);
        EXPECT(result.qr_value.sga.sga_numsegs, 1);
        EXPECT(result.qr_value.sga.sga_segs[0].sgaseg_len, 0);
        EXPECT_ERROR(demi_sgafree(&result.qr_value.sga), 0);
    }
}

/* Two connected sockets. */
struct pair {
    int client;
    int server;
};

static inline struct pair connect_pair(int listener)
{
    struct sockaddr_storage name = local_name(listener);
    struct pair pair = {make_socket(SOCK_STREAM), -1};
    demi_qtoken_t accept_token = 0;
    demi_qtoken_t connect_token = 0;
    EXPECT_ERROR(demi_accept(&accept_token, listener), 0);
    EXPECT_ERROR(demi_connect(&connect_token, pair.client, as_sockaddr(&name), host_len), 0);
    demi_ext_qresult_t accepted = finish(accept_token, DEMI_OPC_ACCEPT);
    finish(connect_token, DEMI_OPC_CONNECT);
    pair.server = accepted.qr_accepted;

    struct sockaddr_storage client_name = local_name(pair.client);
    struct sockaddr_storage server_peer = peer_name(pair.server);
    struct sockaddr_storage client_peer = peer_name(pair.client);
    EXPECT(accepted.qr_addrlen, host_len);
    EXPECT(same_address(&accepted.qr_addr, &client_name), 1);
    EXPECT(same_address(&server_peer, &client_name), 1);
    EXPECT(same_address(&client_peer, &name), 1);
    return pair;
}

static inline int listening_socket(void)
{
    int listener = bound_socket(SOCK_STREAM);
    EXPECT_ERROR(demi_listen(listener, 16), 0);
    struct sockaddr_storage name = local_name(listener);
    EXPECT(*port_of(&name) != 0, 1);
    return listener;
}

/* Sets up the library OS, and the address of the command line as the host's. */
static inline void begin(int argc, char *argv[])
{
    const struct demi_args args = {0, NULL, NULL};
    struct sockaddr_in *v4 = (struct sockaddr_in *)&host;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&host;
    if (argc == 2 && inet_pton(AF_INET, argv[1], &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        host_len = sizeof *v4;
    } else if (argc == 2 && inet_pton(AF_INET6, argv[1], &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        host_len = sizeof *v6;
    } else {
        fprintf(stderr, "usage: %s ADDRESS\n", argv[0]);
        exit(2);
    }
    EXPECT_ERROR(demi_init(&args), 0);
    if (expect_failures != 0)
        exit(1);
}

#endif /* CATNIP_TESTS_SOCKETS_H */
