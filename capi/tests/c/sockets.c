/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Sockets, both ends in one thread: sockets ADDRESS. What crosses, what the names are, how it ends, and what a
 * mistake gets. At the end no memory is held.
 */
#define _POSIX_C_SOURCE 200809L

#include "sockets.h"

static void a_stream_carries_both_ways_and_ends_one_way_at_a_time(int listener)
{
    struct pair pair = connect_pair(listener);
    push_text(pair.client, "to the server");
    expect_text(pair.server, "to the server");
    push_text(pair.server, "to the client");
    expect_text(pair.client, "to the client");
    push_text(pair.client, ""); /* no bytes, no effect: not the end of the stream */
    push_text(pair.client, "one");
    push_text(pair.client, "two");
    push_text(pair.client, "three");
    expect_text(pair.server, "onetwothree");

    EXPECT_ERROR(demi_ext_shutdown(pair.client, SHUT_WR), 0);
    expect_end(pair.server);
    push_text(pair.server, "still open");
    expect_text(pair.client, "still open");
    demi_qtoken_t token = 0;
    demi_ext_seg_t segment = {"x", 1, NULL};
    EXPECT_ERROR(failure(demi_ext_push(&token, pair.client, &segment, 1), &token), EPIPE);
    close_queue(pair.server);
    expect_end(pair.client);
    close_queue(pair.client);
}

/* The plain accept result, as Demikernel's programs read it. */
static void the_plain_accept_result_names_the_peer(int listener)
{
    struct sockaddr_storage name = local_name(listener);
    demi_qtoken_t accept_token = 0;
    demi_qtoken_t connect_token = 0;
    demi_qresult_t result = {0};
    int client = make_socket(SOCK_STREAM);
    EXPECT_ERROR(demi_accept(&accept_token, listener), 0);
    EXPECT_ERROR(demi_connect(&connect_token, client, as_sockaddr(&name), host_len), 0);
    EXPECT_ERROR(demi_wait(&result, accept_token, &LONG), 0);
    EXPECT(result.qr_opcode, DEMI_OPC_ACCEPT);
    EXPECT(result.qr_qd, listener);
    demi_accept_result_t accepted = result.qr_value.ares;
    struct sockaddr_in peer = accepted.addr;
    struct sockaddr_storage client_name = local_name(client);
    EXPECT(peer.sin_family, host.ss_family);
    EXPECT(peer.sin_port, *port_of(&client_name));
    if (host.ss_family == AF_INET)
        EXPECT(peer.sin_addr.s_addr, ((struct sockaddr_in *)&client_name)->sin_addr.s_addr);
    EXPECT_ERROR(demi_wait(&result, connect_token, &LONG), 0);
    EXPECT(result.qr_opcode, DEMI_OPC_CONNECT);
    close_queue(client);
    expect_end(accepted.qd);
    close_queue(accepted.qd);
}

/* Much data, in arrays far larger than a packet, against a full send queue. */
static void bulk_data_arrives_whole_and_in_order(int listener)
{
    enum { CHUNK = 300000, CHUNKS = 40 };
    struct pair pair = connect_pair(listener);
    demi_qtoken_t pushes[CHUNKS];
    demi_qtoken_t pop_token = 0;
    uint64_t received = 0;
    int pushed = 0;
    bool good = true;
    for (int i = 0; i < CHUNKS; i++) {
        demi_sgarray_t array = demi_sgaalloc(CHUNK);
        EXPECT(array.sga_numsegs, 1);
        uint8_t *bytes = array.sga_segs[0].sgaseg_buf;
        for (size_t at = 0; at < CHUNK; at++)
            bytes[at] = (uint8_t)((((uint64_t)i * CHUNK + at) * 2654435761u) >> 24);
        EXPECT_ERROR(demi_push(&pushes[i], pair.client, &array), 0);
        EXPECT_ERROR(demi_sgafree(&array), 0);
    }
    EXPECT_ERROR(demi_pop(&pop_token, pair.server), 0);
    while (received < (uint64_t)CHUNK * CHUNKS && good) {
        demi_qresult_t results[4];
        int count = 0;
        EXPECT_ERROR(demi_wait_next_n(results, 4, &count, &LONG), 0);
        good = count > 0;
        for (int i = 0; i < count; i++) {
            if (results[i].qr_opcode == DEMI_OPC_PUSH) {
                good &= results[i].qr_qt == pushes[pushed]; /* in the order of the calls */
                pushed++;
                continue;
            }
            EXPECT(results[i].qr_opcode, DEMI_OPC_POP);
            const uint8_t *bytes = results[i].qr_value.sga.sga_segs[0].sgaseg_buf;
            size_t len = results[i].qr_value.sga.sga_segs[0].sgaseg_len;
            good &= len > 0;
            for (size_t at = 0; at < len; at++)
                good &= bytes[at] == (uint8_t)(((received + at) * 2654435761u) >> 24);
            received += len;
            EXPECT_ERROR(demi_sgafree(&results[i].qr_value.sga), 0);
            EXPECT_ERROR(demi_pop(&pop_token, pair.server), 0);
        }
    }
    EXPECT(good, true);
    EXPECT(received, (uint64_t)CHUNK * CHUNKS);
    EXPECT(pushed, CHUNKS);
    close_queue(pair.client);
    demi_qresult_t result = {0};
    EXPECT_ERROR(demi_wait(&result, pop_token, &LONG), 0);
    EXPECT(result.qr_opcode, DEMI_OPC_POP);
    EXPECT(result.qr_value.sga.sga_segs[0].sgaseg_len, 0);
    close_queue(pair.server);
}

