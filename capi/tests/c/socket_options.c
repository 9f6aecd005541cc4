/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Options of sockets: those with a value, and groups with their sources. */
#define _POSIX_C_SOURCE 200809L
#define _DEFAULT_SOURCE /* struct ip_mreq */

#include "sockets.h"

static void options_are_set_and_read(void)
{
    int qd = make_socket(SOCK_STREAM);
    int value = 1;
    socklen_t len = sizeof value;
    struct linger linger = {1, 5};
    struct linger read_linger = {0, 0};
    EXPECT_ERROR(demi_setsockopt(qd, IPPROTO_TCP, TCP_NODELAY, &value, sizeof value), 0);
    value = 0;
    EXPECT_ERROR(demi_getsockopt(qd, IPPROTO_TCP, TCP_NODELAY, &value, &len), 0);
    EXPECT(value, 1);
    EXPECT(len, sizeof value);
    EXPECT_ERROR(demi_setsockopt(qd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    len = sizeof read_linger;
    EXPECT_ERROR(demi_getsockopt(qd, SOL_SOCKET, SO_LINGER, &read_linger, &len), 0);
    EXPECT(read_linger.l_onoff, 1);
    EXPECT(read_linger.l_linger, 5);
    const int limit_ms = 30000;
    value = 1;
    EXPECT_ERROR(demi_setsockopt(qd, IPPROTO_TCP, TCP_USER_TIMEOUT, &limit_ms, sizeof limit_ms), 0);
    EXPECT_ERROR(demi_setsockopt(qd, IPPROTO_TCP, DEMI_EXT_TCP_USER_TIMEOUT_OPTION, &value, sizeof value), 0);
    value = 0;
    len = sizeof value;
    EXPECT_ERROR(demi_getsockopt(qd, IPPROTO_TCP, DEMI_EXT_TCP_USER_TIMEOUT_OPTION, &value, &len), 0);
    EXPECT(value, 1);
    const int keep_seconds = 30, no_seconds = 0;
    EXPECT_ERROR(demi_setsockopt(qd, IPPROTO_TCP, TCP_KEEPIDLE, &keep_seconds, sizeof keep_seconds), 0);
    EXPECT_ERROR(demi_setsockopt(qd, IPPROTO_TCP, TCP_KEEPIDLE, &no_seconds, sizeof no_seconds), EINVAL);
    len = sizeof value;
    EXPECT_ERROR(demi_getsockopt(qd, IPPROTO_TCP, TCP_KEEPIDLE, &value, &len), 0);
    EXPECT(value, 30);
    len = sizeof value;
    EXPECT_ERROR(demi_getsockopt(qd, IPPROTO_TCP, TCP_KEEPINTVL, &value, &len), 0);
    EXPECT(value, 75);
    len = sizeof value;
    EXPECT_ERROR(demi_getsockopt(qd, IPPROTO_TCP, TCP_KEEPCNT, &value, &len), 0);
    EXPECT(value, 9);
    len = sizeof value;
    EXPECT_ERROR(demi_getsockopt(qd, SOL_SOCKET, SO_ERROR, &value, &len), 0);
    EXPECT(value, 0);
    EXPECT_ERROR(demi_setsockopt(qd, SOL_SOCKET, SO_ERROR, &value, sizeof value), ENOPROTOOPT);
    close_queue(qd);
}

/* Groups are joined before the socket has an address, and left. */
static void groups_are_joined_and_left(void)
{
    int qd = make_socket(SOCK_DGRAM);
    struct ip_mreq v4 = {{0}, {INADDR_ANY}};
    struct ipv6_mreq v6 = {IN6ADDR_ANY_INIT, 0};
    inet_pton(AF_INET, "239.1.2.3", &v4.imr_multiaddr);
    inet_pton(AF_INET6, "ff05::1:3", &v6.ipv6mr_multiaddr);
    bool is_v4 = host.ss_family == AF_INET;
    const void *membership = is_v4 ? (const void *)&v4 : &v6;
    socklen_t size = is_v4 ? sizeof v4 : sizeof v6;
    int level = is_v4 ? IPPROTO_IP : IPPROTO_IPV6;
    int join = is_v4 ? IP_ADD_MEMBERSHIP : IPV6_JOIN_GROUP;
    int leave = is_v4 ? IP_DROP_MEMBERSHIP : IPV6_LEAVE_GROUP;
    EXPECT_ERROR(demi_setsockopt(qd, level, join, membership, 4), EINVAL);
    EXPECT_ERROR(demi_setsockopt(qd, level, join, membership, size), 0);
    EXPECT_ERROR(demi_setsockopt(qd, level, join, membership, size), EADDRINUSE);
    EXPECT_ERROR(demi_setsockopt(qd, level, leave, membership, size), 0);
    EXPECT_ERROR(demi_setsockopt(qd, level, leave, membership, size), EADDRNOTAVAIL);

    const unsigned char hops = 7;
    int hops_option = is_v4 ? IP_MULTICAST_TTL : IPV6_MULTICAST_HOPS;
    EXPECT_ERROR(demi_setsockopt(qd, level, hops_option, &hops, sizeof hops), 0);
    int value = 0;
    socklen_t len = sizeof value;
    EXPECT_ERROR(demi_getsockopt(qd, level, hops_option, &value, &len), 0);
    EXPECT(value, 7);
    EXPECT_ERROR(demi_getsockopt(qd, level, join, &value, &len), ENOPROTOOPT);
    close_queue(qd);
}

/* A group is joined for what one source sends, and one source of a group is blocked. */
static void sources_of_groups_are_joined_and_blocked(void)
{
    int qd = make_socket(SOCK_DGRAM);
    bool is_v4 = host.ss_family == AF_INET;
    int level = is_v4 ? IPPROTO_IP : IPPROTO_IPV6;
    struct group_source_req source = {0};
    source.gsr_group.ss_family = source.gsr_source.ss_family = host.ss_family;
    if (is_v4) {
        inet_pton(AF_INET, "232.1.2.3", &((struct sockaddr_in *)&source.gsr_group)->sin_addr);
        inet_pton(AF_INET, "198.51.100.7", &((struct sockaddr_in *)&source.gsr_source)->sin_addr);
    } else {
        inet_pton(AF_INET6, "ff35::8000:1", &((struct sockaddr_in6 *)&source.gsr_group)->sin6_addr);
        inet_pton(AF_INET6, "2001:db8::7", &((struct sockaddr_in6 *)&source.gsr_source)->sin6_addr);
    }
    struct group_req group = {0};
    group.gr_group = source.gsr_group;
    /* Such groups have only sources by name. */
    EXPECT_ERROR(demi_setsockopt(qd, level, MCAST_JOIN_GROUP, &group, sizeof group), EINVAL);
    EXPECT_ERROR(demi_setsockopt(qd, level, MCAST_JOIN_SOURCE_GROUP, &source, 100), EINVAL);
    EXPECT_ERROR(demi_setsockopt(qd, level, MCAST_JOIN_SOURCE_GROUP, &source, sizeof source), 0);
    EXPECT_ERROR(demi_setsockopt(qd, level, MCAST_JOIN_SOURCE_GROUP, &source, sizeof source), EADDRNOTAVAIL);
    EXPECT_ERROR(demi_setsockopt(qd, level, MCAST_BLOCK_SOURCE, &source, sizeof source), EINVAL);
    EXPECT_ERROR(demi_setsockopt(qd, level, MCAST_LEAVE_SOURCE_GROUP, &source, sizeof source), 0);
    EXPECT_ERROR(demi_setsockopt(qd, level, MCAST_LEAVE_GROUP, &group, sizeof group), EADDRNOTAVAIL);
    struct group_filter list = {0}, back = {0};
    socklen_t len = sizeof back;
    list.gf_group = back.gf_group = source.gsr_group;
    list.gf_fmode = MCAST_INCLUDE;
    list.gf_numsrc = 1;
    list.gf_slist[0] = source.gsr_source;
    EXPECT_ERROR(demi_getsockopt(qd, level, MCAST_MSFILTER, &back, &len), EADDRNOTAVAIL);
    EXPECT_ERROR(demi_setsockopt(qd, level, MCAST_MSFILTER, &list, GROUP_FILTER_SIZE(1) - 1), EINVAL);
    EXPECT_ERROR(demi_setsockopt(qd, level, MCAST_MSFILTER, &list, GROUP_FILTER_SIZE(1)), 0);
    back.gf_fmode = 77;
    EXPECT_ERROR(demi_getsockopt(qd, level, MCAST_MSFILTER, &back, &len), 0);
    EXPECT(len, GROUP_FILTER_SIZE(0));
    EXPECT(back.gf_fmode, MCAST_INCLUDE);
    EXPECT(back.gf_numsrc, 1);
    len = sizeof back;
    EXPECT_ERROR(demi_getsockopt(qd, level, MCAST_MSFILTER, &back, &len), 0);
    EXPECT(len, GROUP_FILTER_SIZE(1));
    EXPECT(memcmp(&back.gf_slist[0], &list.gf_slist[0], sizeof list.gf_slist[0]), 0);
    list.gf_fmode = MCAST_EXCLUDE;
    EXPECT_ERROR(demi_setsockopt(qd, level, MCAST_MSFILTER, &list, GROUP_FILTER_SIZE(1)), EINVAL);
    list.gf_fmode = MCAST_INCLUDE;
    list.gf_numsrc = 0;
    EXPECT_ERROR(demi_setsockopt(qd, level, MCAST_MSFILTER, &list, GROUP_FILTER_SIZE(0)), 0);
    EXPECT_ERROR(demi_getsockopt(qd, level, MCAST_MSFILTER, &back, &len), EADDRNOTAVAIL);
    int stream = make_socket(SOCK_STREAM);
    EXPECT_ERROR(demi_getsockopt(stream, level, MCAST_MSFILTER, &back, &len), ENOPROTOOPT);
    close_queue(stream);
    if (is_v4) {
        struct ip_mreq wide = {{0}, {INADDR_ANY}};
        struct ip_mreq_source blocked = {{0}, {INADDR_ANY}, {0}};
        inet_pton(AF_INET, "239.1.2.3", &wide.imr_multiaddr);
        inet_pton(AF_INET, "198.51.100.7", &blocked.imr_sourceaddr);
        blocked.imr_multiaddr = wide.imr_multiaddr;
        EXPECT_ERROR(demi_setsockopt(qd, level, IP_ADD_MEMBERSHIP, &wide, sizeof wide), 0);
        EXPECT_ERROR(demi_setsockopt(qd, level, IP_BLOCK_SOURCE, &blocked, sizeof blocked), 0);
        EXPECT_ERROR(demi_setsockopt(qd, level, IP_UNBLOCK_SOURCE, &blocked, sizeof blocked), 0);
        EXPECT_ERROR(demi_setsockopt(qd, level, IP_ADD_SOURCE_MEMBERSHIP, &blocked, sizeof blocked), EINVAL);
    }
    close_queue(qd);
}

int main(int argc, char *argv[])
{
    begin(argc, argv);
    options_are_set_and_read();
    groups_are_joined_and_left();
    sources_of_groups_are_joined_and_blocked();
    EXPECT_ERROR(demi_ext_fini(), 0);
    return expect_failures != 0;
}
