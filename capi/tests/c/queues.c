/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* In-memory queues: the way of the bytes, of the memory and of the tokens. */
#include "expect.h"

#include <demi/ext.h>
#include <demi/libos.h>
#include <demi/sga.h>
#include <demi/wait.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

static const struct timespec NOW = {0, 0};

static uint64_t live_buffers(void)
{
    size_t count;
    uint64_t value = UINT64_MAX;
    EXPECT_ERROR(demi_ext_metrics(&count), 0);
    EXPECT_ERROR(demi_ext_metric("arena.live_buffers", &value), 0);
    return value;
}

static demi_qresult_t push(int qd, const demi_sgarray_t *array)
{
    demi_qtoken_t token = 0;
    demi_qresult_t result = {0};
    EXPECT_ERROR(demi_push(&token, qd, array), 0);
    EXPECT_ERROR(demi_wait(&result, token, &NOW), 0);
    EXPECT(result.qr_opcode, DEMI_OPC_PUSH);
    EXPECT(result.qr_qd, qd);
    EXPECT(result.qr_qt, token);
    EXPECT(result.qr_ret, 0);
    return result;
}

static demi_qresult_t pop(int qd)
{
    demi_qtoken_t token = 0;
    demi_qresult_t result = {0};
    EXPECT_ERROR(demi_pop(&token, qd), 0);
    EXPECT_ERROR(demi_wait(&result, token, &NOW), 0);
    EXPECT(result.qr_opcode, DEMI_OPC_POP);
    EXPECT(result.qr_qd, qd);
    EXPECT(result.qr_qt, token);
    EXPECT(result.qr_value.sga.sga_numsegs, 1);
    return result;
}

static demi_sgarray_t filled(size_t size, int byte)
{
    demi_sgarray_t array = demi_sgaalloc(size);
    EXPECT(array.sga_numsegs, 1);
    EXPECT(array.sga_segs[0].sgaseg_len, size);
    memset(array.sga_segs[0].sgaseg_buf, byte, size);
    return array;
}

static bool all(const void *bytes, size_t size, int byte)
{
    for (size_t i = 0; i < size; i++) {
        if (((const uint8_t *)bytes)[i] != (uint8_t)byte)
            return false;
    }
    return true;
}

/* Memory of the library is handed over as it is, and lives until both sides have let go of it. */
static void own_memory_is_not_copied(int qd)
{
    const size_t sizes[] = {1, 64, 1460, 4096, 65536, 1 << 20, 10 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        demi_sgarray_t array = filled(sizes[i], 'a' + (int)i);
        void *memory = array.sga_segs[0].sgaseg_buf;
        push(qd, &array);
        EXPECT_ERROR(demi_sgafree(&array), 0); /* at once */
        demi_qresult_t result = pop(qd);
        demi_sgarray_t *popped = &result.qr_value.sga;
        EXPECT(popped->sga_segs[0].sgaseg_buf == memory, 1);
        EXPECT(popped->sga_segs[0].sgaseg_len, sizes[i]);
        EXPECT(all(popped->sga_segs[0].sgaseg_buf, sizes[i], 'a' + (int)i), 1);
        EXPECT_ERROR(demi_sgafree(popped), 0);
        EXPECT(live_buffers(), 0);
    }
}

/* A part of an array: the start moved forward, the length made smaller. */
static void a_part_of_an_array_can_be_pushed(int qd)
{
    demi_sgarray_t array = filled(100, 'x');
    demi_sgarray_t part = array;
    part.sga_segs[0].sgaseg_buf = (char *)array.sga_segs[0].sgaseg_buf + 10;
    part.sga_segs[0].sgaseg_len = 20;
    push(qd, &part);
    demi_qresult_t result = pop(qd);
    EXPECT(result.qr_value.sga.sga_segs[0].sgaseg_len, 20);
    EXPECT(result.qr_value.sga.sga_segs[0].sgaseg_buf == part.sga_segs[0].sgaseg_buf, 1);
    EXPECT_ERROR(demi_sgafree(&result.qr_value.sga), 0);
    EXPECT_ERROR(demi_sgafree(&part), 0);
    EXPECT_ERROR(demi_sgafree(&array), EINVAL);
    EXPECT(live_buffers(), 0);
}

