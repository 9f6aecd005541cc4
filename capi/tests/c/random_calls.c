/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Random calls with sensible, stale and senseless arguments: random-calls SEED CALLS [THREADS]. Every call gets an answer;
 * none breaks the library (EIO, ENOTRECOVERABLE), and when all is closed and freed, no memory is held. Each thread has a
 * library OS of its own, takes it down now and then and makes another, and throws descriptors, tokens and arrays of the others
 * in. The callback calls as well, and is refused.
 */
#include "expect.h"

#include <arpa/inet.h>
#include <demi/ext.h>
#include <demi/libos.h>
#include <demi/sga.h>
#include <demi/wait.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

enum { QUEUES = 24, TOKENS = 64, ARRAYS = 32, PORTS = 4 };

static const struct timespec NOW = {0, 0};
static __thread uint64_t state;
static __thread int queues[QUEUES];
static __thread demi_qtoken_t tokens[TOKENS];
static __thread demi_sgarray_t owned[ARRAYS];  /* as the library gave them */
static __thread demi_sgarray_t arrays[ARRAYS]; /* as the program has treated them: changed, freed, copies of one another */
static __thread uint64_t answers[256];
static __thread uint64_t accepted;
static __thread uint64_t refused_inside;

/* What threads tell each other of theirs. Marks and tokens are numbers, and mean nothing elsewhere. */
static pthread_mutex_t exchange_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    int queue;
    demi_qtoken_t token;
    demi_sgarray_t array;
} exchange;

static uint32_t random_below(uint32_t limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 33) % limit;
}

