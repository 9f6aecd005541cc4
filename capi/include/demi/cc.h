/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/**
 * demi/cc.h - compiler attributes and argument annotations.
 *
 * The names exist so that programs written for Demikernel 1.x compile unchanged. The declarations of
 * this library carry no "nonnull" attribute: a null pointer is answered with EINVAL, and the attribute
 * would make the same mistake undefined behaviour in the caller.
 */
#ifndef DEMI_CC_H
#define DEMI_CC_H

#if defined(__GNUC__)
#define ATTR_NONNULL(...) __attribute__((nonnull(__VA_ARGS__)))
#define ATTR_NODISCARD __attribute__((warn_unused_result))
#define ATTR_PACKED __attribute__((packed))
#else
#error "demi/cc.h: a compiler with GNU attributes (GCC or Clang) is needed"
#endif

/* Direction of an argument, for the reader. */
#ifndef _In_
#define _In_
#endif
#ifndef _In_z_
#define _In_z_
#endif
#ifndef _In_opt_
#define _In_opt_
#endif
#ifndef _Inout_
#define _Inout_
#endif
#ifndef _In_reads_
#define _In_reads_(count)
#endif
#ifndef _In_reads_bytes_
#define _In_reads_bytes_(bytes)
#endif
#ifndef _Out_
#define _Out_
#endif
#ifndef _Out_writes_to_
#define _Out_writes_to_(capacity, count)
#endif
#ifndef _Out_writes_to_opt_
#define _Out_writes_to_opt_(capacity, count)
#endif
#ifndef _Deref_pre_z_
#define _Deref_pre_z_
#endif

#endif /* DEMI_CC_H */