/* Any address in memory that the program holds, without its mark; the memory may be written to when it says so. */
static void any_address_in_the_region_is_sent_from_where_it_is(int qd)
{
    demi_ext_seg_t table = {0};
    demi_qtoken_t token;
    demi_ext_qresult_t wide;
    int in_use = -1;
    EXPECT_ERROR(demi_ext_alloc(&table, 1 << 20), 0);
    char *bytes = table.seg_buf;
    memset(bytes, 't', table.seg_len);
    EXPECT_ERROR(demi_ext_in_use(bytes + 500, &in_use), 0);
    EXPECT(in_use, 0);

    const demi_ext_seg_t parts[2] = {{bytes + (1 << 19), 3000, DEMI_EXT_REGION}, {bytes + 7, 1, DEMI_EXT_REGION}};
    EXPECT_ERROR(demi_ext_push(&token, qd, parts, 2), 0);
    EXPECT_ERROR(demi_ext_wait(&wide, token, &NOW), 0);
    EXPECT_ERROR(demi_ext_in_use(bytes, &in_use), 0);
    EXPECT(in_use, 1); /* in the queue */
    EXPECT_ERROR(demi_ext_pop(&token, qd, 2, SIZE_MAX), 0);
    EXPECT_ERROR(demi_ext_wait(&wide, token, &NOW), 0);
    EXPECT(wide.qr_numsegs, 2);
    for (size_t i = 0; i < 2; i++) {
        EXPECT(wide.qr_segs[i].seg_buf == parts[i].seg_buf, 1);
        EXPECT(wide.qr_segs[i].seg_len, parts[i].seg_len);
    }
    EXPECT_ERROR(demi_ext_in_use(bytes, &in_use), 0);
    EXPECT(in_use, 0); /* all views are the program's own */

    const demi_ext_seg_t beyond = {bytes + (1 << 20), 1 << 16, DEMI_EXT_REGION};
    EXPECT_ERROR(demi_ext_push(&token, qd, &beyond, 1), EINVAL);
    demi_sgarray_t array = {.sga_buf = DEMI_EXT_REGION, .sga_numsegs = 1, .sga_segs = {{bytes + 9, 100}}};
    push(qd, &array); /* an array as well */
    EXPECT_ERROR(demi_sgafree(&array), EINVAL);
    EXPECT_ERROR(demi_ext_free(&table), 0);
    EXPECT_ERROR(demi_ext_push(&token, qd, parts, 1), 0); /* the popped segments keep it */
    EXPECT_ERROR(demi_wait(&(demi_qresult_t){0}, token, &NOW), 0);
    for (size_t i = 0; i < 2; i++)
        EXPECT_ERROR(demi_ext_free(&wide.qr_segs[i]), 0);
    EXPECT_ERROR(demi_ext_push(&token, qd, parts, 1), EINVAL);
    for (int i = 0; i < 2; i++) {
        demi_qresult_t result = pop(qd);
        EXPECT(all(result.qr_value.sga.sga_segs[0].sgaseg_buf, result.qr_value.sga.sga_segs[0].sgaseg_len, 't'), 1);
        EXPECT_ERROR(demi_sgafree(&result.qr_value.sga), 0);
    }
    EXPECT(live_buffers(), 0);
}

