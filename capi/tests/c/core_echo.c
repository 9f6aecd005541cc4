/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A thread for each core of one configuration. As the server each answers what comes to its core until SIGTERM, and says at
 * the end how many connections it had; as the client each has one connection, and compares what comes back.
 *
 *   core_echo --config FILE server|client
 */
#define _POSIX_C_SOURCE 200809L

#include "expect.h"

#include <arpa/inet.h>
#include <demi/ext.h>
#include <demi/libos.h>
#include <demi/sga.h>
#include <demi/wait.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#define CORES 2
#define MESSAGES 200
#define MESSAGE_BYTES 5000
#define SERVER_ADDRESS "10.79.0.2"

static struct demi_args args;
static volatile sig_atomic_t stopped;
static uint64_t served[CORES];

static void stop(int number)
{
    (void)number;
    stopped = 1;
}

static struct sockaddr_in server_address(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(7)};
    inet_pton(AF_INET, SERVER_ADDRESS, &address.sin_addr);
    return address;
}

static void *serve(void *number)
{
    const intptr_t core = (intptr_t)number;
    const struct timespec slice = {.tv_sec = 0, .tv_nsec = 10 * 1000 * 1000};
    const struct sockaddr_in address = server_address();
    demi_qtoken_t token;
    int listener = -1;
    EXPECT(demi_ext_core_init(&args, (int)core), 0);
    EXPECT(demi_socket(&listener, AF_INET, SOCK_STREAM, 0), 0);
    EXPECT(demi_bind(listener, (const struct sockaddr *)&address, sizeof address), 0);
    EXPECT(demi_listen(listener, 16), 0);
    EXPECT(demi_accept(&token, listener), 0);
    while (!stopped) {
        demi_qresult_t results[16];
        int count = 0;
        if (demi_wait_next_n(results, 16, &count, &slice) != 0)
            continue;
        for (int i = 0; i < count; i++) {
            demi_qresult_t *result = &results[i];
            demi_sgarray_t *array = &result->qr_value.sga;
            switch (result->qr_opcode) {
            case DEMI_OPC_ACCEPT:
                served[core]++;
                EXPECT(demi_pop(&token, result->qr_value.ares.qd), 0);
                EXPECT(demi_accept(&token, listener), 0);
                break;
            case DEMI_OPC_POP:
                if (array->sga_segs[0].sgaseg_len != 0)
                    EXPECT(demi_push(&token, result->qr_qd, array), 0);
                else
                    EXPECT(demi_close(result->qr_qd), 0);
                EXPECT(demi_sgafree(array), 0);
                break;
            case DEMI_OPC_PUSH:
                EXPECT(demi_pop(&token, result->qr_qd), 0);
                break;
            default:
                break;
            }
        }
    }
    EXPECT(demi_ext_fini(), 0);
    return NULL;
}

static int receive(int qd, uint8_t *bytes, size_t size)
{
    size_t received = 0;
    while (received < size) {
        demi_qtoken_t token;
        demi_qresult_t result;
        EXPECT(demi_pop(&token, qd), 0);
        EXPECT(demi_wait(&result, token, NULL), 0);
        if (result.qr_opcode != DEMI_OPC_POP)
            return (int)result.qr_ret;
        const demi_sgaseg_t *segment = &result.qr_value.sga.sga_segs[0];
        if (segment->sgaseg_len == 0 || segment->sgaseg_len > size - received)
            return EPROTO;
        memcpy(bytes + received, segment->sgaseg_buf, segment->sgaseg_len);
        received += segment->sgaseg_len;
        EXPECT(demi_sgafree(&result.qr_value.sga), 0);
    }
    return 0;
}

static void *ask(void *number)
{
    const intptr_t core = (intptr_t)number;
    const struct sockaddr_in address = server_address();
    static uint8_t answers[CORES][MESSAGE_BYTES];
    demi_qtoken_t token;
    demi_qresult_t result;
    int qd = -1;
    EXPECT(demi_ext_core_init(&args, (int)core), 0);
    EXPECT(demi_socket(&qd, AF_INET, SOCK_STREAM, 0), 0);
    EXPECT(demi_connect(&token, qd, (const struct sockaddr *)&address, sizeof address), 0);
    EXPECT(demi_wait(&result, token, NULL), 0);
    EXPECT(result.qr_opcode, DEMI_OPC_CONNECT);
    for (int message = 0; message < MESSAGES; message++) {
        demi_sgarray_t array = demi_sgaalloc(MESSAGE_BYTES);
        EXPECT(array.sga_numsegs, 1);
        memset(array.sga_segs[0].sgaseg_buf, message + (int)core, MESSAGE_BYTES);
        EXPECT(demi_push(&token, qd, &array), 0);
        EXPECT(demi_wait(&result, token, NULL), 0);
        EXPECT(receive(qd, answers[core], MESSAGE_BYTES), 0);
        EXPECT(memcmp(answers[core], array.sga_segs[0].sgaseg_buf, MESSAGE_BYTES), 0);
        EXPECT(demi_sgafree(&array), 0);
    }
    EXPECT(demi_close(qd), 0);
    EXPECT(demi_ext_fini(), 0);
    return NULL;
}

int main(int argc, char *argv[])
{
    const bool serves = argc > 1 && strcmp(argv[argc - 1], "server") == 0;
    struct sigaction action;
    pthread_t threads[CORES];
    int count = 0;
    memset(&action, 0, sizeof action);
    action.sa_handler = stop;
    sigaction(SIGTERM, &action, NULL);

    args = (struct demi_args){.argc = argc, .argv = argv, .callback = NULL};
    EXPECT(demi_ext_core_count(&args, &count), 0);
    EXPECT(count, CORES);
    for (intptr_t core = 0; core < CORES; core++)
        EXPECT(pthread_create(&threads[core], NULL, serves ? serve : ask, (void *)core), 0);
    for (int core = 0; core < CORES; core++)
        EXPECT(pthread_join(threads[core], NULL), 0);
    if (serves)
        printf("connections: %llu %llu\n", (unsigned long long)served[0], (unsigned long long)served[1]);
    return expect_failures;
}