/* A push that the send queue has no room for stays outstanding until the peer reads. */
static void a_full_send_queue_holds_pushes_back(int listener)
{
    enum { CHUNK = 1 << 20 };
    struct pair pair = connect_pair(listener);
    demi_qtoken_t token = 0;
    demi_qresult_t result = {0};
    size_t pushed = 0;
    int error = 0;
    char *bytes = calloc(1, CHUNK);
    const struct timespec moment = {0, 20000000};
    while (pushed < 100) {
        token = start_push(pair.client, bytes, CHUNK);
        error = demi_wait(&result, token, &moment);
        if (error != 0)
            break;
        pushed++;
    }
    EXPECT_ERROR(error, ETIMEDOUT);
    size_t left = (pushed + 1) * CHUNK;
    while (left > 0) {
        demi_qtoken_t pop_token = 0;
        demi_qresult_t popped = {0};
        EXPECT_ERROR(demi_pop(&pop_token, pair.server), 0);
        EXPECT_ERROR(demi_wait(&popped, pop_token, &LONG), 0);
        EXPECT(popped.qr_opcode, DEMI_OPC_POP);
        size_t len = popped.qr_value.sga.sga_segs[0].sgaseg_len;
        if (len == 0 || len > left) {
            EXPECT(len, left);
            break;
        }
        left -= len;
        EXPECT_ERROR(demi_sgafree(&popped.qr_value.sga), 0);
    }
    EXPECT_ERROR(demi_wait(&result, token, &LONG), 0);
    EXPECT(result.qr_opcode, DEMI_OPC_PUSH);
    free(bytes);
    close_queue(pair.client);
    close_queue(pair.server);
}

/* Both directions are full to the last byte and have been for a while, so that the closed windows were probed. One side
 * reads: what the other one pushed must arrive and be acknowledged, although nothing moves the other way. */
static void a_blocked_direction_does_not_block_the_other(int listener)
{
    enum { WINDOW = 1 << 20, SIZE = 4 * WINDOW };
    const struct timespec while_probed = {1, 500000000};
    struct pair pair = connect_pair(listener);
    const int sides[] = {pair.client, pair.server};
    demi_qtoken_t pushes[2];
    demi_qresult_t result = {0};
    char *bytes = calloc(1, SIZE);
    int place = -1;
    for (int i = 0; i < 2; i++) /* just what the peer offers, so that the window closes and not nearly so */
        finish(start_push(sides[i], bytes, WINDOW), DEMI_OPC_PUSH);
    for (int i = 0; i < 2; i++)
        pushes[i] = start_push(sides[i], bytes, SIZE - WINDOW);
    EXPECT_ERROR(demi_wait_any(&result, &place, pushes, 2, &while_probed), ETIMEDOUT);

    for (int reader = 0; reader < 2; reader++) {
        for (size_t left = SIZE; left > 0;) {
            demi_qtoken_t pop = 0;
            EXPECT_ERROR(demi_pop(&pop, sides[reader]), 0);
            EXPECT_ERROR(demi_wait(&result, pop, &LONG), 0);
            size_t len = result.qr_value.sga.sga_segs[0].sgaseg_len;
            if (result.qr_opcode != DEMI_OPC_POP || len == 0 || len > left) {
                EXPECT(left, 0);
                break;
            }
            left -= len;
            EXPECT_ERROR(demi_sgafree(&result.qr_value.sga), 0);
        }
        EXPECT_ERROR(demi_wait(&result, pushes[1 - reader], &LONG), 0);
        EXPECT(result.qr_opcode, DEMI_OPC_PUSH);
    }
    free(bytes);
    close_queue(pair.client);
    close_queue(pair.server);
}

