/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Two threads take a core each of one configuration; the cores are opened once, and again when all are over. */
#define _POSIX_C_SOURCE 200809L

#include "expect.h"

#include <demi/ext.h>
#include <demi/libos.h>
#include <demi/wait.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/socket.h>

static const struct demi_args ARGS = {0, NULL, NULL};
static pthread_barrier_t all;

static void *on_core(void *number)
{
    const int core = (int)(intptr_t)number;
    uint64_t open_queues = 0;
    size_t count = 0;
    int qd = -1;

    EXPECT(demi_ext_core_init(&ARGS, core), 0);
    EXPECT_ERROR(demi_ext_core_init(&ARGS, core), EEXIST);
    EXPECT_ERROR(demi_init(&ARGS), EEXIST);
    EXPECT(demi_socket(&qd, AF_INET, SOCK_STREAM, 0), 0);
    EXPECT(qd, 0);
    pthread_barrier_wait(&all);
    /* What the other thread has is not here. */
    EXPECT(demi_ext_metrics(&count), 0);
    EXPECT(demi_ext_metric("libos.descriptors_open", &open_queues), 0);
    EXPECT(open_queues, 1);
    pthread_barrier_wait(&all);
    if (core == 0) EXPECT(demi_ext_fini(), 0);
    return NULL;
}

int main(void)
{
    int count = 0;
    EXPECT_ERROR(demi_ext_core_count(NULL, &count), EINVAL);
    EXPECT_ERROR(demi_ext_core_count(&ARGS, NULL), EINVAL);
    EXPECT_ERROR(demi_ext_core_init(NULL, 0), EINVAL);
    EXPECT(demi_ext_core_count(&ARGS, &count), 0);
    EXPECT(count, 2);
    EXPECT_ERROR(demi_ext_core_init(&ARGS, 2), EINVAL);
    EXPECT_ERROR(demi_ext_core_init(&ARGS, -1), EINVAL);
    EXPECT(strcmp(demi_ext_init_error(), "core -1: allowed is 0 to 1"), 0);

    EXPECT(pthread_barrier_init(&all, NULL, 3), 0);
    for (int round = 0; round < 2; round++) {
        pthread_t threads[2];
        for (intptr_t core = 0; core < 2; core++)
            EXPECT(pthread_create(&threads[core], NULL, on_core, (void *)core), 0);
        pthread_barrier_wait(&all);
        EXPECT_ERROR(demi_ext_core_init(&ARGS, 1), EBUSY);
        pthread_barrier_wait(&all);
        for (int core = 0; core < 2; core++)
            EXPECT(pthread_join(threads[core], NULL), 0);
    }
    return expect_failures;
}
