/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/**
 * demi/libos.h - queues, sockets and the operations on them.
 *
 * Every function returns 0 or a positive error number of errno.h; errno itself is left alone. Errors that
 * any of them may return, and that are not repeated below:
 *
 *   EINVAL          a pointer is NULL, or an argument is outside what the function takes
 *   ENOSYS          this thread has not called demi_init() successfully
 *   EBADF           the descriptor is not open
 *   EBUSY           called from inside a callback or signal handler that interrupted another call
 *   ENOTSUP         this kind of queue does not do that; of operations in the result
 *   ENOTRECOVERABLE an earlier call on this thread failed inside the library and left it unusable
 *
 * An operation (accept, connect, push, pop) is started by its function, which stores a token and returns at
 * once. The token completes exactly once; the functions of demi/wait.h return the result and use the token
 * up. When starting fails nothing is stored and nothing will complete: that is for arguments that no queue would
 * take, and for limits (EAGAIN: too many operations are outstanding). What follows from the state of the queue, ENOTSUP
 * included, is told in the result. Operations of one direction on one descriptor complete in the order in which they
 * were started.
 *
 * Each thread has a library OS of its own: descriptors, tokens and scatter-gather arrays belong to the
 * thread that made them, and mean nothing to other threads. After a fork they stay with the parent: the child
 * has no library OS until it calls demi_init().
 */
#ifndef DEMI_LIBOS_H_IS_INCLUDED
#define DEMI_LIBOS_H_IS_INCLUDED

#include <demi/cc.h>
#include <demi/types.h>
#include <stddef.h>
#include <sys/socket.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Sets up the library OS of the calling thread. It is taken down when the thread ends, or by
 * demi_ext_fini().
 *
 * Settings come from, in rising order of precedence: defaults; the file named by CATNIP_CONFIG in the
 * environment; the file named by "--config FILE" or "--config=FILE" in args->argv; single settings in the
 * environment. All other arguments are ignored, so that a program may hand over its own. On failure one
 * line on standard error says what is wrong; demi_ext_init_error() has the same line.
 *
 * Errors: EEXIST the thread has called demi_init() already; EINVAL args is NULL, argc is negative, argv is
 * NULL though argc is not 0, or a setting is wrong; ENOENT, EACCES and the like the configuration file cannot be
 * opened; ENODEV the device cannot be opened or set up; ENOMEM memory cannot be mapped.
 */
extern int demi_init(_In_ const struct demi_args *args);

/**
 * Makes a socket. domain is AF_INET or AF_INET6, type SOCK_STREAM (TCP) or SOCK_DGRAM (UDP), protocol 0 or
 * the matching IPPROTO_TCP or IPPROTO_UDP. SOCK_NONBLOCK and SOCK_CLOEXEC in type are allowed and change
 * nothing.
 *
 * Errors: EINVAL no such domain, type or protocol; ENOTSUP a domain or type that exists but is not served;
 * EMFILE no descriptor is left.
 */
extern int demi_socket(_Out_ int *sockqd_out, _In_ int domain, _In_ int type, _In_ int protocol);

/**
 * Makes a stream socket accept connections; one that is not bound gets a free port. backlog is how many may wait to be
 * accepted, at least 1; the library lowers it to its own limit.
 *
 * Errors: EINVAL backlog is less than 1, or the socket listens or is connected already; EADDRINUSE another socket
 * listens.
 */
extern int demi_listen(_In_ int sockqd, _In_ int backlog);

/**
 * Gives a socket a local address: a sockaddr_in or sockaddr_in6, size at least that of the structure. Port 0
 * picks a free one; demi_getsockname() tells which.
 *
 * Errors: EINVAL bad address, or bound already; EADDRINUSE; EADDRNOTAVAIL not an address of this host.
 */
extern int demi_bind(_In_ int sockqd, _In_reads_bytes_(size) const struct sockaddr *addr, _In_ socklen_t size);

/**
 * Starts taking the next incoming connection of a listening socket. The result has its descriptor and peer
 * in qr_value.ares; the descriptor must be closed like any other.
 *
 * In the result: EINVAL the socket does not listen; EMFILE no descriptor is left; ECANCELED the socket was closed.
 */
extern int demi_accept(_Out_ demi_qtoken_t *qt_out, _In_ int sockqd);

/**
 * Starts connecting a socket. A stream socket sends a SYN; a datagram socket fixes its peer.
 *
 * Errors: EINVAL bad address. In the result: EISCONN; EINVAL the socket listens, the port is 0, or the address is of
 * another family than the socket; ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH; EADDRNOTAVAIL no local port is
 * left, or no address of ours to reach the peer from; ECANCELED.
 */