static void datagrams_keep_their_bounds_and_their_sender(void)
{
    int server = bound_socket(SOCK_DGRAM);
    int client = bound_socket(SOCK_DGRAM);
    struct sockaddr_storage server_name = local_name(server);
    struct sockaddr_storage client_name = local_name(client);
    demi_qtoken_t pops[3];
    demi_qtoken_t push = 0;
    const char *texts[] = {"first", "", "third"};
    for (int i = 0; i < 3; i++)
        EXPECT_ERROR(demi_pop(&pops[i], server), 0);
    for (int i = 0; i < 3; i++) {
        demi_sgarray_t array = {.sga_numsegs = 1};
        array.sga_segs[0].sgaseg_buf = (void *)(uintptr_t)texts[i];
        array.sga_segs[0].sgaseg_len = (uint32_t)strlen(texts[i]);
        EXPECT_ERROR(demi_pushto(&push, client, &array, as_sockaddr(&server_name), host_len), 0);
        finish(push, DEMI_OPC_PUSH);
    }
    for (int i = 0; i < 3; i++) {
        demi_ext_qresult_t result = finish(pops[i], DEMI_OPC_POP);
        EXPECT(result.qr_numsegs, 1);
        EXPECT(result.qr_segs[0].seg_len, strlen(texts[i]));
        if (result.qr_segs[0].seg_len == strlen(texts[i]) && texts[i][0] != '\0')
            EXPECT(memcmp(result.qr_segs[0].seg_buf, texts[i], strlen(texts[i])), 0);
        EXPECT(result.qr_addrlen, host_len);
        EXPECT(same_address(&result.qr_addr, &client_name), 1);
        EXPECT_ERROR(demi_ext_free(&result.qr_segs[0]), 0);
    }

    /* The plain result has the sender's address as well; a connected socket needs no address to push. */
    demi_qtoken_t token = 0;
    demi_qresult_t plain = {0};
    EXPECT_ERROR(demi_connect(&token, client, as_sockaddr(&server_name), host_len), 0);
    finish(token, DEMI_OPC_CONNECT);
    demi_ext_seg_t segments[] = {{"two ", 4, NULL}, {"parts", 5, NULL}};
    EXPECT_ERROR(demi_ext_push(&token, client, segments, 2), 0);
    finish(token, DEMI_OPC_PUSH);
    EXPECT_ERROR(demi_pop(&token, server), 0);
    EXPECT_ERROR(demi_wait(&plain, token, &LONG), 0);
    EXPECT(plain.qr_opcode, DEMI_OPC_POP);
    struct sockaddr_in from = plain.qr_value.sga.sga_addr;
    EXPECT(from.sin_family, host.ss_family);
    EXPECT(from.sin_port, *port_of(&client_name));
    EXPECT(plain.qr_value.sga.sga_segs[0].sgaseg_len, 9);
    EXPECT(memcmp(plain.qr_value.sga.sga_segs[0].sgaseg_buf, "two parts", 9), 0);
    EXPECT_ERROR(demi_sgafree(&plain.qr_value.sga), 0);

    demi_sgarray_t huge = demi_sgaalloc(70000);
    EXPECT_ERROR(failure(demi_push(&token, client, &huge), &token), EMSGSIZE);
    EXPECT_ERROR(demi_sgafree(&huge), 0);
    close_queue(client);
    close_queue(server);
}

