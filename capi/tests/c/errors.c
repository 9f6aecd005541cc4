/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Mistakes of a program, and the error number that each one gets. No device is needed. */
#define _POSIX_C_SOURCE 200809L

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

static const struct timespec NOW = {0, 0};
static struct sockaddr_in some_address;
static struct sockaddr *const address = (struct sockaddr *)&some_address;
static const socklen_t address_len = sizeof some_address;

/* Every function of the thread that has no library OS. */
static void before_init(int expected)
{
    demi_qtoken_t token = 1;
    demi_qresult_t result;
    demi_ext_qresult_t wide;
    demi_sgarray_t array = {0};
    demi_ext_seg_t segment = {0};
    int value = 0;
    socklen_t len = sizeof value;
    struct sockaddr_storage name;
    socklen_t name_len = sizeof name;
    size_t count;
    const char *text;
    uint64_t number;

    EXPECT_ERROR(demi_socket(&value, AF_INET, SOCK_STREAM, 0), expected);
    EXPECT_ERROR(demi_bind(0, address, address_len), expected);
    EXPECT_ERROR(demi_listen(0, 1), expected);
    EXPECT_ERROR(demi_accept(&token, 0), expected);
    EXPECT_ERROR(demi_connect(&token, 0, address, address_len), expected);
    EXPECT_ERROR(demi_close(0), expected);
    EXPECT_ERROR(demi_push(&token, 0, &array), expected);
    EXPECT_ERROR(demi_pushto(&token, 0, &array, address, address_len), expected);
    EXPECT_ERROR(demi_pop(&token, 0), expected);
    EXPECT_ERROR(demi_setsockopt(0, IPPROTO_TCP, TCP_NODELAY, &value, sizeof value), expected);
    EXPECT_ERROR(demi_getsockopt(0, IPPROTO_TCP, TCP_NODELAY, &value, &len), expected);
    EXPECT_ERROR(demi_getpeername(0, (struct sockaddr *)&name, &name_len), expected);
    EXPECT_ERROR(demi_getsockname(0, (struct sockaddr *)&name, &name_len), expected);
    EXPECT_ERROR(demi_sgafree(&array), expected);
    EXPECT(demi_sgaalloc(64).sga_numsegs, 0);
    EXPECT_ERROR(demi_wait(&result, token, &NOW), expected);
    EXPECT_ERROR(demi_wait_any(&result, &value, &token, 1, &NOW), expected);
    EXPECT_ERROR(demi_wait_next_n(&result, 1, &value, &NOW), expected);
    EXPECT_ERROR(demi_ext_fini(), expected);
    EXPECT_ERROR(demi_ext_queue(&value), expected);
    EXPECT_ERROR(demi_ext_shutdown(0, SHUT_WR), expected);
    EXPECT_ERROR(demi_ext_cancel(token), expected);
    EXPECT_ERROR(demi_ext_alloc(&segment, 1), expected);
    EXPECT_ERROR(demi_ext_free(&segment), expected);
    EXPECT_ERROR(demi_ext_unshare(&array), expected);
    EXPECT_ERROR(demi_ext_in_use(&array, &value), expected);
    EXPECT_ERROR(demi_ext_push(&token, 0, &segment, 1), expected);
    EXPECT_ERROR(demi_ext_pushto(&token, 0, &segment, 1, address, address_len), expected);
    EXPECT_ERROR(demi_ext_pop(&token, 0, 1, 1), expected);
    EXPECT_ERROR(demi_ext_wait(&wide, token, &NOW), expected);
    EXPECT_ERROR(demi_ext_wait_any(&wide, &value, &token, 1, &NOW), expected);
    EXPECT_ERROR(demi_ext_wait_next_n(&wide, 1, &value, &NOW), expected);
    EXPECT_ERROR(demi_ext_device_failure(&text), expected);
    EXPECT_ERROR(demi_ext_metrics(&count), expected);
    EXPECT_ERROR(demi_ext_metric_at(0, &text, &number), expected);
    EXPECT_ERROR(demi_ext_metric("libos.polls", &number), expected);
}

