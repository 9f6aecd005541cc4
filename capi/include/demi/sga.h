/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/**
 * demi/sga.h - memory of scatter-gather arrays.
 */
#ifndef DEMI_SGA_H_IS_INCLUDED
#define DEMI_SGA_H_IS_INCLUDED

#include <demi/cc.h>
#include <demi/types.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Allocates an array with one segment of size bytes, from memory that devices send from without a copy. The
 * bytes hold anything. size is 1 to UINT32_MAX; demi_ext_alloc() takes more.
 *
 * On failure sga_buf and sga_numsegs are zero: size is out of range, memory ran out, the thread has not called
 * demi_init(), or the call came from inside a callback.
 */
ATTR_NODISCARD extern demi_sgarray_t demi_sgaalloc(_In_ size_t size);

/**
 * Gives the memory of an array back, which the library itself may still hold for a while (see demi_push()),
 * and sets *sga to zeros.
 *
 * Errors: EINVAL sga is NULL, or sga_buf is not the mark of live memory of this thread: it was freed already,
 * belongs to another thread, or never came from this library. Nothing was freed, *sga is as before. ENOSYS,
 * EBUSY as everywhere.
 */
extern int demi_sgafree(_Inout_ demi_sgarray_t *sga);

#ifdef __cplusplus
}
#endif

#endif /* DEMI_SGA_H_IS_INCLUDED */