static void mistakes_with_sockets(int listener)
{
    struct sockaddr_storage taken = local_name(listener);
    struct sockaddr_storage nobody = host;
    demi_qtoken_t token = 0;
    demi_ext_seg_t segment = {"x", 1, NULL};
    int qd = make_socket(SOCK_STREAM);

    /* A port that nothing listens on: one that was free a moment ago. */
    int other = bound_socket(SOCK_STREAM);
    struct sockaddr_storage closed = local_name(other);
    close_queue(other);
    EXPECT_ERROR(failure(demi_connect(&token, qd, as_sockaddr(&closed), host_len), &token), ECONNREFUSED);
    close_queue(qd);

    qd = make_socket(SOCK_STREAM);
    EXPECT_ERROR(demi_bind(qd, as_sockaddr(&taken), host_len), EADDRINUSE);
    *port_of(&nobody) = htons(4000);
    if (nobody.ss_family == AF_INET)
        ((struct sockaddr_in *)&nobody)->sin_addr.s_addr = htonl(0xc0000263); /* 192.0.2.99 */
    else
        ((struct sockaddr_in6 *)&nobody)->sin6_addr.s6_addr[15] ^= 0x55;
    EXPECT_ERROR(demi_bind(qd, as_sockaddr(&nobody), host_len), EADDRNOTAVAIL);
    EXPECT_ERROR(failure(demi_ext_push(&token, qd, &segment, 1), &token), ENOTCONN);
    EXPECT_ERROR(failure(demi_pop(&token, qd), &token), ENOTCONN);
    EXPECT_ERROR(failure(demi_accept(&token, qd), &token), EINVAL);
    struct sockaddr_storage name;
    socklen_t len = sizeof name;
    EXPECT_ERROR(demi_getpeername(qd, (struct sockaddr *)&name, &len), ENOTCONN);
    EXPECT_ERROR(demi_ext_shutdown(qd, SHUT_WR), ENOTCONN);
    EXPECT_ERROR(demi_bind(qd, as_sockaddr(&host), host_len), 0);
    EXPECT_ERROR(demi_bind(qd, as_sockaddr(&host), host_len), EINVAL);
    close_queue(qd);

    qd = make_socket(SOCK_STREAM);
    EXPECT_ERROR(demi_listen(qd, 1), 0);
    EXPECT_ERROR(demi_getsockname(qd, (struct sockaddr *)&name, &len), 0);
    EXPECT(*port_of(&name) != 0, 1);
    EXPECT_ERROR(demi_listen(qd, 1), EINVAL);
    EXPECT_ERROR(failure(demi_connect(&token, qd, as_sockaddr(&taken), host_len), &token), EINVAL);
    close_queue(qd);

    struct pair pair = connect_pair(listener);
    EXPECT_ERROR(failure(demi_connect(&token, pair.client, as_sockaddr(&taken), host_len), &token), EISCONN);
    EXPECT_ERROR(failure(demi_accept(&token, pair.client), &token), EINVAL);
    EXPECT_ERROR(demi_listen(pair.client, 1), EINVAL);
    close_queue(pair.client);
    close_queue(pair.server);

    qd = make_socket(SOCK_DGRAM);
    EXPECT_ERROR(demi_listen(qd, 1), ENOTSUP);
    EXPECT_ERROR(failure(demi_accept(&token, qd), &token), ENOTSUP);
    EXPECT_ERROR(failure(demi_ext_push(&token, qd, &segment, 1), &token), ENOTCONN);
    close_queue(qd);
}

/* What waits on sockets that are closed ends as cancelled. */
static void closing_cancels_what_is_outstanding(int listener)
{
    struct pair pair = connect_pair(listener);
    int other = listening_socket();
    int datagrams = bound_socket(SOCK_DGRAM);
    demi_qtoken_t tokens[3];
    EXPECT_ERROR(demi_pop(&tokens[0], pair.client), 0);
    EXPECT_ERROR(demi_accept(&tokens[1], other), 0);
    EXPECT_ERROR(demi_pop(&tokens[2], datagrams), 0);
    close_queue(pair.client);
    close_queue(other);
    close_queue(datagrams);
    for (int i = 0; i < 3; i++) {
        demi_qresult_t result = {0};
        EXPECT_ERROR(demi_wait(&result, tokens[i], &NOW), 0);
        EXPECT(result.qr_opcode, DEMI_OPC_FAILED);
        EXPECT_ERROR((int)result.qr_ret, ECANCELED);
    }
    close_queue(pair.server);
}

/* Closed connections finish in the background; then nothing is held but what receiving needs. */
static void memory_comes_back(uint64_t before)
{
    uint64_t after = UINT64_MAX;
    for (int i = 0; i < 100 && after > before; i++) {
        const struct timespec moment = {0, 10000000};
        demi_qresult_t result;
        int count;
        size_t metrics;
        EXPECT_ERROR(demi_wait_next_n(&result, 1, &count, &moment), ETIMEDOUT);
        EXPECT_ERROR(demi_ext_metrics(&metrics), 0);
        EXPECT_ERROR(demi_ext_metric("arena.live_buffers", &after), 0);
    }
    EXPECT(after <= before, 1);
}

int main(int argc, char *argv[])
{
    begin(argc, argv);
    uint64_t before = 0;
    size_t metrics;
    EXPECT_ERROR(demi_ext_metrics(&metrics), 0);
    EXPECT_ERROR(demi_ext_metric("arena.live_buffers", &before), 0);

    int listener = listening_socket();
    a_stream_carries_both_ways_and_ends_one_way_at_a_time(listener);
    the_plain_accept_result_names_the_peer(listener);
    bulk_data_arrives_whole_and_in_order(listener);
    a_full_send_queue_holds_pushes_back(listener);
    a_blocked_direction_does_not_block_the_other(listener);
    datagrams_keep_their_bounds_and_their_sender();
    mistakes_with_sockets(listener);
    closing_cancels_what_is_outstanding(listener);
    close_queue(listener);
    memory_comes_back(before);
    EXPECT_ERROR(demi_ext_fini(), 0);
    return expect_failures != 0;
}