/* Null pointers, with and without a library OS. */
static void null_pointers(void)
{
    demi_qtoken_t token = 1;
    demi_qresult_t result;
    demi_ext_qresult_t wide;
    demi_sgarray_t array = {0};
    demi_ext_seg_t segment = {0};
    int value = 0;
    socklen_t len = sizeof value;
    struct sockaddr_storage name;
    const char *text;
    uint64_t number;

    EXPECT_ERROR(demi_init(NULL), EINVAL);
    EXPECT_ERROR(demi_socket(NULL, AF_INET, SOCK_STREAM, 0), EINVAL);
    EXPECT_ERROR(demi_bind(0, NULL, address_len), EINVAL);
    EXPECT_ERROR(demi_accept(NULL, 0), EINVAL);
    EXPECT_ERROR(demi_connect(NULL, 0, address, address_len), EINVAL);
    EXPECT_ERROR(demi_connect(&token, 0, NULL, address_len), EINVAL);
    EXPECT_ERROR(demi_push(NULL, 0, &array), EINVAL);
    EXPECT_ERROR(demi_push(&token, 0, NULL), EINVAL);
    EXPECT_ERROR(demi_pushto(NULL, 0, &array, address, address_len), EINVAL);
    EXPECT_ERROR(demi_pushto(&token, 0, NULL, address, address_len), EINVAL);
    EXPECT_ERROR(demi_pushto(&token, 0, &array, NULL, address_len), EINVAL);
    EXPECT_ERROR(demi_pop(NULL, 0), EINVAL);
    EXPECT_ERROR(demi_setsockopt(0, IPPROTO_TCP, TCP_NODELAY, NULL, sizeof value), EINVAL);
    EXPECT_ERROR(demi_getsockopt(0, IPPROTO_TCP, TCP_NODELAY, NULL, &len), EINVAL);
    EXPECT_ERROR(demi_getsockopt(0, IPPROTO_TCP, TCP_NODELAY, &value, NULL), EINVAL);
    EXPECT_ERROR(demi_getpeername(0, NULL, &len), EINVAL);
    EXPECT_ERROR(demi_getpeername(0, (struct sockaddr *)&name, NULL), EINVAL);
    EXPECT_ERROR(demi_getsockname(0, NULL, &len), EINVAL);
    EXPECT_ERROR(demi_getsockname(0, (struct sockaddr *)&name, NULL), EINVAL);
    EXPECT_ERROR(demi_sgafree(NULL), EINVAL);
    EXPECT_ERROR(demi_wait(NULL, token, &NOW), EINVAL);
    EXPECT_ERROR(demi_wait_any(NULL, &value, &token, 1, &NOW), EINVAL);
    EXPECT_ERROR(demi_wait_any(&result, NULL, &token, 1, &NOW), EINVAL);
    EXPECT_ERROR(demi_wait_any(&result, &value, NULL, 1, &NOW), EINVAL);
    EXPECT_ERROR(demi_wait_any(&result, &value, &token, 0, &NOW), EINVAL);
    EXPECT_ERROR(demi_wait_any(&result, &value, &token, -1, &NOW), EINVAL);
    EXPECT_ERROR(demi_wait_next_n(NULL, 1, &value, &NOW), EINVAL);
    EXPECT_ERROR(demi_wait_next_n(&result, 1, NULL, &NOW), EINVAL);
    EXPECT_ERROR(demi_wait_next_n(&result, 0, &value, &NOW), EINVAL);
    EXPECT_ERROR(demi_wait_next_n(&result, -1, &value, &NOW), EINVAL);
    EXPECT_ERROR(demi_ext_queue(NULL), EINVAL);
    EXPECT_ERROR(demi_ext_alloc(NULL, 1), EINVAL);
    EXPECT_ERROR(demi_ext_alloc(&segment, 0), EINVAL);
    EXPECT_ERROR(demi_ext_free(NULL), EINVAL);
    EXPECT_ERROR(demi_ext_unshare(NULL), EINVAL);
    EXPECT_ERROR(demi_ext_in_use(NULL, NULL), EINVAL);
    EXPECT_ERROR(demi_ext_push(NULL, 0, &segment, 1), EINVAL);
    EXPECT_ERROR(demi_ext_pushto(&token, 0, &segment, 1, NULL, address_len), EINVAL);
    EXPECT_ERROR(demi_ext_pop(NULL, 0, 1, 1), EINVAL);
    EXPECT_ERROR(demi_ext_pop(&token, 0, 0, 1), EINVAL);
    EXPECT_ERROR(demi_ext_pop(&token, 0, DEMI_EXT_POP_MAXSEGS + 1, 1), EINVAL);
    EXPECT_ERROR(demi_ext_pop(&token, 0, 1, 0), EINVAL);
    EXPECT_ERROR(demi_ext_wait(NULL, token, &NOW), EINVAL);
    EXPECT_ERROR(demi_ext_wait_any(NULL, &value, &token, 1, &NOW), EINVAL);
    EXPECT_ERROR(demi_ext_wait_next_n(NULL, 1, &value, &NOW), EINVAL);
    EXPECT_ERROR(demi_ext_wait_next_n(&wide, 1, NULL, &NOW), EINVAL);
    EXPECT_ERROR(demi_ext_device_failure(NULL), EINVAL);
    EXPECT_ERROR(demi_ext_metrics(NULL), EINVAL);
    EXPECT_ERROR(demi_ext_metric_at(0, NULL, &number), EINVAL);
    EXPECT_ERROR(demi_ext_metric_at(0, &text, NULL), EINVAL);
    EXPECT_ERROR(demi_ext_metric(NULL, &number), EINVAL);
    EXPECT_ERROR(demi_ext_metric("libos.polls", NULL), EINVAL);
}