/* The program's own memory is copied before demi_push() returns. */
static void foreign_memory_is_copied(int qd)
{
    char bytes[1000];
    memset(bytes, 'o', sizeof bytes);
    demi_sgarray_t array = {.sga_numsegs = 1, .sga_segs = {{bytes, sizeof bytes}}};
    demi_qtoken_t token;
    demi_qresult_t ignored;
    EXPECT_ERROR(demi_push(&token, qd, &array), 0);
    memset(bytes, 'n', sizeof bytes);
    EXPECT_ERROR(demi_wait(&ignored, token, NULL), 0);
    demi_qresult_t result = pop(qd);
    EXPECT(all(result.qr_value.sga.sga_segs[0].sgaseg_buf, sizeof bytes, 'o'), 1);
    EXPECT_ERROR(demi_sgafree(&result.qr_value.sga), 0);
}

static void an_empty_array_arrives_as_one(int qd)
{
    demi_sgarray_t array = {.sga_numsegs = 1};
    push(qd, &array);
    demi_qresult_t result = pop(qd);
    EXPECT(result.qr_value.sga.sga_segs[0].sgaseg_len, 0);
    push(qd, &result.qr_value.sga); /* and can be passed on */
    EXPECT_ERROR(demi_sgafree(&result.qr_value.sga), 0);
    result = pop(qd);
    EXPECT_ERROR(demi_sgafree(&result.qr_value.sga), 0);
}

/* After a push the bytes may still be needed: unshare gives the program bytes of its own. */
static void an_unshared_array_can_be_written_to(int qd)
{
    demi_sgarray_t array = filled(300, 'o');
    void *memory = array.sga_segs[0].sgaseg_buf;
    EXPECT_ERROR(demi_ext_unshare(&array), 0);
    EXPECT(array.sga_segs[0].sgaseg_buf == memory, 1); /* nobody else held it */
    push(qd, &array);
    EXPECT_ERROR(demi_ext_unshare(&array), 0);
    EXPECT(array.sga_segs[0].sgaseg_buf != memory, 1);
    EXPECT(all(array.sga_segs[0].sgaseg_buf, 300, 'o'), 1);
    memset(array.sga_segs[0].sgaseg_buf, 'n', 300);
    demi_qresult_t result = pop(qd);
    EXPECT(all(result.qr_value.sga.sga_segs[0].sgaseg_buf, 300, 'o'), 1);
    EXPECT_ERROR(demi_sgafree(&result.qr_value.sga), 0);
    EXPECT_ERROR(demi_sgafree(&array), 0);
    EXPECT(live_buffers(), 0);
}

/* Several segments, from the library's memory and the program's, and both kinds of results for them. */
static void several_segments(int qd)
{
    char own[5] = {'o', 'w', 'n', '-', '-'};
    demi_ext_seg_t segments[3] = {{0}};
    demi_qtoken_t token;
    demi_ext_qresult_t wide;
    demi_qresult_t plain;

    EXPECT_ERROR(demi_ext_alloc(&segments[0], 7), 0);
    memcpy(segments[0].seg_buf, "library", 7);
    segments[1].seg_buf = own;
    segments[1].seg_len = sizeof own;
    segments[2] = segments[0];
    segments[2].seg_len = 3;

    for (int round = 0; round < 2; round++) {
        EXPECT_ERROR(demi_ext_push(&token, qd, segments, 3), 0);
        EXPECT_ERROR(demi_ext_wait(&wide, token, &NOW), 0);
        EXPECT(wide.qr_opcode, DEMI_OPC_PUSH);
        EXPECT(wide.qr_accepted, -1);
        EXPECT(wide.qr_numsegs, 0);
    }
    EXPECT_ERROR(demi_ext_pop(&token, qd, DEMI_EXT_POP_MAXSEGS, SIZE_MAX), 0);
    EXPECT_ERROR(demi_ext_wait(&wide, token, &NOW), 0);
    EXPECT(wide.qr_opcode, DEMI_OPC_POP);
    EXPECT(wide.qr_numsegs, 3);
    EXPECT(wide.qr_addrlen, 0);
    EXPECT(wide.qr_segs[0].seg_buf == segments[0].seg_buf, 1);
    EXPECT(wide.qr_segs[1].seg_len, sizeof own);
    EXPECT(memcmp(wide.qr_segs[1].seg_buf, own, sizeof own), 0);
    EXPECT(wide.qr_segs[2].seg_len, 3);
    for (size_t i = 0; i < wide.qr_numsegs; i++) {
        demi_ext_seg_t copy = wide.qr_segs[i];
        EXPECT_ERROR(demi_ext_free(&wide.qr_segs[i]), 0);
        EXPECT(wide.qr_segs[i].seg_owner == NULL, 1);
        EXPECT_ERROR(demi_ext_free(&copy), EINVAL);
    }

    plain = pop(qd); /* the same three segments, joined */
    EXPECT(plain.qr_value.sga.sga_segs[0].sgaseg_len, 15);
    EXPECT(memcmp(plain.qr_value.sga.sga_segs[0].sgaseg_buf, "libraryown--lib", 15), 0);
    EXPECT_ERROR(demi_sgafree(&plain.qr_value.sga), 0);
    EXPECT_ERROR(demi_ext_free(&segments[0]), 0);
    EXPECT(live_buffers(), 0);
}

