/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The child of a fork has no library OS, may have one of its own, and ends without the parent's connections noticing. */
#define _POSIX_C_SOURCE 200809L

#include "expect.h"

#include <arpa/inet.h>
#include <demi/ext.h>
#include <demi/libos.h>
#include <demi/sga.h>
#include <demi/wait.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct demi_args DEFAULTS = {0, NULL, NULL};
static const struct timespec SOON = {5, 0};

static demi_qresult_t finish(demi_qtoken_t token, demi_opcode_t opcode)
{
    demi_qresult_t result = {0};
    EXPECT_ERROR(demi_wait(&result, token, &SOON), 0);
    EXPECT(result.qr_opcode, opcode);
    return result;
}

/* A connection of the thread with itself. */
struct connection {
    int client;
    int server;
};

static struct connection connect_to_myself(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    struct connection connection = {-1, -1};
    demi_qtoken_t accepting, connecting;
    int listener;

    EXPECT_ERROR(demi_socket(&listener, AF_INET, SOCK_STREAM, 0), 0);
    EXPECT_ERROR(demi_bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    EXPECT_ERROR(demi_getsockname(listener, (struct sockaddr *)&address, &len), 0);
    EXPECT_ERROR(demi_listen(listener, 1), 0);
    EXPECT_ERROR(demi_accept(&accepting, listener), 0);
    EXPECT_ERROR(demi_socket(&connection.client, AF_INET, SOCK_STREAM, 0), 0);
    EXPECT_ERROR(demi_connect(&connecting, connection.client, (struct sockaddr *)&address, sizeof address), 0);
    finish(connecting, DEMI_OPC_CONNECT);
    connection.server = finish(accepting, DEMI_OPC_ACCEPT).qr_value.ares.qd;
    EXPECT_ERROR(demi_close(listener), 0);
    return connection;
}

static void carry(const struct connection *connection, char *text)
{
    demi_sgarray_t array = {0};
    demi_qtoken_t token;
    array.sga_numsegs = 1;
    array.sga_segs[0].sgaseg_buf = text;
    array.sga_segs[0].sgaseg_len = (uint32_t)strlen(text);
    EXPECT_ERROR(demi_push(&token, connection->client, &array), 0);
    finish(token, DEMI_OPC_PUSH);
    EXPECT_ERROR(demi_pop(&token, connection->server), 0);
    demi_qresult_t result = finish(token, DEMI_OPC_POP);
    EXPECT(result.qr_value.sga.sga_segs[0].sgaseg_len, strlen(text));
    EXPECT(memcmp(result.qr_value.sga.sga_segs[0].sgaseg_buf, text, strlen(text)), 0);
    EXPECT_ERROR(demi_sgafree(&result.qr_value.sga), 0);
}

static void live_as_a_child(struct connection parents, demi_sgarray_t array)
{
    demi_qtoken_t token = 0;
    EXPECT_ERROR(demi_push(&token, parents.client, &array), ENOSYS);
    EXPECT_ERROR(demi_close(parents.client), ENOSYS);
    EXPECT_ERROR(demi_sgafree(&array), ENOSYS);
    EXPECT_ERROR(demi_ext_fini(), ENOSYS);

    EXPECT_ERROR(demi_init(&DEFAULTS), 0);
    EXPECT_ERROR(demi_close(parents.client), EBADF);
    EXPECT_ERROR(demi_sgafree(&array), EINVAL);
    struct connection own = connect_to_myself();
    carry(&own, "the child's");
    /* Ends with its connection open. */
    exit(expect_failures != 0);
}

int main(void)
{
    EXPECT_ERROR(demi_init(&DEFAULTS), 0);
    struct connection connection = connect_to_myself();
    demi_sgarray_t array = demi_sgaalloc(100);
    carry(&connection, "before");

    pid_t child = fork();
    if (child == 0)
        live_as_a_child(connection, array);
    carry(&connection, "beside the child");
    int status = -1;
    EXPECT(waitpid(child, &status, 0), child);
    EXPECT(status, 0);
    carry(&connection, "behind it");

    EXPECT_ERROR(demi_sgafree(&array), 0);
    EXPECT_ERROR(demi_ext_fini(), 0);
    return expect_failures != 0;
}
