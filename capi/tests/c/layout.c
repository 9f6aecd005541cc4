/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The binary interface, checked by the compiler. The same numbers are asserted in capi/src/abi.rs. */
#include <assert.h>
#include <demi/ext.h>
#include <demi/libos.h>
#include <demi/sga.h>
#include <demi/wait.h>

#define SIZE(type, bytes) static_assert(sizeof(type) == (bytes), #type " has another size")
#define PLACE(type, field, bytes) static_assert(offsetof(type, field) == (bytes), #type "." #field " moved")

SIZE(demi_qtoken_t, 8);
SIZE(demi_opcode_t, 4);

SIZE(demi_sgaseg_t, 12);
PLACE(demi_sgaseg_t, sgaseg_buf, 0);
PLACE(demi_sgaseg_t, sgaseg_len, 8);

SIZE(demi_sgarray_t, 40);
PLACE(demi_sgarray_t, sga_buf, 0);
PLACE(demi_sgarray_t, sga_numsegs, 8);
PLACE(demi_sgarray_t, sga_segs, 12);
PLACE(demi_sgarray_t, sga_addr, 24);

SIZE(demi_accept_result_t, 20);
PLACE(demi_accept_result_t, qd, 0);
PLACE(demi_accept_result_t, addr, 4);

SIZE(demi_qresult_t, 64);
PLACE(demi_qresult_t, qr_opcode, 0);
PLACE(demi_qresult_t, qr_qd, 4);
PLACE(demi_qresult_t, qr_qt, 8);
PLACE(demi_qresult_t, qr_ret, 16);
PLACE(demi_qresult_t, qr_value, 24);
PLACE(demi_qresult_t, qr_value.sga, 24);
PLACE(demi_qresult_t, qr_value.ares, 24);

SIZE(struct demi_args, 20);
PLACE(struct demi_args, argc, 0);
PLACE(struct demi_args, argv, 4);
PLACE(struct demi_args, callback, 12);

SIZE(demi_ext_seg_t, 24);
PLACE(demi_ext_seg_t, seg_len, 8);
PLACE(demi_ext_seg_t, seg_owner, 16);

SIZE(demi_ext_qresult_t, 552);
PLACE(demi_ext_qresult_t, qr_ret, 16);
PLACE(demi_ext_qresult_t, qr_accepted, 24);
PLACE(demi_ext_qresult_t, qr_addrlen, 28);
PLACE(demi_ext_qresult_t, qr_addr, 32);
PLACE(demi_ext_qresult_t, qr_numsegs, 160);
PLACE(demi_ext_qresult_t, qr_segs, 168);

static_assert(DEMI_OPC_INVALID == 0 && DEMI_OPC_PUSH == 1 && DEMI_OPC_POP == 2 && DEMI_OPC_ACCEPT == 3, "opcodes");
static_assert(DEMI_OPC_CONNECT == 4 && DEMI_OPC_CLOSE == 5 && DEMI_OPC_FAILED == 6, "opcodes");
static_assert(DEMI_SGARRAY_MAXSIZE == 1, "segments of a plain array");
static_assert(DEMI_EXT_POP_MAXSEGS == 16 && DEMI_EXT_PUSH_MAXSEGS == 1024, "segments of a wide result");

/* The prototypes, as Demikernel's programs use them. */
static int (*const init)(const struct demi_args *) = demi_init;
static int (*const make_socket)(int *, int, int, int) = demi_socket;
static int (*const bind_to)(int, const struct sockaddr *, socklen_t) = demi_bind;
static int (*const listen_on)(int, int) = demi_listen;
static int (*const start_accept)(demi_qtoken_t *, int) = demi_accept;
static int (*const start_connect)(demi_qtoken_t *, int, const struct sockaddr *, socklen_t) = demi_connect;
static int (*const close_queue)(int) = demi_close;
static int (*const start_push)(demi_qtoken_t *, int, const demi_sgarray_t *) = demi_push;
static int (*const start_pushto)(demi_qtoken_t *, int, const demi_sgarray_t *, const struct sockaddr *,
                                 socklen_t) = demi_pushto;
static int (*const start_pop)(demi_qtoken_t *, int) = demi_pop;
static int (*const set_option)(int, int, int, const void *, socklen_t) = demi_setsockopt;
static int (*const get_option)(int, int, int, void *, socklen_t *) = demi_getsockopt;
static int (*const peer_name)(int, struct sockaddr *, socklen_t *) = demi_getpeername;
static int (*const local_name)(int, struct sockaddr *, socklen_t *) = demi_getsockname;
static demi_sgarray_t (*const allocate)(size_t) = demi_sgaalloc;
static int (*const release)(demi_sgarray_t *) = demi_sgafree;
static int (*const wait_one)(demi_qresult_t *, demi_qtoken_t, const struct timespec *) = demi_wait;
static int (*const wait_some)(demi_qresult_t *, int *, const demi_qtoken_t[], int, const struct timespec *) =
    demi_wait_any;
static int (*const wait_next)(demi_qresult_t *, int, int *, const struct timespec *) = demi_wait_next_n;

int main(void)
{
    /* Linked against the library: every function is there. */
    return !(init && make_socket && bind_to && listen_on && start_accept && start_connect && close_queue &&
             start_push && start_pushto && start_pop && set_option && get_option && peer_name && local_name &&
             allocate && release && wait_one && wait_some && wait_next);
}