/* More segments than a wide result has: joined as well. */
static void many_segments(int qd)
{
    enum { COUNT = 100 };
    static char bytes[COUNT];
    demi_ext_seg_t segments[COUNT];
    demi_qtoken_t token;
    demi_ext_qresult_t wide;
    for (int i = 0; i < COUNT; i++) {
        bytes[i] = (char)i;
        segments[i] = (demi_ext_seg_t){&bytes[i], 1, NULL};
    }
    EXPECT_ERROR(demi_ext_push(&token, qd, segments, COUNT), 0);
    EXPECT_ERROR(demi_ext_wait(&wide, token, &NOW), 0);
    EXPECT_ERROR(demi_ext_pop(&token, qd, 1, SIZE_MAX), 0);
    EXPECT_ERROR(demi_ext_wait(&wide, token, &NOW), 0);
    EXPECT(wide.qr_numsegs, 1);
    EXPECT(wide.qr_segs[0].seg_len, COUNT);
    EXPECT(memcmp(wide.qr_segs[0].seg_buf, bytes, COUNT), 0);
    EXPECT_ERROR(demi_ext_free(&wide.qr_segs[0]), 0);
    EXPECT(live_buffers(), 0);
}

/* The three waits: by token, by list, and whatever comes next in the order of completion. */
static void the_waits(int qd)
{
    demi_qtoken_t pops[3];
    demi_qtoken_t pushes[3];
    demi_qresult_t results[8] = {{0}};
    int place = -1;
    int count = -1;
    for (int i = 0; i < 3; i++)
        EXPECT_ERROR(demi_pop(&pops[i], qd), 0);
    EXPECT_ERROR(demi_wait_any(results, &place, pops, 3, &NOW), ETIMEDOUT);
    for (int i = 0; i < 3; i++) {
        char byte = (char)('0' + i);
        demi_sgarray_t array = {.sga_numsegs = 1, .sga_segs = {{&byte, 1}}};
        EXPECT_ERROR(demi_push(&pushes[i], qd, &array), 0);
    }
    const demi_qtoken_t backwards[] = {pops[2], pops[1], pops[0]};
    EXPECT_ERROR(demi_wait_any(results, &place, backwards, 3, &NOW), 0);
    EXPECT(place, 2); /* the first that completed */
    EXPECT(results[0].qr_qt, pops[0]);
    EXPECT(*(char *)results[0].qr_value.sga.sga_segs[0].sgaseg_buf, '0');
    EXPECT_ERROR(demi_sgafree(&results[0].qr_value.sga), 0);

    EXPECT_ERROR(demi_wait(results, pushes[1], &NOW), 0);
    int pops_seen = 0;
    int pushes_seen = 0;
    while (pops_seen + pushes_seen < 4) {
        EXPECT_ERROR(demi_wait_next_n(results, 2, &count, &NOW), 0);
        if (count < 1 || count > 2)
            break;
        for (int i = 0; i < count; i++) {
            if (results[i].qr_opcode == DEMI_OPC_POP) {
                EXPECT(results[i].qr_qt, pops[1 + pops_seen]);
                EXPECT_ERROR(demi_sgafree(&results[i].qr_value.sga), 0);
                pops_seen++;
            } else {
                EXPECT(results[i].qr_opcode, DEMI_OPC_PUSH);
                pushes_seen++;
            }
        }
    }
    EXPECT(pops_seen, 2);
    EXPECT(pushes_seen, 2);
    EXPECT_ERROR(demi_wait_next_n(results, 8, &count, &NOW), ETIMEDOUT);
    EXPECT(live_buffers(), 0);
}

