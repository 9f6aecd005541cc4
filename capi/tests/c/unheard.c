/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Standard error is a file that nothing more fits into, or a pipe that nobody reads: a program goes on all the same. */
#define _POSIX_C_SOURCE 200809L

#include "expect.h"

#include <demi/ext.h>
#include <demi/libos.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static const struct demi_args ARGS = {0, NULL, NULL};

static void say_everything_to(int fd)
{
    int qd;

    EXPECT(dup2(fd, STDERR_FILENO), STDERR_FILENO);
    setenv("CATNIP_RUNTIME__KIND", "no such runtime", 1);
    EXPECT_ERROR(demi_init(&ARGS), EINVAL);
    setenv("CATNIP_RUNTIME__KIND", "none", 1);
    EXPECT(demi_init(&ARGS), 0);
    EXPECT(demi_ext_queue(&qd), 0);
    EXPECT(demi_close(qd), 0);
    EXPECT(demi_ext_fini(), 0);
}

int main(void)
{
    int ends[2];

    setenv("CATNIP_LOG", "trace", 1);
    signal(SIGPIPE, SIG_IGN);
    say_everything_to(open("/dev/full", O_WRONLY));
    EXPECT(pipe(ends), 0);
    close(ends[0]);
    say_everything_to(ends[1]);
    return expect_failures;
}