static void bad_descriptors(int qd)
{
    demi_qtoken_t token = 77;
    char byte = 'x';
    demi_sgarray_t array = {.sga_numsegs = 1, .sga_segs = {{&byte, 1}}};
    demi_ext_seg_t segment = {&byte, 1, NULL};
    int value = 0;
    socklen_t len = sizeof value;
    struct sockaddr_storage name;
    socklen_t name_len = sizeof name;

    EXPECT_ERROR(demi_bind(qd, address, address_len), EBADF);
    EXPECT_ERROR(demi_listen(qd, 1), EBADF);
    EXPECT_ERROR(demi_accept(&token, qd), EBADF);
    EXPECT_ERROR(demi_connect(&token, qd, address, address_len), EBADF);
    EXPECT_ERROR(demi_close(qd), EBADF);
    EXPECT_ERROR(demi_push(&token, qd, &array), EBADF);
    EXPECT_ERROR(demi_pushto(&token, qd, &array, address, address_len), EBADF);
    EXPECT_ERROR(demi_pop(&token, qd), EBADF);
    EXPECT_ERROR(demi_setsockopt(qd, IPPROTO_TCP, TCP_NODELAY, &value, sizeof value), EBADF);
    EXPECT_ERROR(demi_setsockopt(qd, -1, -1, &value, sizeof value), EBADF);
    EXPECT_ERROR(demi_getsockopt(qd, IPPROTO_TCP, TCP_NODELAY, &value, &len), EBADF);
    EXPECT_ERROR(demi_getpeername(qd, (struct sockaddr *)&name, &name_len), EBADF);
    EXPECT_ERROR(demi_getsockname(qd, (struct sockaddr *)&name, &name_len), EBADF);
    EXPECT_ERROR(demi_ext_shutdown(qd, SHUT_WR), EBADF);
    EXPECT_ERROR(demi_ext_push(&token, qd, &segment, 1), EBADF);
    EXPECT_ERROR(demi_ext_pushto(&token, qd, &segment, 1, address, address_len), EBADF);
    EXPECT_ERROR(demi_ext_pop(&token, qd, 1, 1), EBADF);
    EXPECT(token, 77); /* nothing was stored */
}

static void bad_addresses(void)
{
    demi_qtoken_t token;
    struct sockaddr_in unknown = some_address;
    unknown.sin_family = AF_UNIX;
    EXPECT_ERROR(demi_bind(0, address, 0), EINVAL);
    EXPECT_ERROR(demi_bind(0, address, 1), EINVAL);
    EXPECT_ERROR(demi_bind(0, address, address_len - 1), EINVAL);
    EXPECT_ERROR(demi_connect(&token, 0, address, address_len - 1), EINVAL);
    EXPECT_ERROR(demi_bind(0, (struct sockaddr *)&unknown, sizeof unknown), EINVAL);
    unknown.sin_family = AF_INET6; /* too short for its family */
    EXPECT_ERROR(demi_bind(0, (struct sockaddr *)&unknown, sizeof unknown), EINVAL);
}

