/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/**
 * demi/ext.h - what Catnip has beyond Demikernel's interface.
 *
 * IPv6 peers, arrays of several segments, memory of any size, in-memory queues, half-close, cancellation,
 * metrics, several cores. The functions keep the conventions of demi/libos.h and may be mixed with the others: a token of
 * either kind may be waited for with either kind of wait.
 */
#ifndef DEMI_EXT_H_IS_INCLUDED
#define DEMI_EXT_H_IS_INCLUDED

#include <demi/cc.h>
#include <demi/types.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

/* C99 has it of POSIX alone. */
struct timespec;

/** Most segments in one demi_ext_qresult_t. */
#define DEMI_EXT_POP_MAXSEGS 16

/** Most segments in one demi_ext_push(). */
#define DEMI_EXT_PUSH_MAXSEGS 1024

/**
 * As seg_owner or sga_buf in a push: the bytes lie in memory that demi_sgaalloc(), demi_ext_alloc() or a pop gave this
 * thread and that was not freed yet, wherever in it. They are sent from where they are, and the library finds out what
 * keeps them alive. Errors of the push: EINVAL the bytes are not all within one such piece of memory.
 */
#define DEMI_EXT_REGION ((void *)UINTPTR_MAX)

/**
 * A socket option of level IPPROTO_TCP, an int: tell the peer for how long data may stay unacknowledged (TCP_USER_TIMEOUT), and
 * without a time of one's own heed what the peer tells (RFC 5482). Set before connecting, or on a listener, it goes with the SYN.
 */
#define DEMI_EXT_TCP_USER_TIMEOUT_OPTION 0x6000

/**
 * A run of bytes of any length. seg_owner is to it what sga_buf is to a demi_sgarray_t, and the two may be
 * exchanged: NULL for the program's own memory, else the mark of the memory that seg_buf and seg_len lie in, or
 * DEMI_EXT_REGION.
 */
typedef struct demi_ext_seg {
    void *seg_buf;   /**< First byte. */
    size_t seg_len;  /**< Bytes. */
    void *seg_owner; /**< Owner of the memory, NULL for the program's own. */
} demi_ext_seg_t;

/** Result of an operation, with room for everything. */
typedef struct demi_ext_qresult {
    demi_opcode_t qr_opcode;         /**< What was done, or DEMI_OPC_FAILED. */
    int32_t qr_qd;                   /**< Descriptor the operation was started on. */
    demi_qtoken_t qr_qt;             /**< Token of the operation. It is used up. */
    int64_t qr_ret;                  /**< 0, or why the operation failed: a positive error number. */
    int32_t qr_accepted;             /**< With DEMI_OPC_ACCEPT the new descriptor, else -1. */
    socklen_t qr_addrlen;            /**< Bytes of qr_addr in use, 0 when there is no address. */
    struct sockaddr_storage qr_addr; /**< The accepted peer, or the sender of a popped datagram. */
    size_t qr_numsegs;               /**< With DEMI_OPC_POP: segments in use, at least 1; else 0. */
    demi_ext_seg_t qr_segs[DEMI_EXT_POP_MAXSEGS]; /**< The data; a single empty one ends a stream. */
} demi_ext_qresult_t;

/** The library's version, such as "0.1.0". Never NULL; may be called at any time. */
extern const char *demi_ext_version(void);

/**
 * Why the last demi_init() of this thread failed, in one line: file, setting, value and what is allowed. An
 * empty string when it did not fail. Valid until the thread's next demi_init().
 */
extern const char *demi_ext_init_error(void);

/**
 * Stores how many cores the configuration's table [cores] says, for demi_ext_core_init(). The first call in the process
 * reads the configuration, as demi_init() does, and opens the device for all of them. Errors: as demi_init().
 */
extern int demi_ext_core_count(_In_ const struct demi_args *args, _Out_ int *count_out);

/**
 * Like demi_init(), for one of several threads that share a device: makes this thread's library OS on the core of that
 * number, 0 or more and below demi_ext_core_count(), each of which one thread takes. The device is opened once in the process, and
 * the thread is bound to the core's processor unless the configuration says otherwise. Descriptors, tokens and memory are
 * the thread's own; connections are spread over the cores by hash, and stay where they are. When all cores were taken
 * and their threads have ended, or called demi_ext_fini(), the next call opens the device anew.
 * Errors: as demi_init(); EINVAL there is no such core; EBUSY another thread has taken it.
 */
extern int demi_ext_core_init(_In_ const struct demi_args *args, _In_ int core);

/**
 * Takes down this thread's library OS: all descriptors are closed, connections have up to a second to deliver what was
 * pushed and to end in order, and those that have not by then are reset. Then tokens and the memory of all arrays are gone.
 * The thread may call demi_init() again. A thread that ends without this call ends at once, and tells its peers nothing.
 */
extern int demi_ext_fini(void);

/**
 * Makes an in-memory queue: what is pushed comes out of pop in the same order, the bytes not copied: the popped
 * array is the very memory that was pushed. A pop returns one pushed array, whole whatever its limits.
 * Errors: EMFILE.
 */
extern int demi_ext_queue(_Out_ int *qd_out);

