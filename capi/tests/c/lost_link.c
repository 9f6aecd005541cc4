/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Waits for a datagram over a link whose other end goes away: the wait ends with EIO, and the library says why. */
#define _POSIX_C_SOURCE 200809L

#include "expect.h"

#include <arpa/inet.h>
#include <demi/ext.h>
#include <demi/libos.h>
#include <demi/wait.h>
#include <errno.h>

static const struct timespec LONG = {40, 0};

int main(int argc, char *argv[])
{
    const struct demi_args args = {argc, argv, NULL};
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_port = htons(9)};
    const char *why = "";
    demi_qresult_t result;
    demi_qtoken_t token;
    int qd;

    EXPECT_ERROR(demi_init(&args), 0);
    EXPECT_ERROR(demi_ext_device_failure(&why), 0);
    EXPECT(why == NULL, 1);
    EXPECT_ERROR(demi_socket(&qd, AF_INET, SOCK_DGRAM, 0), 0);
    EXPECT_ERROR(demi_bind(qd, (struct sockaddr *)&local, sizeof(local)), 0);
    EXPECT_ERROR(demi_pop(&token, qd), 0);
    puts("waiting");
    fflush(stdout);
    EXPECT_ERROR(demi_wait(&result, token, &LONG), 0);
    EXPECT(result.qr_opcode, DEMI_OPC_FAILED);
    EXPECT(result.qr_ret, EIO);
    EXPECT_ERROR(demi_ext_device_failure(&why), 0);
    puts(why != NULL ? why : "nobody knows why");
    return expect_failures;
}
