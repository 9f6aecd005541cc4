/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Random calls with sensible, stale and senseless arguments: random-calls SEED CALLS. Every call gets an answer; none
 * breaks the library (EIO, ENOTRECOVERABLE), and when all is closed and freed, no memory is held.
 */
#include "expect.h"

#include <arpa/inet.h>
#include <demi/ext.h>
#include <demi/libos.h>
#include <demi/sga.h>
#include <demi/wait.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdlib.h>

enum { QUEUES = 24, TOKENS = 64, ARRAYS = 32, PORTS = 4 };

static const struct timespec NOW = {0, 0};
static uint64_t state;
static int queues[QUEUES];
static demi_qtoken_t tokens[TOKENS];
static demi_sgarray_t owned[ARRAYS];  /* as the library gave them */
static demi_sgarray_t arrays[ARRAYS]; /* as the program has treated them: changed, freed, or copies of one another */
static uint64_t answers[256];

static uint32_t random_below(uint32_t limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 33) % limit;
}

static int *any_queue(void)
{
    return &queues[random_below(QUEUES)];
}

static int any_descriptor(void)
{
    return random_below(8) == 0 ? (int)random_below(60) - 10 : *any_queue();
}

static demi_qtoken_t *any_token(void)
{
    return &tokens[random_below(TOKENS)];
}

static demi_sgarray_t *any_array(void)
{
    return &arrays[random_below(ARRAYS)];
}

static struct sockaddr_storage any_address(socklen_t *len)
{
    struct sockaddr_storage storage = {0};
    if (random_below(3) != 0) {
        struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(7000 + random_below(PORTS)))};
        v4.sin_addr.s_addr = htonl(random_below(8) == 0 ? (uint32_t)state : INADDR_LOOPBACK);
        memcpy(&storage, &v4, sizeof v4);
        *len = sizeof v4;
    } else {
        struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)(7000 + random_below(PORTS)))};
        v6.sin6_addr = in6addr_loopback;
        if (random_below(8) == 0)
            v6.sin6_addr.s6_addr[random_below(16)] = (uint8_t)state;
        memcpy(&storage, &v6, sizeof v6);
        *len = sizeof v6;
    }
    if (random_below(16) == 0)
        storage.ss_family = (sa_family_t)random_below(50);
    if (random_below(16) == 0)
        *len = random_below(sizeof storage);
    return storage;
}

/* Puts an array where another one was, which is given back. */
static void own(const demi_sgarray_t *array)
{
    uint32_t place = random_below(ARRAYS);
    demi_sgafree(&owned[place]);
    owned[place] = *array;
    arrays[place] = *array;
}

/* Takes over what a result brought. */
static void keep(demi_qresult_t *result)
{
    if (result->qr_opcode == DEMI_OPC_POP) {
        demi_sgarray_t array = result->qr_value.sga;
        own(&array);
    } else if (result->qr_opcode == DEMI_OPC_ACCEPT) {
        int *place = any_queue();
        demi_close(*place);
        *place = result->qr_value.ares.qd;
    } else if (result->qr_opcode == DEMI_OPC_FAILED) {
        EXPECT(result->qr_ret > 0, 1);
        EXPECT(result->qr_ret != EIO && result->qr_ret != ENOTRECOVERABLE, 1);
    }
}

static int make_queue(void)
{
    static const int domains[] = {AF_INET, AF_INET, AF_INET6, AF_UNIX, -1};
    static const int types[] = {SOCK_STREAM, SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, 99};
    uint32_t known = random_below(10) == 0 ? 5 : 3;
    int *place = any_queue();
    demi_close(*place);
    if (random_below(4) == 0)
        return demi_ext_queue(place);
    return demi_socket(place, domains[random_below(known)], types[random_below(known)], 0);
}

/* A socket that others can connect to, so that there are connections. */
static int make_listener(void)
{
    int *place = any_queue();
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(7000 + random_below(PORTS)))};
    local.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    demi_close(*place);
    int error = demi_socket(place, AF_INET, SOCK_STREAM, 0);
    if (error == 0)
        error = demi_bind(*place, (struct sockaddr *)&local, sizeof local);
    if (error == 0)
        error = demi_listen(*place, 1 + (int)random_below(4));
    return error;
}

static int make_array(void)
{
    static const size_t sizes[] = {0, 1, 64, 1460, 5000, 70000, 1 << 20};
    demi_sgarray_t array = demi_sgaalloc(sizes[random_below(7)]);
    own(&array);
    return array.sga_numsegs == 0 ? ENOBUFS : 0;
}