extern int demi_connect(_Out_ demi_qtoken_t *qt_out, _In_ int sockqd,
                        _In_reads_bytes_(size) const struct sockaddr *addr, _In_ socklen_t size);

/**
 * Closes a queue and frees its descriptor. Outstanding operations complete with ECANCELED, and their tokens
 * may still be waited for. What push operations have taken is still sent in the background, and an orderly
 * close follows it, as long as the thread keeps calling the library. Does not wait, but for a socket that lingers
 * (SO_LINGER with a time): until what was sent is acknowledged, or until the time is over and the connection reset.
 *
 * Errors: EBADF; of a socket that lingers, and is closed all the same: ETIMEDOUT the time is over, ECONNRESET.
 */
extern int demi_close(_In_ int qd);

/**
 * Starts pushing data: to the connected peer of a socket, or to the end of an in-memory queue. The
 * push completes when the library has taken the data, which is at once unless the send queue is full.
 *
 * Segments that lie in memory of demi_sgaalloc() or demi_pop(), named by sga_buf, are sent from where they
 * are: the library holds the memory until the peer has acknowledged it. The array may be freed as soon as
 * this function has returned. If it is kept, its bytes must not be changed before they are acknowledged, or a
 * retransmission carries the changed ones: demi_ext_unshare() makes an array safe to write to again.
 * Segments in other memory (sga_buf is NULL) are copied before this function returns.
 *
 * Errors: EINVAL sga_numsegs is 0 or more than DEMI_SGARRAY_MAXSIZE, a segment is NULL with a length, sga_buf
 * is not the mark of live memory of this thread, or the segment runs past that memory; ENOBUFS. In the result: ENOTCONN;
 * EPIPE after a shutdown; EMSGSIZE a datagram is too long; ECONNRESET, ETIMEDOUT, ECANCELED and the like.
 */
extern int demi_push(_Out_ demi_qtoken_t *qt_out, _In_ int qd, _In_ const demi_sgarray_t *sga);

/**
 * Starts pushing a datagram to an address. Otherwise like demi_push(). In the result also: EINVAL the port is 0, or the
 * address is of another family than the socket; EADDRNOTAVAIL no address of ours to reach it from; ENETUNREACH; EACCES a
 * broadcast without SO_BROADCAST.
 */
extern int demi_pushto(_Out_ demi_qtoken_t *qt_out, _In_ int sockqd, _In_ const demi_sgarray_t *sga,
                       _In_reads_bytes_(size) const struct sockaddr *dest_addr, _In_ socklen_t size);

/**
 * Starts receiving. The result has the data in qr_value.sga, in one segment: as much of a stream as has
 * arrived in one piece of memory, or one datagram, with its sender in sga_addr. A length of 0 on a stream is its
 * end, and each further pop gives it again; on a datagram socket it is an empty datagram. The program
 * owns the array and gives it back with demi_sgafree(), the empty one too.
 *
 * Errors: ENOBUFS the program keeps too many arrays. In the result: ENOTCONN, ECONNRESET, ECANCELED, ENOBUFS.
 */
extern int demi_pop(_Out_ demi_qtoken_t *qt_out, _In_ int qd);