/* The pointer, or now and then none. */
static void *maybe(void *pointer)
{
    return random_below(64) == 0 ? NULL : pointer;
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

/* The same of a wide result, whose segments are as good as arrays. */
static void keep_wide(const demi_ext_qresult_t *result)
{
    for (size_t i = 0; i < result->qr_numsegs; i++) {
        const demi_ext_seg_t *segment = &result->qr_segs[i];
        demi_sgarray_t array = {.sga_buf = segment->seg_owner, .sga_numsegs = 1};
        array.sga_segs[0].sgaseg_buf = segment->seg_buf;
        array.sga_segs[0].sgaseg_len = (uint32_t)segment->seg_len;
        own(&array);
    }
    if (result->qr_opcode == DEMI_OPC_ACCEPT) {
        int *place = any_queue();
        demi_close(*place);
        *place = result->qr_accepted;
    }
    EXPECT(result->qr_ret != EIO && result->qr_ret != ENOTRECOVERABLE, 1);
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
    if (random_below(4) == 0) {
        demi_ext_seg_t segment = {NULL, 0, NULL};
        int error = demi_ext_alloc(maybe(&segment), sizes[random_below(7)]);
        demi_sgarray_t given = {.sga_buf = segment.seg_owner, .sga_numsegs = error == 0};
        given.sga_segs[0].sgaseg_buf = segment.seg_buf;
        given.sga_segs[0].sgaseg_len = (uint32_t)segment.seg_len;
        own(&given);
        return error;
    }
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
    if (random_below(3) == 0) {
        socklen_t len = 0;
        struct sockaddr_storage to = any_address(&len);
        return demi_ext_pushto(maybe(any_token()), any_descriptor(), maybe(segments), count, maybe(&to), len);
    }
    return demi_ext_push(maybe(any_token()), any_descriptor(), maybe(segments), count);
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
    static const struct timespec senseless = {-1, 2000000000};
    demi_qresult_t results[8];
    demi_ext_qresult_t wide[8];
    demi_qtoken_t list[6];
    int count = 0;
    int place = -1;
    int error;
    int listed = (int)random_below(6); /* tokens that are gone make the wait fail, so most lists are short */
    for (int i = 0; i < 6; i++)
        list[i] = i > 0 && random_below(8) == 0 ? list[random_below((uint32_t)i)] : *any_token();
    const struct timespec *moment = random_below(40) == 0 ? &senseless : &NOW;
    switch (random_below(9)) {
    case 0:
        error = demi_wait(maybe(results), *any_token(), moment);
        count = error == 0;
        break;
    case 1:
        error = demi_wait_any(results, maybe(&place), maybe(list), listed, moment);
        count = error == 0;
        EXPECT(error != 0 || (place >= 0 && place < listed && list[place] == results[0].qr_qt), 1);
        break;
    case 2:
        error = demi_ext_wait(maybe(wide), *any_token(), moment);
        if (error == 0)
            keep_wide(&wide[0]);
        break;
    case 3:
        error = demi_ext_wait_any(wide, &place, list, listed, moment);
        if (error == 0)
            keep_wide(&wide[0]);
        break;
    case 4:
        error = demi_ext_wait_next_n(wide, (int)random_below(9), &count, moment);
        EXPECT(count >= 0 && count <= 8 && (error == 0 || count == 0), 1);
        for (int i = 0; i < count; i++)
            keep_wide(&wide[i]);
        count = 0;
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
    static const int levels[] = {SOL_SOCKET, IPPROTO_TCP, IPPROTO_IP, IPPROTO_IPV6, -1};
    static const int known[][2] = {{SOL_SOCKET, SO_LINGER},    {SOL_SOCKET, SO_SNDBUF},    {SOL_SOCKET, SO_RCVBUF},
                                   {SOL_SOCKET, SO_ERROR},     {SOL_SOCKET, SO_KEEPALIVE}, {IPPROTO_TCP, TCP_NODELAY},
                                   {IPPROTO_TCP, TCP_MAXSEG},  {IPPROTO_IP, IP_TTL},       {IPPROTO_TCP, TCP_INFO},
                                   {IPPROTO_TCP, TCP_CONGESTION}};
    int named[2] = {levels[random_below(5)], (int)random_below(80) - 5};
    const int *name = random_below(2) == 0 ? known[random_below(10)] : named;
    union {
        int numbers[80];
        unsigned char bytes[320];
    } value;
    socklen_t len = random_below(2) == 0 ? (socklen_t)random_below(9) : (socklen_t)random_below(sizeof value + 1);
    memset(&value, 0, sizeof value);
    value.numbers[0] = random_below(8) == 0 ? (int)state : (int)random_below(3) - 1;
    for (uint32_t i = random_below(4); i > 0; i--)
        value.bytes[random_below(sizeof value)] = (unsigned char)random_below(256);
    if (random_below(2) == 0)
        return demi_setsockopt(any_descriptor(), name[0], name[1], maybe(&value), len);
    return demi_getsockopt(any_descriptor(), name[0], name[1], maybe(&value), maybe(&len));
}

static int look(void)
{
    const char *text = NULL;
    size_t count = 0;
    uint64_t value = 0;
    int in_use = -1;
    int error;
    switch (random_below(5)) {
    case 0:
        return demi_ext_metrics(maybe(&count));
    case 1:
        return demi_ext_metric_at(random_below(1000), maybe(&text), maybe(&value));
    case 2:
        return demi_ext_device_failure(maybe(&text));
    case 3:
        return demi_ext_metric(maybe((void *)(uintptr_t) "libos.late_polls"), maybe(&value));
    default:
        error = demi_ext_in_use((char *)any_array()->sga_segs[0].sgaseg_buf + random_below(3000), maybe(&in_use));
        EXPECT(error != 0 || in_use == 0 || in_use == 1, 1);
        return error;
    }
}

static int names(void)
{
    struct sockaddr_storage name;
    socklen_t len = random_below(sizeof name + 1);
    if (random_below(2) == 0)
        return demi_getsockname(any_descriptor(), (struct sockaddr *)&name, &len);
    return demi_getpeername(any_descriptor(), (struct sockaddr *)&name, &len);
}

/* Called from inside demi_init() and from polls that come late. */
static void on_number(const char *name, uint32_t name_len, uint64_t value)
{
    int qd = -1;
    (void)value;
    EXPECT(strlen(name), name_len);
    EXPECT_ERROR(demi_ext_queue(&qd), EBUSY);
    EXPECT_ERROR(demi_close(0), EBUSY);
    EXPECT_ERROR(demi_ext_fini(), EBUSY);
    refused_inside++;
}

/* Everything that there was means nothing to the next library OS. */
static int start_over(void)
{
    const struct demi_args args = {0, NULL, on_number};
    size_t metrics = 0;
    uint64_t before = 0;
    for (int i = 0; i < QUEUES; i++) {
        struct linger reset = {1, 0};
        demi_setsockopt(queues[i], SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    }
    EXPECT_ERROR(demi_ext_metrics(&metrics), 0);
    EXPECT_ERROR(demi_ext_metric("libos.completed.accept", &before), 0);
    accepted += before;
    EXPECT_ERROR(demi_ext_fini(), 0);
    EXPECT_ERROR(demi_sgafree(any_array()), ENOSYS);
    EXPECT_ERROR(demi_pop(any_token(), any_descriptor()), ENOSYS);
    return demi_init(&args);
}

/* Takes what another thread put there, and puts something of one's own. */
static int swap_with_others(void)
{
    demi_sgarray_t array;
    EXPECT(pthread_mutex_lock(&exchange_lock), 0);
    array = exchange.array;
    int *queue = any_queue();
    demi_qtoken_t *token = any_token();
    int other_queue = exchange.queue;
    demi_qtoken_t other_token = exchange.token;
    exchange.array = *any_array();
    exchange.queue = *queue;
    exchange.token = *token;
    EXPECT(pthread_mutex_unlock(&exchange_lock), 0);
    *token = other_token;
    demi_close(other_queue);
    /* Its memory may be gone: only the mark is used, which the library checks. */
    if (array.sga_buf == NULL)
        return 0;
    if (random_below(2) == 0)
        return demi_sgafree(&array);
    return demi_push(any_token(), any_descriptor(), &array);
}

static int random_call(void)
{
    socklen_t len = 0;
    struct sockaddr_storage address = any_address(&len);
    if (random_below(20000) == 0)
        return start_over();
    switch (random_below(21)) {
    case 0:
        return make_queue();
    case 20:
        return random_below(4) == 0 ? swap_with_others() : look();
    case 1:
        return random_below(2) == 0 ? make_queue() : demi_bind(any_descriptor(), (struct sockaddr *)&address, len);
    case 2:
        return random_below(2) == 0 ? make_listener() : demi_listen(any_descriptor(), (int)random_below(6) - 1);
    case 3:
    case 4:
        return demi_accept(maybe(any_token()), any_descriptor());
    case 5:
    case 6:
        return demi_connect(maybe(any_token()), any_descriptor(), maybe(&address), len);
    case 7:
    case 8:
        return push_array(any_array());
    case 9:
        return push_segments();
    case 10:
        return demi_pop(maybe(any_token()), any_descriptor());
    case 11:
        return demi_ext_pop(any_token(), any_descriptor(), random_below(18), random_below(3) * 1000);
    case 12:
        return make_array();
    case 13:
        return demi_sgafree(maybe(any_array()));
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

struct work {
    uint64_t seed;
    uint64_t calls;
};

static void *run(void *argument)
{
    const struct work *work = argument;
    const struct demi_args args = {0, NULL, on_number};
    size_t metrics = 0;
    uint64_t last = 0;
    state = work->seed * 2 + 0x9e3779b97f4a7c15u;
    for (int i = 0; i < QUEUES; i++)
        queues[i] = -1;
    EXPECT_ERROR(demi_init(&args), 0);
    for (uint64_t i = 0; i < work->calls && expect_failures == 0; i++) {
        int answer = random_call();
        EXPECT(answer >= 0 && answer < 256, 1);
        EXPECT(answer != EIO && answer != ENOTRECOVERABLE, 1);
        answers[answer & 255]++;
    }
    EXPECT(answers[0] > work->calls / 10, 1); /* many calls do something */
    EXPECT_ERROR(demi_ext_metrics(&metrics), 0);
    EXPECT_ERROR(demi_ext_metric("libos.completed.accept", &last), 0);
    EXPECT(accepted + last > 0, 1);
    EXPECT(refused_inside > 0, 1);
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
    return NULL;
}

int main(int argc, char *argv[])
{
    enum { MAX_THREADS = 4 };
    pthread_t threads[MAX_THREADS];
    struct work work[MAX_THREADS];
    uint64_t seed = argc > 2 ? strtoull(argv[1], NULL, 10) : 0;
    uint64_t calls = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    int count = argc > 3 ? atoi(argv[3]) : 1;
    EXPECT(count >= 1 && count <= MAX_THREADS, 1);
    for (int i = 0; i < count && i < MAX_THREADS; i++) {
        work[i] = (struct work){seed * MAX_THREADS + (uint64_t)i, calls};
        EXPECT_ERROR(pthread_create(&threads[i], NULL, run, &work[i]), 0);
    }
    for (int i = 0; i < count && i < MAX_THREADS; i++)
        EXPECT_ERROR(pthread_join(threads[i], NULL), 0);
    return expect_failures != 0;
}
