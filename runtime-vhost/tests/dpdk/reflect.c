/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Sends every frame back on the queue that it came from, with its two Ethernet addresses exchanged and nothing
 * else changed: what tests of a link to DPDK compare payloads with.
 *
 *   reflect EAL-ARGUMENTS -- QUEUES
 *
 * Prints "ready" once port 0 runs, and ends with SIGTERM.
 */
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_mbuf.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#define BURST 32
#define DESCRIPTORS 256

static volatile sig_atomic_t stopped;

static void stop(int signal_number)
{
    (void)signal_number;
    stopped = 1;
}

static void check(int result, const char *call)
{
    if (result < 0) {
        fprintf(stderr, "%s: %s\n", call, rte_strerror(-result));
        exit(EXIT_FAILURE);
    }
}

static void exchange_addresses(struct rte_mbuf *frame)
{
    struct rte_ether_hdr *header = rte_pktmbuf_mtod(frame, struct rte_ether_hdr *);
    struct rte_ether_addr destination = header->dst_addr;
    header->dst_addr = header->src_addr;
    header->src_addr = destination;
}

int main(int argc, char *argv[])
{
    int used = rte_eal_init(argc, argv);
    check(used, "rte_eal_init");
    int queues = used + 1 < argc ? atoi(argv[used + 1]) : 1;
    signal(SIGTERM, stop);

    struct rte_eth_conf conf = {0};
    struct rte_mempool *pool = rte_pktmbuf_pool_create("frames", 4095, 64, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
    check(pool == NULL ? -rte_errno : 0, "rte_pktmbuf_pool_create");
    check(rte_eth_dev_configure(0, queues, queues, &conf), "rte_eth_dev_configure");
    for (int queue = 0; queue < queues; queue++) {
        check(rte_eth_rx_queue_setup(0, queue, DESCRIPTORS, SOCKET_ID_ANY, NULL, pool), "rte_eth_rx_queue_setup");
        check(rte_eth_tx_queue_setup(0, queue, DESCRIPTORS, SOCKET_ID_ANY, NULL), "rte_eth_tx_queue_setup");
    }
    check(rte_eth_dev_start(0), "rte_eth_dev_start");
    printf("ready\n");
    fflush(stdout);

    while (!stopped) {
        for (int queue = 0; queue < queues; queue++) {
            struct rte_mbuf *frames[BURST];
            uint16_t count = rte_eth_rx_burst(0, queue, frames, BURST);
            for (uint16_t i = 0; i < count; i++)
                exchange_addresses(frames[i]);
            for (uint16_t sent = 0; sent < count && !stopped;)
                sent += rte_eth_tx_burst(0, queue, frames + sent, count - sent);
        }
    }
    check(rte_eth_dev_stop(0), "rte_eth_dev_stop");
    rte_eal_cleanup();
    return EXIT_SUCCESS;
}