/**
 * Sets a socket option. Options with an int: SOL_SOCKET SO_KEEPALIVE, SO_SNDBUF, SO_RCVBUF, SO_REUSEADDR,
 * SO_REUSEPORT; IPPROTO_TCP TCP_NODELAY, TCP_CORK, TCP_QUICKACK, TCP_MAXSEG, TCP_USER_TIMEOUT (milliseconds),
 * TCP_KEEPIDLE and TCP_KEEPINTVL (1 to 32767 seconds), TCP_KEEPCNT (1 to 127),
 * DEMI_EXT_TCP_USER_TIMEOUT_OPTION (of demi/ext.h: tell the peer of that time, and heed the peer's, RFC 5482),
 * TCP_FASTOPEN (connections of a listener that are handed over with the data of their SYN), TCP_FASTOPEN_CONNECT (what is
 * pushed first rides on the SYN, once the server gave a cookie; connecting completes at once then);
 * IPPROTO_IP IP_TTL, IP_TOS; IPPROTO_IPV6 IPV6_UNICAST_HOPS, IPV6_TCLASS (the upper six bits with streams).
 * With a name: IPPROTO_TCP TCP_CONGESTION ("cubic", "reno", "dctcp", "bbr"). With a struct linger: SOL_SOCKET SO_LINGER.
 * They mean what POSIX and Linux say, but for two: TCP_QUICKACK stays until it is taken back, and
 * when the time of SO_LINGER is over, the connection is reset.
 * SO_REUSEADDR and SO_REUSEPORT count when demi_bind() is called; datagram sockets that set either share a port.
 *
 * Datagram sockets have SOL_SOCKET SO_BROADCAST; IPPROTO_IP IP_MTU_DISCOVER, IP_MULTICAST_LOOP and IP_MULTICAST_TTL (an int or a
 * byte), IP_MULTICAST_IF (an address, a struct ip_mreq or ip_mreqn), IP_ADD_MEMBERSHIP and IP_DROP_MEMBERSHIP (a
 * struct ip_mreq or ip_mreqn), IP_ADD_SOURCE_MEMBERSHIP, IP_DROP_SOURCE_MEMBERSHIP, IP_BLOCK_SOURCE and IP_UNBLOCK_SOURCE (a
 * struct ip_mreq_source); IPPROTO_IPV6 IPV6_MTU_DISCOVER, IPV6_MULTICAST_LOOP, IPV6_MULTICAST_HOPS, IPV6_MULTICAST_IF,
 * IPV6_JOIN_GROUP and IPV6_LEAVE_GROUP (a struct ipv6_mreq); and for both MCAST_JOIN_GROUP and MCAST_LEAVE_GROUP (a struct
 * group_req), MCAST_JOIN_SOURCE_GROUP, MCAST_LEAVE_SOURCE_GROUP, MCAST_BLOCK_SOURCE and MCAST_UNBLOCK_SOURCE (a struct
 * group_source_req), MCAST_MSFILTER (a struct group_filter) and IPPROTO_IP IP_MSFILTER (a struct ip_msfilter), which put a whole
 * list in the place of what the socket wanted of a group, and join it for that or leave it. There is one interface, whose index is 1; 0 means any. A socket receives what
 * goes to the groups that it joined itself, and no others; of a group that it joined with sources, what these send. Groups in
 * 232.0.0.0/8 and ff3x::/32 are only joined with a source.
 *
 * Errors: EINVAL optlen is too small for the value, or the value is out of range or names nothing; ENOPROTOOPT no such option on
 * this queue; of groups EADDRINUSE the socket is in it already, EADDRNOTAVAIL it is not in it, or the source is named already or was not,
 * or no such address of ours, EINVAL a source of a group that was joined as a whole is joined, or one of a group that was not is blocked,
 * ENODEV no such interface, ENOBUFS too many groups or sources (64 of one group).
 */
extern int demi_setsockopt(_In_ int qd, _In_ int level, _In_ int optname,
                           _In_reads_bytes_(optlen) const void *optval, _In_ socklen_t optlen);

/**
 * Reads a socket option: those of demi_setsockopt() but for memberships (MCAST_MSFILTER and IP_MSFILTER store as many sources
 * as the structure's count says it has room for, and how many there are), IPPROTO_IP IP_MTU and IPPROTO_IPV6
 * IPV6_MTU of a connected datagram socket, SOL_SOCKET SO_ERROR, which is the pending error and
 * is cleared by reading it, and IPPROTO_TCP TCP_INFO, which is Linux's struct tcp_info up to tcpi_snd_wnd, cut to the
 * room there is (counts of segments are computed from bytes, and what is not known is 0). *optlen is the room at optval, and on return the bytes of the value.
 *
 * Errors: EINVAL there is too little room; ENOPROTOOPT no such option on this queue.
 */
extern int demi_getsockopt(_In_ int qd, _In_ int level, _In_ int optname,
                           _Out_writes_to_(optlen, *optlen) void *optval, _Inout_ socklen_t *optlen);

/**
 * Stores the address of the connected peer. *addrlen is the room at addr, and on return the full size of the
 * address: when that is more than the room, the stored address was cut.
 *
 * Errors: EINVAL; ENOTCONN.
 */
extern int demi_getpeername(_In_ int qd, _Out_writes_to_(addrlen, *addrlen) struct sockaddr *addr,
                            _Inout_ socklen_t *addrlen);

/** Stores the local address of a socket. Otherwise like demi_getpeername(). */
extern int demi_getsockname(_In_ int qd, _Out_writes_to_(addrlen, *addrlen) struct sockaddr *addr,
                            _Inout_ socklen_t *addrlen);

#ifdef __cplusplus
}
#endif

#endif /* DEMI_LIBOS_H_IS_INCLUDED */