static void bad_sockets(void)
{
    int qd = -7;
    EXPECT_ERROR(demi_socket(&qd, -1, SOCK_STREAM, 0), EINVAL);
    EXPECT_ERROR(demi_socket(&qd, AF_INET, -1, 0), EINVAL);
    EXPECT_ERROR(demi_socket(&qd, AF_INET, SOCK_STREAM, IPPROTO_UDP), EINVAL);
    EXPECT_ERROR(demi_socket(&qd, AF_INET, SOCK_DGRAM, IPPROTO_TCP), EINVAL);
    EXPECT_ERROR(demi_socket(&qd, AF_UNIX, SOCK_STREAM, 0), ENOTSUP);
    EXPECT_ERROR(demi_socket(&qd, AF_INET, SOCK_RAW, 0), ENOTSUP);
    EXPECT(qd, -7);
}

static void bad_waits(int qd)
{
    demi_qtoken_t token;
    demi_qtoken_t tokens[2];
    demi_qresult_t result = {0};
    int place = -7;
    int count = -7;
    const struct timespec bad_times[] = {{-1, 0}, {0, -1}, {0, 1000000000}};
    const struct timespec short_time = {0, 1000000};

    EXPECT_ERROR(demi_wait(&result, 0, &NOW), EINVAL);
    EXPECT_ERROR(demi_wait(&result, UINT64_MAX, &NOW), EINVAL);
    EXPECT_ERROR(demi_ext_cancel(12345), EINVAL);

    EXPECT_ERROR(demi_pop(&token, qd), 0);
    for (size_t i = 0; i < sizeof bad_times / sizeof *bad_times; i++) {
        EXPECT_ERROR(demi_wait(&result, token, &bad_times[i]), EINVAL);
        EXPECT_ERROR(demi_wait_any(&result, &place, &token, 1, &bad_times[i]), EINVAL);
        EXPECT_ERROR(demi_wait_next_n(&result, 1, &count, &bad_times[i]), EINVAL);
    }
    EXPECT_ERROR(demi_wait(&result, token, &NOW), ETIMEDOUT);
    EXPECT_ERROR(demi_wait(&result, token, &short_time), ETIMEDOUT);
    EXPECT_ERROR(demi_wait_any(&result, &place, &token, 1, &NOW), ETIMEDOUT);
    EXPECT_ERROR(demi_wait_next_n(&result, 1, &count, &NOW), ETIMEDOUT);
    EXPECT(count, 0);
    EXPECT(place, -7);
    EXPECT(result.qr_opcode, DEMI_OPC_INVALID);
    tokens[0] = token;
    tokens[1] = 12345;
    EXPECT_ERROR(demi_wait_any(&result, &place, tokens, 2, &NOW), EINVAL);

    EXPECT_ERROR(demi_ext_cancel(token), 0);
    EXPECT_ERROR(demi_wait(&result, token, &NOW), 0);
    EXPECT(result.qr_opcode, DEMI_OPC_FAILED);
    EXPECT(result.qr_ret, ECANCELED);
    EXPECT_ERROR(demi_wait(&result, token, &NOW), EINVAL); /* the token is used up */

    /* With nothing outstanding a wait cannot end: the time passes, or there is no end to it. */
    EXPECT_ERROR(demi_wait_next_n(&result, 1, &count, &short_time), ETIMEDOUT);
    EXPECT_ERROR(demi_wait_next_n(&result, 1, &count, NULL), EDEADLK);
}