/* Changes an array as programs do, and as they should not. */
static int change_array(void)
{
    demi_sgarray_t *array = any_array();
    switch (random_below(6)) {
    case 0:
        array->sga_segs[0].sgaseg_len -= random_below(array->sga_segs[0].sgaseg_len + 1);
        return 0;
    case 1:
        array->sga_buf = (void *)((uintptr_t)array->sga_buf + random_below(3));
        return 0;
    case 2:
        if (array->sga_buf != NULL) /* with a mark the library checks the place, without one it reads it */
            array->sga_segs[0].sgaseg_buf = (char *)array->sga_segs[0].sgaseg_buf + random_below(2000);
        return 0;
    case 3:
        array->sga_numsegs = random_below(3);
        return 0;
    case 4:
        *any_array() = *array;
        return 0;
    default:
        return demi_ext_unshare(array);
    }
}

static int push_segments(void)
{
    static char own[100];
    demi_ext_seg_t segments[4];
    size_t count = random_below(5);
    for (size_t i = 0; i < 4; i++) {
        const demi_sgarray_t *array = any_array();
        segments[i] = (demi_ext_seg_t){own, random_below(sizeof own), NULL};
        if (array->sga_buf != NULL)
            segments[i] = (demi_ext_seg_t){array->sga_segs[0].sgaseg_buf, array->sga_segs[0].sgaseg_len, array->sga_buf};
        if (random_below(4) == 0) {
            segments[i].seg_owner = DEMI_EXT_REGION;
            segments[i].seg_buf = (void *)((uintptr_t)array->sga_segs[0].sgaseg_buf + random_below(200) - 100);
        }
    }
    return demi_ext_push(any_token(), any_descriptor(), segments, count);
}

static int push_array(const demi_sgarray_t *array)
{
    socklen_t len = 0;
    struct sockaddr_storage to = any_address(&len);
    if (array->sga_buf == NULL && array->sga_numsegs != 0)
        return 0; /* would be read as the program's own memory, which it is not */
    if (random_below(3) == 0)
        return demi_pushto(any_token(), any_descriptor(), array, (struct sockaddr *)&to, len);
    return demi_push(any_token(), any_descriptor(), array);
}

static int wait_somehow(void)
{
    demi_qresult_t results[8];
    int count = 0;
    int error;
    switch (random_below(4)) {
    case 0:
        error = demi_wait(results, *any_token(), &NOW);
        count = error == 0;
        break;
    case 1:
        error = demi_wait_any(results, &count, any_token(), 1, &NOW);
        count = error == 0;
        break;
    default:
        error = demi_wait_next_n(results, 1 + (int)random_below(8), &count, &NOW);
        break;
    }
    for (int i = 0; i < count; i++)
        keep(&results[i]);
    return error;
}

static int options(void)
{
    static const int names[][2] = {{SOL_SOCKET, SO_LINGER},    {SOL_SOCKET, SO_SNDBUF},    {SOL_SOCKET, SO_RCVBUF},
                                   {SOL_SOCKET, SO_ERROR},     {SOL_SOCKET, SO_KEEPALIVE}, {IPPROTO_TCP, TCP_NODELAY},
                                   {IPPROTO_TCP, TCP_MAXSEG},  {IPPROTO_IP, IP_TTL},       {-1, -1}};
    const int *name = names[random_below(9)];
    int value[2] = {(int)random_below(3) - 1, (int)state};
    socklen_t len = (socklen_t)random_below(9);
    if (random_below(2) == 0)
        return demi_setsockopt(any_descriptor(), name[0], name[1], value, len);
    return demi_getsockopt(any_descriptor(), name[0], name[1], value, &len);
}

static int names(void)
{
    struct sockaddr_storage name;
    socklen_t len = random_below(sizeof name + 1);
    if (random_below(2) == 0)
        return demi_getsockname(any_descriptor(), (struct sockaddr *)&name, &len);
    return demi_getpeername(any_descriptor(), (struct sockaddr *)&name, &len);
}

