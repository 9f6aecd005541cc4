/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Each thread has a library OS of its own, and calls from inside a callback are refused. */
#define _POSIX_C_SOURCE 200809L

#include "expect.h"

#include <demi/ext.h>
#include <demi/libos.h>
#include <demi/sga.h>
#include <demi/wait.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/time.h>

static const struct timespec NOW = {0, 0};
static int callbacks;

/* What a callback is told, and that it cannot call back. */
static void on_number(const char *name, uint32_t name_len, uint64_t value)
{
    const struct demi_args args = {0, NULL, NULL};
    demi_qtoken_t token;
    demi_qresult_t result;
    demi_sgarray_t array = {0};
    int qd = -1;
    int count;

    callbacks++;
    EXPECT(strlen(name), name_len);
    EXPECT(strcmp(name, "init_ns"), 0);
    EXPECT(value > 0, 1);
    EXPECT_ERROR(demi_init(&args), EBUSY);
    EXPECT_ERROR(demi_socket(&qd, AF_INET, SOCK_STREAM, 0), EBUSY);
    EXPECT_ERROR(demi_close(0), EBUSY);
    EXPECT_ERROR(demi_pop(&token, 0), EBUSY);
    EXPECT_ERROR(demi_push(&token, 0, &array), EBUSY);
    EXPECT_ERROR(demi_wait(&result, 1, &NOW), EBUSY);
    EXPECT_ERROR(demi_wait_next_n(&result, 1, &count, &NOW), EBUSY);
    EXPECT_ERROR(demi_sgafree(&array), EBUSY);
    EXPECT(demi_sgaalloc(8).sga_numsegs, 0);
    EXPECT_ERROR(demi_ext_fini(), EBUSY);
}

static void *without_init(void *unused)
{
    int qd;
    (void)unused;
    EXPECT_ERROR(demi_ext_queue(&qd), ENOSYS);
    EXPECT_ERROR(demi_close(0), ENOSYS);
    EXPECT(demi_sgaalloc(8).sga_numsegs, 0);
    return NULL;
}

/* What another thread handed over. */
struct handed_over {
    int qd;
    demi_qtoken_t token;
    demi_sgarray_t array;
};

static void *with_its_own(void *argument)
{
    struct handed_over *other = argument;
    const struct demi_args args = {0, NULL, NULL};
    demi_sgarray_t copy = other->array;
    demi_qresult_t result;
    demi_qtoken_t token;
    int qd = -1;

    EXPECT_ERROR(demi_init(&args), 0);
    EXPECT_ERROR(demi_close(other->qd), EBADF);
    EXPECT_ERROR(demi_wait(&result, other->token, &NOW), EINVAL);
    EXPECT_ERROR(demi_ext_queue(&qd), 0);
    EXPECT_ERROR(demi_push(&token, qd, &copy), EINVAL);
    EXPECT_ERROR(demi_sgafree(&copy), EINVAL);

    /* Left open, outstanding and allocated: the end of the thread cleans up. */
    demi_sgarray_t left = demi_sgaalloc(1000);
    EXPECT(left.sga_numsegs, 1);
    EXPECT_ERROR(demi_pop(&token, qd), 0);
    return NULL;
}

static void run(void *(*body)(void *), void *argument)
{
    pthread_t thread;
    EXPECT_ERROR(pthread_create(&thread, NULL, body, argument), 0);
    EXPECT_ERROR(pthread_join(thread, NULL), 0);
}

static volatile sig_atomic_t interrupted_with;

/* A signal handler that interrupts a call of the library cannot call it. */
static void on_alarm(int signal_number)
{
    (void)signal_number;
    interrupted_with = demi_close(0);
}

static void calls_from_a_signal_handler_are_refused(int qd)
{
    const struct itimerval soon = {{0, 0}, {0, 20000}};
    const struct timespec longer = {0, 200000000};
    struct sigaction action;
    demi_qtoken_t token;
    demi_qresult_t result;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_alarm;
    EXPECT(sigaction(SIGALRM, &action, NULL), 0);
    EXPECT_ERROR(demi_pop(&token, qd), 0);
    EXPECT(setitimer(ITIMER_REAL, &soon, NULL), 0);
    EXPECT_ERROR(demi_wait(&result, token, &longer), ETIMEDOUT);
    EXPECT_ERROR(interrupted_with, EBUSY);
    EXPECT_ERROR(demi_ext_cancel(token), 0);
    EXPECT_ERROR(demi_wait(&result, token, &NOW), 0);
}

int main(void)
{
    struct demi_args args = {0, NULL, on_number};
    struct handed_over mine = {-1, 0, {0}};

    EXPECT_ERROR(demi_init(&args), 0);
    EXPECT(callbacks, 1);
    for (int i = 0; i < 3; i++)
        EXPECT_ERROR(demi_ext_queue(&mine.qd), 0);
    EXPECT_ERROR(demi_pop(&mine.token, mine.qd), 0);
    mine.array = demi_sgaalloc(100);
    EXPECT(mine.array.sga_numsegs, 1);

    run(without_init, NULL);
    for (int i = 0; i < 3; i++)
        run(with_its_own, &mine);

    EXPECT_ERROR(demi_sgafree(&mine.array), 0);
    calls_from_a_signal_handler_are_refused(0);
    return expect_failures != 0;
}