static void bad_arrays(int qd)
{
    demi_qtoken_t token;
    demi_sgarray_t array = demi_sgaalloc(100);
    demi_sgarray_t changed = array;
    demi_sgarray_t copy = array;
    demi_ext_seg_t segments[2] = {{0}};
    char bytes[8] = "1234567";
    int in_use = 0;

    EXPECT(array.sga_numsegs, 1);
    EXPECT(array.sga_segs[0].sgaseg_len, 100);
    changed.sga_numsegs = 0;
    EXPECT_ERROR(demi_push(&token, qd, &changed), EINVAL);
    changed.sga_numsegs = DEMI_SGARRAY_MAXSIZE + 1;
    EXPECT_ERROR(demi_push(&token, qd, &changed), EINVAL);
    changed = array;
    changed.sga_segs[0].sgaseg_len = 101; /* runs past the memory */
    EXPECT_ERROR(demi_push(&token, qd, &changed), EINVAL);
    changed = array;
    changed.sga_segs[0].sgaseg_buf = bytes; /* lies elsewhere */
    changed.sga_segs[0].sgaseg_len = sizeof bytes;
    EXPECT_ERROR(demi_push(&token, qd, &changed), EINVAL);
    changed = array;
    changed.sga_buf = bytes; /* an address is no mark */
    EXPECT_ERROR(demi_push(&token, qd, &changed), EINVAL);
    EXPECT_ERROR(demi_sgafree(&changed), EINVAL);
    EXPECT(changed.sga_buf == bytes, 1); /* and the array is as before */
    changed = array;
    changed.sga_buf = NULL;
    changed.sga_segs[0].sgaseg_buf = NULL;
    EXPECT_ERROR(demi_push(&token, qd, &changed), EINVAL);
    EXPECT_ERROR(demi_sgafree(&changed), EINVAL);
    EXPECT_ERROR(demi_ext_push(&token, qd, segments, 0), EINVAL);
    EXPECT_ERROR(demi_ext_push(&token, qd, segments, DEMI_EXT_PUSH_MAXSEGS + 1), EINVAL);
    EXPECT_ERROR(demi_ext_push(&token, qd, NULL, 1), EINVAL);
    segments[1].seg_len = 1;
    EXPECT_ERROR(demi_ext_push(&token, qd, segments, 2), EINVAL);
    segments[1].seg_buf = bytes;
    segments[1].seg_len = SIZE_MAX;
    EXPECT_ERROR(demi_ext_push(&token, qd, segments, 2), EINVAL);

    EXPECT_ERROR(demi_sgafree(&array), 0);
    EXPECT(array.sga_buf == NULL, 1);
    EXPECT_ERROR(demi_sgafree(&array), EINVAL);
    EXPECT_ERROR(demi_sgafree(&copy), EINVAL); /* a copy of the structure does not free it again */
    EXPECT_ERROR(demi_push(&token, qd, &copy), EINVAL);
    EXPECT_ERROR(demi_ext_unshare(&copy), EINVAL);
    segments[0] = (demi_ext_seg_t){copy.sga_segs[0].sgaseg_buf, 1, DEMI_EXT_REGION}; /* freed */
    EXPECT_ERROR(demi_ext_push(&token, qd, segments, 1), EINVAL);
    segments[0] = (demi_ext_seg_t){bytes, 1, DEMI_EXT_REGION}; /* the program's own */
    EXPECT_ERROR(demi_ext_push(&token, qd, segments, 1), EINVAL);
    EXPECT_ERROR(demi_ext_free(segments), EINVAL);
    EXPECT_ERROR(demi_ext_in_use(copy.sga_segs[0].sgaseg_buf, &in_use), EINVAL);
    EXPECT_ERROR(demi_ext_in_use(NULL, &in_use), EINVAL);

    EXPECT(demi_sgaalloc(0).sga_numsegs, 0);
    EXPECT(demi_sgaalloc((size_t)UINT32_MAX + 1).sga_numsegs, 0);
    EXPECT(demi_sgaalloc(SIZE_MAX).sga_numsegs, 0);
    EXPECT(demi_sgaalloc(UINT32_MAX).sga_numsegs, 0); /* more than the memory region */
    EXPECT_ERROR(demi_ext_alloc(segments, SIZE_MAX), ENOBUFS);
}

static void calls_that_a_queue_does_not_have(int qd)
{
    demi_qtoken_t token;
    demi_qresult_t result;
    int value = 1;
    socklen_t len = sizeof value;
    EXPECT_ERROR(demi_bind(qd, address, address_len), ENOTSUP);
    EXPECT_ERROR(demi_listen(qd, 1), ENOTSUP);
    EXPECT_ERROR(demi_listen(qd, 0), EINVAL);
    EXPECT_ERROR(demi_listen(qd, -1), EINVAL);
    EXPECT_ERROR(demi_ext_shutdown(qd, 99), EINVAL);
    EXPECT_ERROR(demi_setsockopt(qd, IPPROTO_TCP, TCP_NODELAY, &value, sizeof value), ENOPROTOOPT);
    EXPECT_ERROR(demi_setsockopt(qd, SOL_SOCKET, -1, &value, sizeof value), ENOPROTOOPT);
    EXPECT_ERROR(demi_setsockopt(qd, -1, SO_LINGER, &value, sizeof value), ENOPROTOOPT);
    EXPECT_ERROR(demi_setsockopt(qd, IPPROTO_TCP, TCP_NODELAY, &value, 1), EINVAL);
    EXPECT_ERROR(demi_getsockopt(qd, SOL_SOCKET, SO_LINGER, &value, &len), EINVAL);
    EXPECT_ERROR(demi_accept(&token, qd), 0);
    EXPECT_ERROR(demi_wait(&result, token, &NOW), 0);
    EXPECT(result.qr_opcode, DEMI_OPC_FAILED);
    EXPECT(result.qr_ret, ENOTSUP);
}

