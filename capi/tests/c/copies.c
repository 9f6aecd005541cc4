/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * An echo's client that sends memory of demi_sgaalloc() in every size, frees it at once and writes over what it gets next,
 * and compares what comes back: copies ADDRESS PORT. In the end the device's counters tell that no byte was copied on the
 * way, in or out.
 */
#define _POSIX_C_SOURCE 200809L

#include "expect.h"

#include <arpa/inet.h>
#include <demi/ext.h>
#include <demi/libos.h>
#include <demi/sga.h>
#include <demi/wait.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

#define ROUNDS 4

static const struct timespec LONG = {20, 0};
static const size_t SIZES[] = {1, 2, 63, 64, 1000, 1460, 1461, 9000, 65535, 65536, 300000, 1000000};

static uint8_t byte_at(size_t round, size_t at)
{
    return (uint8_t)(at * 31 + round * 17 + (at >> 8) * 7);
}

/* Allocates memory of the size of what was just freed, and writes over it. */
static void scribble(size_t size)
{
    demi_sgarray_t other = demi_sgaalloc(size);
    if (other.sga_numsegs == 1) {
        memset(other.sga_segs[0].sgaseg_buf, 0xee, size);
        EXPECT_ERROR(demi_sgafree(&other), 0);
    }
}

static void echo(int qd, size_t size, size_t round)
{
    demi_sgarray_t array = demi_sgaalloc(size);
    demi_qtoken_t token;
    demi_qresult_t result;
    EXPECT(array.sga_numsegs, 1);
    uint8_t *sent = array.sga_segs[0].sgaseg_buf;
    for (size_t at = 0; at < size; at++)
        sent[at] = byte_at(round, at);
    EXPECT_ERROR(demi_push(&token, qd, &array), 0);
    EXPECT_ERROR(demi_sgafree(&array), 0);
    scribble(size);
    EXPECT_ERROR(demi_wait(&result, token, &LONG), 0);
    EXPECT(result.qr_opcode, DEMI_OPC_PUSH);

    size_t received = 0, wrong = 0;
    while (received < size && expect_failures == 0) {
        EXPECT_ERROR(demi_pop(&token, qd), 0);
        EXPECT_ERROR(demi_wait(&result, token, &LONG), 0);
        EXPECT(result.qr_opcode, DEMI_OPC_POP);
        if (expect_failures != 0)
            return;
        const demi_sgaseg_t *part = &result.qr_value.sga.sga_segs[0];
        EXPECT(part->sgaseg_len != 0, 1);
        const uint8_t *bytes = part->sgaseg_buf;
        for (size_t at = 0; at < part->sgaseg_len; at++)
            wrong += bytes[at] != byte_at(round, received + at);
        received += part->sgaseg_len;
        EXPECT_ERROR(demi_sgafree(&result.qr_value.sga), 0);
    }
    EXPECT(received, size);
    EXPECT(wrong, 0);
}

static uint64_t metric(const char *name)
{
    uint64_t value = 0;
    EXPECT_ERROR(demi_ext_metric(name, &value), 0);
    return value;
}

int main(int argc, char *argv[])
{
    struct sockaddr_in server = {.sin_family = AF_INET};
    const struct demi_args args = {.argc = argc, .argv = argv, .callback = NULL};
    demi_qtoken_t token;
    demi_qresult_t result;
    size_t count = 0, total = 0;
    int qd = -1;

    if (argc < 3 || inet_pton(AF_INET, argv[1], &server.sin_addr) != 1)
        return EXIT_FAILURE;
    server.sin_port = htons((uint16_t)atoi(argv[2]));
    if (demi_init(&args) != 0)
        return EXIT_FAILURE;
    EXPECT_ERROR(demi_socket(&qd, AF_INET, SOCK_STREAM, 0), 0);
    EXPECT_ERROR(demi_connect(&token, qd, (const struct sockaddr *)&server, sizeof server), 0);
    EXPECT_ERROR(demi_wait(&result, token, &LONG), 0);
    EXPECT(result.qr_opcode, DEMI_OPC_CONNECT);
    for (size_t round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < sizeof SIZES / sizeof SIZES[0] && expect_failures == 0; i++) {
            echo(qd, SIZES[i], round);
            total += SIZES[i];
        }
    }

    EXPECT_ERROR(demi_ext_metrics(&count), 0);
    EXPECT(metric("catnip.device.tx_bytes") > total, 1);
    EXPECT(metric("catnip.device.rx_bytes") > total, 1);
    EXPECT(metric("catnip.device.tx_copied_bytes"), 0);
    EXPECT(metric("catnip.device.rx_copied_bytes"), 0);
    EXPECT_ERROR(demi_close(qd), 0);
    /* Long enough for the goodbye to be sent. */
    const struct timespec quiet = {0, 100 * 1000 * 1000};
    EXPECT_ERROR(demi_wait_next_n(&result, 1, &(int){0}, &quiet), ETIMEDOUT);
    return expect_failures;
}
