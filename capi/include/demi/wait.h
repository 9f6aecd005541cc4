/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/**
 * demi/wait.h - waiting for operations to complete.
 *
 * Waiting drives the library OS: packets are received and sent, timers run. timeout is relative; NULL waits
 * for ever, zero looks once. A result that is there already is returned whatever the timeout. Waiting uses up the
 * tokens whose results it returns, and no others.
 *
 * Returns 0, though the operation itself may have failed: see qr_opcode and qr_ret. Else ETIMEDOUT;
 * EINVAL for NULL pointers, a count below 1, a timeout with a negative part or a tv_nsec above 999999999, or a
 * token that is not outstanding on this thread; ENOSYS; EBUSY; EIO when the device is gone.
 */
#ifndef DEMI_WAIT_H_IS_INCLUDED
#define DEMI_WAIT_H_IS_INCLUDED

#include <demi/cc.h>
#include <demi/types.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

/* C99 has it of POSIX alone. */
struct timespec;

/** Waits until the operation of one token has completed and stores its result. */
extern int demi_wait(_Out_ demi_qresult_t *qr_out, _In_ demi_qtoken_t qt, _In_opt_ const struct timespec *timeout);

/**
 * Waits until the first of num_qts operations has completed, stores its result, and in *ready_offset the place
 * of its token in qts. The time it takes grows with num_qts: demi_wait_next_n() has no list to search.
 */
extern int demi_wait_any(_Out_ demi_qresult_t *qr_out, _Out_ int *ready_offset,
                         _In_reads_(num_qts) const demi_qtoken_t qts[], _In_ int num_qts,
                         _In_opt_ const struct timespec *timeout);

/**
 * Waits until any operation of this thread has completed, then stores the results that are there, num_qrs
 * at most, oldest first, and their number in *num_qrs_out. Takes time for the results alone, however many
 * operations are outstanding. On an error *num_qrs_out is 0.
 */
extern int demi_wait_next_n(_Out_writes_to_(num_qrs, *num_qrs_out) demi_qresult_t *qr_out, _In_ int num_qrs,
                            _Out_ int *num_qrs_out, _In_opt_ const struct timespec *timeout);

#ifdef __cplusplus
}
#endif

#endif /* DEMI_WAIT_H_IS_INCLUDED */