static void bad_metrics(void)
{
    const char *name;
    uint64_t value;
    size_t count = 0;
    EXPECT_ERROR(demi_ext_metric_at(0, &name, &value), EINVAL); /* no snapshot yet */
    EXPECT_ERROR(demi_ext_metric("libos.polls", &value), EINVAL);
    EXPECT_ERROR(demi_ext_metrics(&count), 0);
    EXPECT(count > 0, 1);
    EXPECT_ERROR(demi_ext_metric_at(count, &name, &value), EINVAL);
    EXPECT_ERROR(demi_ext_metric_at(count - 1, &name, &value), 0);
    EXPECT_ERROR(demi_ext_metric(name, &value), 0);
    EXPECT_ERROR(demi_ext_metric("libos.polls", &value), 0);
    EXPECT_ERROR(demi_ext_metric("no.such.metric", &value), ENOENT);
}

static void bad_init(void)
{
    char *const missing_file[] = {"program", "--config", "/nonexistent/catnip.toml", NULL};
    char *const no_toml[] = {"program", "--config=/proc/self/cmdline", NULL};
    char *const missing_name[] = {"program", "--config", NULL};
    const struct demi_args no_argv = {1, NULL, NULL};
    const struct demi_args negative = {-1, missing_file, NULL};
    const struct demi_args no_file = {3, missing_file, NULL};
    const struct demi_args bad_file = {2, no_toml, NULL};
    const struct demi_args no_name = {2, missing_name, NULL};
    EXPECT_ERROR(demi_init(&no_argv), EINVAL);
    EXPECT_ERROR(demi_init(&negative), EINVAL);
    EXPECT(demi_ext_init_error()[0], '\0');
    EXPECT_ERROR(demi_init(&no_file), ENOENT);
    EXPECT(strstr(demi_ext_init_error(), "/nonexistent/catnip.toml") != NULL, 1);
    EXPECT_ERROR(demi_init(&bad_file), EINVAL);
    EXPECT(strstr(demi_ext_init_error(), "line 1") != NULL, 1);
    EXPECT_ERROR(demi_init(&no_name), EINVAL);
    setenv("CATNIP_MEMORY__REGION_MIB", "lots", 1);
    EXPECT_ERROR(demi_init(&(struct demi_args){0, NULL, NULL}), EINVAL);
    EXPECT(strstr(demi_ext_init_error(), "region_mib") != NULL, 1);
    EXPECT(strstr(demi_ext_init_error(), "lots") != NULL, 1);
    unsetenv("CATNIP_MEMORY__REGION_MIB");
}

int main(void)
{
    const struct demi_args args = {0, NULL, NULL};
    int qd = -1;
    some_address.sin_family = AF_INET;
    some_address.sin_port = htons(12345);
    some_address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);

    before_init(ENOSYS);
    null_pointers();
    bad_init();
    before_init(ENOSYS); /* a failed init leaves nothing behind */

    EXPECT_ERROR(demi_init(&args), 0);
    EXPECT(demi_ext_init_error()[0], '\0');
    EXPECT_ERROR(demi_init(&args), EEXIST);
    null_pointers();
    bad_addresses();
    bad_sockets();
    bad_descriptors(-1);
    bad_descriptors(0);
    bad_descriptors(INT32_MAX);
    EXPECT_ERROR(demi_ext_queue(&qd), 0);
    bad_waits(qd);
    bad_arrays(qd);
    calls_that_a_queue_does_not_have(qd);
    bad_metrics();
    EXPECT_ERROR(demi_close(qd), 0);
    EXPECT_ERROR(demi_close(qd), EBADF);
    bad_descriptors(qd);

    EXPECT_ERROR(demi_ext_fini(), 0);
    before_init(ENOSYS);
    EXPECT_ERROR(demi_init(&args), 0); /* and again */
    return expect_failures != 0;
}