/**
 * Ends one or both directions of a connection; how is SHUT_RD, SHUT_WR or SHUT_RDWR. After SHUT_WR the peer
 * sees the end of the stream once it has everything that was pushed. Errors: EINVAL; ENOTCONN.
 */
extern int demi_ext_shutdown(_In_ int qd, _In_ int how);

/**
 * Gives an operation up: its token completes with ECANCELED, unless it has completed already. What a push has
 * handed over in part stays handed over. Errors: EINVAL the token is not outstanding.
 */
extern int demi_ext_cancel(_In_ demi_qtoken_t qt);

/**
 * Allocates size bytes, 1 or more, that devices send from without a copy, as much as fits the memory region.
 * Errors: EINVAL size is 0; ENOBUFS.
 */
extern int demi_ext_alloc(_Out_ demi_ext_seg_t *seg_out, _In_ size_t size);

/** Gives the memory of a segment back, as demi_sgafree() does for an array, and sets *seg to zeros. */
extern int demi_ext_free(_Inout_ demi_ext_seg_t *seg);

/**
 * Makes the bytes of an array safe to write to after a push. When the library still holds them, the array gets
 * memory of its own with a copy of the bytes, and sgaseg_buf changes; else nothing is done.
 * Errors: EINVAL as demi_sgafree(), or the segment is not within its owner's memory; ENOBUFS, and the array is
 * as before.
 */
extern int demi_ext_unshare(_Inout_ demi_sgarray_t *sga);

/**
 * Stores whether the library, or an array popped elsewhere, still holds any of the piece of memory that address is in: 1
 * when it must not be written to, 0 when it may be. The whole piece counts that one call gave, not single bytes, and so
 * memory that is reused part by part is best allocated so.
 * Errors: EINVAL the address is not in memory that this thread holds.
 */
extern int demi_ext_in_use(_In_ const void *address, _Out_ int *in_use_out);

/**
 * Starts pushing the bytes of several segments, in order: 1 to DEMI_EXT_PUSH_MAXSEGS. On datagram sockets they make
 * up one datagram. Ownership and errors as demi_push(), segment by segment.
 */
extern int demi_ext_push(_Out_ demi_qtoken_t *qt_out, _In_ int qd, _In_reads_(numsegs) const demi_ext_seg_t *segs,
                         _In_ size_t numsegs);

/** Starts pushing a datagram made of several segments to an address. Otherwise like demi_ext_push(). */
extern int demi_ext_pushto(_Out_ demi_qtoken_t *qt_out, _In_ int sockqd,
                           _In_reads_(numsegs) const demi_ext_seg_t *segs, _In_ size_t numsegs,
                           _In_reads_bytes_(size) const struct sockaddr *dest_addr, _In_ socklen_t size);

/**
 * Starts receiving at most max_segs segments (1 to DEMI_EXT_POP_MAXSEGS) and max_bytes bytes (1 or more; SIZE_MAX
 * for no limit). A datagram is never cut by max_segs; what does not fit into max_bytes of a stream stays queued.
 * Each segment of the result is given back with demi_ext_free(). Waiting with demi_wait() and its like copies
 * several segments into one.
 */
extern int demi_ext_pop(_Out_ demi_qtoken_t *qt_out, _In_ int qd, _In_ size_t max_segs, _In_ size_t max_bytes);

/** Like demi_wait(), with the wide result. */
extern int demi_ext_wait(_Out_ demi_ext_qresult_t *qr_out, _In_ demi_qtoken_t qt,
                         _In_opt_ const struct timespec *timeout);

/** Like demi_wait_any(), with the wide result. */
extern int demi_ext_wait_any(_Out_ demi_ext_qresult_t *qr_out, _Out_ int *ready_offset,
                             _In_reads_(num_qts) const demi_qtoken_t qts[], _In_ int num_qts,
                             _In_opt_ const struct timespec *timeout);

/** Like demi_wait_next_n(), with wide results. */
extern int demi_ext_wait_next_n(_Out_writes_to_(num_qrs, *num_qrs_out) demi_ext_qresult_t *qr_out, _In_ int num_qrs,
                                _Out_ int *num_qrs_out, _In_opt_ const struct timespec *timeout);

/**
 * Stores why a device of this thread's failed, in words: which device, which call, and what the system said of it; NULL
 * while all of them work. What needs a device that failed ends with EIO. The text is valid until the next call.
 */
extern int demi_ext_device_failure(_Out_ const char **text_out);

/**
 * Takes a snapshot of all counters and gauges of this thread and stores how many there are. demi_ext_metric_at()
 * and demi_ext_metric() read it; it stays until the next one is taken.
 */
extern int demi_ext_metrics(_Out_ size_t *count_out);

/**
 * Stores name and value of the snapshot's metric at index. The name is valid until the next snapshot.
 * Errors: EINVAL no snapshot was taken, or index is not below its count.
 */
extern int demi_ext_metric_at(_In_ size_t index, _Out_ const char **name_out, _Out_ uint64_t *value_out);

/** Stores the value of the snapshot's metric of that name. Errors: ENOENT; EINVAL no snapshot was taken. */
extern int demi_ext_metric(_In_z_ const char *name, _Out_ uint64_t *value_out);

#ifdef __cplusplus
}
#endif

#endif /* DEMI_EXT_H_IS_INCLUDED */