/* What is outstanding when a queue is closed completes as cancelled; what had completed is still there. */
static void closing(void)
{
    demi_qtoken_t pop_token;
    demi_qtoken_t late_token;
    demi_qtoken_t push_token;
    demi_qresult_t result;
    int qd = -1;
    EXPECT_ERROR(demi_ext_queue(&qd), 0);
    demi_sgarray_t array = filled(10, 'c');
    EXPECT_ERROR(demi_pop(&pop_token, qd), 0);
    EXPECT_ERROR(demi_pop(&late_token, qd), 0);
    EXPECT_ERROR(demi_push(&push_token, qd, &array), 0);
    EXPECT_ERROR(demi_sgafree(&array), 0);
    EXPECT_ERROR(demi_close(qd), 0);
    EXPECT_ERROR(demi_wait(&result, late_token, &NOW), 0);
    EXPECT(result.qr_opcode, DEMI_OPC_FAILED);
    EXPECT(result.qr_ret, ECANCELED);
    EXPECT(result.qr_qd, qd);
    EXPECT_ERROR(demi_wait(&result, push_token, &NOW), 0);
    EXPECT(result.qr_opcode, DEMI_OPC_PUSH);
    EXPECT_ERROR(demi_wait(&result, pop_token, &NOW), 0);
    EXPECT(result.qr_opcode, DEMI_OPC_POP);
    EXPECT_ERROR(demi_sgafree(&result.qr_value.sga), 0);
    EXPECT(live_buffers(), 0);
}

/* Descriptors are the lowest free numbers. */
static void descriptors(void)
{
    int first = -1;
    int second = -1;
    int third = -1;
    EXPECT_ERROR(demi_ext_queue(&first), 0);
    EXPECT_ERROR(demi_ext_queue(&second), 0);
    EXPECT(first != second, 1);
    EXPECT_ERROR(demi_close(first), 0);
    EXPECT_ERROR(demi_ext_queue(&third), 0);
    EXPECT(third, first);
    EXPECT_ERROR(demi_close(second), 0);
    EXPECT_ERROR(demi_close(third), 0);
}

int main(void)
{
    const struct demi_args args = {0, NULL, NULL};
    int qd = -1;
    EXPECT_ERROR(demi_init(&args), 0);
    EXPECT_ERROR(demi_ext_queue(&qd), 0);
    own_memory_is_not_copied(qd);
    a_part_of_an_array_can_be_pushed(qd);
    any_address_in_the_region_is_sent_from_where_it_is(qd);
    foreign_memory_is_copied(qd);
    an_empty_array_arrives_as_one(qd);
    an_unshared_array_can_be_written_to(qd);
    several_segments(qd);
    many_segments(qd);
    the_waits(qd);
    closing();
    descriptors();
    EXPECT_ERROR(demi_close(qd), 0);
    return expect_failures != 0; /* without demi_ext_fini(): the end of the thread does it */
}
