/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/**
 * demi/types.h - tokens, scatter-gather arrays, results.
 *
 * The structures are packed and their sizes are part of the binary interface: 12 bytes a segment, 40 a
 * scatter-gather array, 20 an accept result, 64 a result, 20 the arguments of demi_init().
 */
#ifndef DEMI_TYPES_H_IS_INCLUDED
#define DEMI_TYPES_H_IS_INCLUDED

#include <demi/cc.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Segments in a scatter-gather array. demi/ext.h has functions that take more. */
#define DEMI_SGARRAY_MAXSIZE 1

/** Stands for one outstanding operation. Never zero, and not given out again while it can be mixed up. */
typedef uint64_t demi_qtoken_t;

/** A run of bytes. */
typedef struct ATTR_PACKED demi_sgaseg {
    void *sgaseg_buf;    /**< First byte. */
    uint32_t sgaseg_len; /**< Bytes. */
} demi_sgaseg_t;

/**
 * A scatter-gather array.
 *
 * sga_buf names the owner of the memory and belongs to the library: it is set by demi_sgaalloc() and by
 * the completion of demi_pop(), checked by demi_push() and demi_sgafree(), and not an address. In an
 * array that a program puts together over its own memory it is NULL. Within the memory that the owner
 * names, a program may move sgaseg_buf forward and make sgaseg_len smaller as it likes.
 */
typedef struct ATTR_PACKED demi_sgarray {
    void *sga_buf;                                /**< Owner of the memory, NULL for the program's own. */
    uint32_t sga_numsegs;                         /**< Segments in use. */
    demi_sgaseg_t sga_segs[DEMI_SGARRAY_MAXSIZE]; /**< The segments. */
    struct sockaddr_in sga_addr;                  /**< Sender of a popped datagram, else zeros. */
} demi_sgarray_t;

/** What a result is the result of. */
typedef enum demi_opcode {
    DEMI_OPC_INVALID = 0, /**< Nothing: the result was not filled in. */
    DEMI_OPC_PUSH = 1,    /**< demi_push() or demi_pushto(): the data was taken. */
    DEMI_OPC_POP = 2,     /**< demi_pop(): data is in qr_value.sga. */
    DEMI_OPC_ACCEPT = 3,  /**< demi_accept(): the connection is in qr_value.ares. */
    DEMI_OPC_CONNECT = 4, /**< demi_connect(): the connection stands. */
    DEMI_OPC_CLOSE = 5,   /**< The queue is closed. */
    DEMI_OPC_FAILED = 6   /**< The operation failed: the positive error number is in qr_ret. */
} demi_opcode_t;

/** Result of demi_accept(). */
typedef struct ATTR_PACKED demi_accept_result {
    int32_t qd;              /**< Descriptor of the new connection. */
    struct sockaddr_in addr; /**< The peer. For an IPv6 peer sin_family is AF_INET6, the address is zero. */
} demi_accept_result_t;

/** Result of an operation. */
typedef struct ATTR_PACKED demi_qresult {
    enum demi_opcode qr_opcode; /**< What was done, or DEMI_OPC_FAILED. */
    int32_t qr_qd;              /**< Descriptor the operation was started on. */
    demi_qtoken_t qr_qt;        /**< Token of the operation. It is used up. */
    int64_t qr_ret;             /**< 0, or why the operation failed: a positive error number. */
    union {
        demi_sgarray_t sga;        /**< With DEMI_OPC_POP. Length 0 is the end of a stream. */
        demi_accept_result_t ares; /**< With DEMI_OPC_ACCEPT. */
    } qr_value;                    /**< Zeros in every other case. */
} demi_qresult_t;

/**
 * Is told numbers about the run, from inside the calls of the thread that gave it to demi_init(): a name,
 * the bytes of the name (a NUL follows them), a value. "init_ns" is how long demi_init() took; "late_polls" is
 * how many times the program has stayed away from the library for too long while peers waited for it. The
 * set may grow. Calling any function of the library from inside the callback gives EBUSY. It must return.
 */
typedef void (*demi_callback_t)(const char *name, uint32_t name_len, uint64_t value);

/** Arguments of demi_init(). All zeros means: defaults, and the environment. */
struct ATTR_PACKED demi_args {
    int argc;                 /**< Entries in argv. */
    char *const *argv;        /**< Arguments; see demi_init() for the ones that are looked at. */
    demi_callback_t callback; /**< NULL, or what is told numbers about the run. */
};

#ifdef __cplusplus
}
#endif

#endif /* DEMI_TYPES_H_IS_INCLUDED */
