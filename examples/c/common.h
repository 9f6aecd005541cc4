/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the examples share: command line, stopping, and waiting for one operation.
 *
 * Every example takes
 *   --config FILE    settings of the library OS (else CATNIP_CONFIG in the environment, else defaults)
 *   --address ADDR   IPv4 or IPv6 address: where a server listens, where a client connects to
 *   --port PORT      default 12345
 *   --seconds N      stop after N seconds (default: run until SIGINT or SIGTERM)
 *   --count N        stop after N connections, datagrams or round trips, as the example says
 */
#ifndef EXAMPLE_COMMON_H
#define EXAMPLE_COMMON_H

#include <arpa/inet.h>
#include <demi/ext.h>
#include <demi/libos.h>
#include <demi/sga.h>
#include <demi/wait.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct options {
    struct sockaddr_storage address;
    socklen_t address_len;
    uint64_t seconds; /* 0: no limit */
    uint64_t count;   /* 0: no limit */
    size_t size;      /* bytes of a message */
    bool server;
};

static volatile sig_atomic_t stop_requested;
static uint64_t stop_at_ns;

static inline void on_stop_signal(int signal_number)
{
    (void)signal_number;
    stop_requested = 1;
}

static inline uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* True once a signal arrived or the time is up. */
static inline bool stopping(void)
{
    return stop_requested || (stop_at_ns != 0 && now_ns() >= stop_at_ns);
}

/* Ends the program when a call that cannot be done without has failed. */
static inline void check(int error, const char *what)
{
    if (error != 0) {
        fprintf(stderr, "%s: %s\n", what, strerror(error));
        exit(EXIT_FAILURE);
    }
}

static inline void usage(const char *program, const char *modes)
{
    fprintf(stderr, "usage: %s %s[--config FILE] [--address ADDR] [--port PORT] [--seconds N] [--count N]\n",
            program, modes);
    exit(EXIT_FAILURE);
}

static inline uint64_t parse_number(const char *text, uint64_t limit, const char *what)
{
    char *end = NULL;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || *text == '-' || number > limit) {
        fprintf(stderr, "%s: \"%s\" is not a number from 0 to %llu\n", what, text, (unsigned long long)limit);
        exit(EXIT_FAILURE);
    }
    return number;
}

static inline void set_address(struct options *options, const char *text, uint16_t port)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    if (inet_pton(AF_INET, text, &v4.sin_addr) == 1) {
        memcpy(&options->address, &v4, sizeof v4);
        options->address_len = sizeof v4;
    } else if (inet_pton(AF_INET6, text, &v6.sin6_addr) == 1) {
        memcpy(&options->address, &v6, sizeof v6);
        options->address_len = sizeof v6;
    } else {
        fprintf(stderr, "--address: \"%s\" is neither an IPv4 nor an IPv6 address\n", text);
        exit(EXIT_FAILURE);
    }
}

/* Reads the command line, arranges for stopping, and sets up the library OS. */
static inline struct options start(int argc, char *const argv[], const char *modes)
{
    struct options options = {.size = 64};
    const char *address = "0.0.0.0";
    uint16_t port = 12345;

    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        if (strcmp(name, "--server") == 0 && *modes != '\0') {
            options.server = true;
            continue;
        }
        if (strcmp(name, "--client") == 0 && *modes != '\0')
            continue;
        if (i + 1 == argc)
            usage(argv[0], modes);
        const char *value = argv[++i];
        if (strcmp(name, "--address") == 0)
            address = value;
        else if (strcmp(name, "--port") == 0)
            port = (uint16_t)parse_number(value, UINT16_MAX, name);
        else if (strcmp(name, "--seconds") == 0)
            options.seconds = parse_number(value, 1000000000, name);
        else if (strcmp(name, "--count") == 0)
            options.count = parse_number(value, UINT64_MAX / 1000, name);
        else if (strcmp(name, "--size") == 0 && *modes != '\0')
            options.size = (size_t)parse_number(value, 1 << 30, name);
        else if (strcmp(name, "--config") != 0) /* --config is for demi_init() */
            usage(argv[0], modes);
    }
    set_address(&options, address, port);

    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_stop_signal;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);

    const struct demi_args args = {.argc = argc, .argv = argv, .callback = NULL};
    int error = demi_init(&args);
    if (error != 0) /* the library has printed why */
        exit(EXIT_FAILURE);
    if (options.seconds != 0)
        stop_at_ns = now_ns() + options.seconds * 1000000000u;
    return options;
}

/* Waits for one operation until it completes, the program is to stop (ECANCELED) or timeout_ms have passed
 * (ETIMEDOUT). A failed operation's own error is returned too. */
static inline int finish(demi_qtoken_t token, demi_qresult_t *result, uint64_t timeout_ms)
{
    const struct timespec slice = {.tv_sec = 0, .tv_nsec = 10 * 1000 * 1000};
    uint64_t give_up_ns = now_ns() + timeout_ms * 1000000u;
    for (;;) {
        int error = demi_wait(result, token, &slice);
        if (error == 0)
            return result->qr_opcode == DEMI_OPC_FAILED ? (int)result->qr_ret : 0;
        if (error != ETIMEDOUT)
            return error;
        if (stopping())
            return ECANCELED;
        if (now_ns() >= give_up_ns)
            return ETIMEDOUT;
    }
}

/* Takes what has completed meanwhile, so that its memory is given back, and drives the library until closed
 * connections had time to send what they still hold. Then takes the library OS down. */
static inline void shut_down(void)
{
    const struct timespec quiet = {.tv_sec = 0, .tv_nsec = 100 * 1000 * 1000};
    demi_qresult_t results[16];
    int count = 0;
    while (demi_wait_next_n(results, 16, &count, &quiet) == 0) {
        for (int i = 0; i < count; i++) {
            if (results[i].qr_opcode == DEMI_OPC_POP)
                demi_sgafree(&results[i].qr_value.sga);
        }
    }
    demi_ext_fini();
}

#endif /* EXAMPLE_COMMON_H */