static int random_call(void)
{
    socklen_t len = 0;
    struct sockaddr_storage address = any_address(&len);
    switch (random_below(20)) {
    case 0:
        return make_queue();
    case 1:
        return random_below(2) == 0 ? make_queue() : demi_bind(any_descriptor(), (struct sockaddr *)&address, len);
    case 2:
        return random_below(2) == 0 ? make_listener() : demi_listen(any_descriptor(), (int)random_below(6) - 1);
    case 3:
    case 4:
        return demi_accept(any_token(), any_descriptor());
    case 5:
    case 6:
        return demi_connect(any_token(), any_descriptor(), (struct sockaddr *)&address, len);
    case 7:
    case 8:
        return push_array(any_array());
    case 9:
        return push_segments();
    case 10:
        return demi_pop(any_token(), any_descriptor());
    case 11:
        return demi_ext_pop(any_token(), any_descriptor(), random_below(18), random_below(3) * 1000);
    case 12:
        return make_array();
    case 13:
        return demi_sgafree(any_array());
    case 14:
        return change_array();
    case 15:
        return random_below(4) == 0 ? demi_close(any_descriptor()) : options();
    case 16:
        return random_below(4) == 0 ? demi_ext_shutdown(any_descriptor(), (int)random_below(4)) : names();
    case 17:
        return random_below(4) == 0 ? demi_ext_cancel(*any_token()) : 0;
    default:
        return wait_somehow();
    }
}

static uint64_t live_buffers(void)
{
    size_t count;
    uint64_t value = UINT64_MAX;
    EXPECT_ERROR(demi_ext_metrics(&count), 0);
    EXPECT_ERROR(demi_ext_metric("arena.live_buffers", &value), 0);
    return value;
}

/* Gives everything back, and drives the connections that end in the background. */
static void clean_up(void)
{
    const struct timespec moment = {0, 20000000};
    demi_qresult_t results[16];
    int count = 0;
    for (int qd = 0; qd < 1000; qd++) {
        struct linger reset = {1, 0};
        demi_setsockopt(qd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        demi_close(qd);
    }
    while (demi_wait_next_n(results, 16, &count, &NOW) == 0) {
        for (int i = 0; i < count; i++) {
            if (results[i].qr_opcode == DEMI_OPC_POP)
                demi_sgafree(&results[i].qr_value.sga);
            else if (results[i].qr_opcode == DEMI_OPC_ACCEPT)
                demi_close(results[i].qr_value.ares.qd);
        }
    }
    for (int i = 0; i < 200 && live_buffers() != 0; i++)
        EXPECT_ERROR(demi_wait_next_n(results, 16, &count, &moment), ETIMEDOUT);
}

int main(int argc, char *argv[])
{
    const struct demi_args args = {0, NULL, NULL};
    uint64_t calls = argc == 3 ? strtoull(argv[2], NULL, 10) : 0;
    state = argc == 3 ? strtoull(argv[1], NULL, 10) * 2 + 0x9e3779b97f4a7c15u : 1;
    for (int i = 0; i < QUEUES; i++)
        queues[i] = -1;
    EXPECT_ERROR(demi_init(&args), 0);
    for (uint64_t i = 0; i < calls && expect_failures == 0; i++) {
        int answer = random_call();
        EXPECT(answer >= 0 && answer < 256, 1);
        EXPECT(answer != EIO && answer != ENOTRECOVERABLE && answer != ENOSYS, 1);
        answers[answer & 255]++;
    }
    EXPECT(answers[0] > calls / 10, 1); /* many calls do something */
    uint64_t accepted = 0;
    size_t metrics = 0;
    EXPECT_ERROR(demi_ext_metrics(&metrics), 0);
    EXPECT_ERROR(demi_ext_metric("libos.completed.accept", &accepted), 0);
    EXPECT(accepted > 0, 1);
    EXPECT(answers[EINVAL] > 0 && answers[EBADF] > 0 && answers[ETIMEDOUT] > 0, 1);
    for (int i = 0; i < ARRAYS; i++)
        demi_sgafree(&owned[i]);
    clean_up();
    EXPECT(live_buffers(), 0);
    if (getenv("RANDOM_CALLS_VERBOSE") != NULL) {
        for (int i = 0; i < 256; i++) {
            if (answers[i] != 0)
                printf("%8llu %s\n", (unsigned long long)answers[i], strerror(i));
        }
        printf("%8llu buffers live\n", (unsigned long long)live_buffers());
        const char *name;
        uint64_t value;
        for (size_t i = 0; demi_ext_metric_at(i, &name, &value) == 0; i++) {
            if (value != 0)
                printf("%8llu %s\n", (unsigned long long)value, name);
        }
    }
    return expect_failures != 0;
}
