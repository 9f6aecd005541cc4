/* What bindgen reads: the headers of DPDK, and as functions what they have as macros. */
#include <rte_config.h>

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_interrupts.h>
#include <rte_lcore.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_mbuf_pool_ops.h>
#include <rte_memory.h>
#include <rte_mempool.h>
#include <rte_version.h>

/* The calling thread's error number, which DPDK keeps in a thread-local variable behind a macro. */
static inline int catnip_rte_errno(void)
{
	return rte_errno;
}

/* Flags that the headers define by means of other macros, which bindgen does not evaluate. */
#define CATNIP_FLAG(name) static const uint64_t CATNIP_##name = name

CATNIP_FLAG(RTE_ETH_RX_OFFLOAD_SCATTER);
CATNIP_FLAG(RTE_ETH_RX_OFFLOAD_TCP_CKSUM);
CATNIP_FLAG(RTE_ETH_RX_OFFLOAD_TCP_LRO);
CATNIP_FLAG(RTE_ETH_RX_OFFLOAD_UDP_CKSUM);
CATNIP_FLAG(RTE_ETH_TX_OFFLOAD_IPV4_CKSUM);
CATNIP_FLAG(RTE_ETH_TX_OFFLOAD_MULTI_SEGS);
CATNIP_FLAG(RTE_ETH_TX_OFFLOAD_TCP_CKSUM);
CATNIP_FLAG(RTE_ETH_TX_OFFLOAD_TCP_TSO);
CATNIP_FLAG(RTE_ETH_TX_OFFLOAD_UDP_CKSUM);
CATNIP_FLAG(RTE_ETH_RSS_IP);
CATNIP_FLAG(RTE_ETH_RSS_TCP);
CATNIP_FLAG(RTE_ETH_RSS_UDP);
CATNIP_FLAG(RTE_MBUF_F_EXTERNAL);
CATNIP_FLAG(RTE_MBUF_F_RX_L4_CKSUM_GOOD);
CATNIP_FLAG(RTE_MBUF_F_RX_L4_CKSUM_MASK);
CATNIP_FLAG(RTE_MBUF_F_RX_L4_CKSUM_NONE);
CATNIP_FLAG(RTE_MBUF_F_RX_LRO);
CATNIP_FLAG(RTE_MBUF_F_TX_IPV4);
CATNIP_FLAG(RTE_MBUF_F_TX_IPV6);
CATNIP_FLAG(RTE_MBUF_F_TX_IP_CKSUM);
CATNIP_FLAG(RTE_MBUF_F_TX_TCP_CKSUM);
CATNIP_FLAG(RTE_MBUF_F_TX_TCP_SEG);
CATNIP_FLAG(RTE_MBUF_F_TX_UDP_CKSUM);

/* What is read of one mbuf of a received frame. Releases differ in how they lay the fields out. */
struct catnip_segment {
	uint8_t *data;
	struct rte_mbuf *next;
	struct rte_mempool *pool;
	uint64_t flags;
	uint16_t bytes;
	/* Payload bytes of each of the segments that the device joined. */
	uint16_t segment_bytes;
};

static inline void catnip_mbuf_segment(const struct rte_mbuf *mbuf, struct catnip_segment *segment)
{
	segment->data = rte_pktmbuf_mtod(mbuf, uint8_t *);
	segment->next = mbuf->next;
	segment->pool = mbuf->pool;
	segment->flags = mbuf->ol_flags;
	segment->bytes = mbuf->data_len;
	segment->segment_bytes = mbuf->tso_segsz;
}

/* Receives a burst, and reads the first mbuf of each frame. What will be looked at next is fetched meanwhile: the frame's
 * headers, and the memory behind the mbuf that its pool was made with room for. */
static inline uint16_t catnip_receive(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs,
				      struct catnip_segment *segments, uint16_t limit)
{
	uint16_t count = rte_eth_rx_burst(port, queue, mbufs, limit);

	for (uint16_t at = 0; at < count; at++) {
		catnip_mbuf_segment(mbufs[at], &segments[at]);
		rte_prefetch0(segments[at].data);
		rte_prefetch0(rte_mbuf_to_priv(mbufs[at]));
	}
	return count;
}

/* A pool of mbufs that lie in one piece of memory without gaps: of others, none lies across the end of a page. */
static inline struct rte_mempool *catnip_pool_in_one_piece(const char *name, uint32_t count, uint32_t cache,
							   uint16_t room, int socket)
{
	struct rte_pktmbuf_pool_private about = { .mbuf_data_room_size = room };
	unsigned int bytes = sizeof(struct rte_mbuf) + room;
	struct rte_mempool *pool = rte_mempool_create_empty(name, count, bytes, cache, sizeof(about), socket,
							    RTE_MEMPOOL_F_NO_IOVA_CONTIG);
	int result;

	if (pool == NULL)
		return NULL;
	result = rte_mempool_set_ops_byname(pool, rte_mbuf_best_mempool_ops(), NULL);
	if (result == 0) {
		rte_pktmbuf_pool_init(pool, &about);
		result = rte_mempool_populate_default(pool);
	}
	if (result >= 0 && pool->nb_mem_chunks != 1)
		result = -ENOMEM;
	if (result < 0) {
		rte_mempool_free(pool);
		rte_errno = -result;
		return NULL;
	}
	rte_mempool_obj_iter(pool, rte_pktmbuf_init, NULL);
	return pool;
}

/* Points a free mbuf at other memory, which the device knows by the same address. */
static inline void catnip_mbuf_place(struct rte_mbuf *mbuf, void *buffer, uint16_t bytes)
{
	mbuf->buf_addr = buffer;
#if RTE_VERSION < RTE_VERSION_NUM(22, 11, 0, 0)
	mbuf->buf_iova = (rte_iova_t)(uintptr_t)buffer;
#else
	rte_mbuf_iova_set(mbuf, (rte_iova_t)(uintptr_t)buffer);
#endif
	mbuf->buf_len = bytes;
}

/* Gives mbufs of received frames back to their pool at once, each pointed at another buffer where there is one for it. */
static inline void catnip_mbufs_recycle(struct rte_mempool *pool, struct rte_mbuf **mbufs, void *const *buffers,
					uint16_t room, uint16_t count)
{
	for (uint16_t at = 0; at < count; at++) {
		if (buffers[at] != NULL)
			catnip_mbuf_place(mbufs[at], buffers[at], room);
		mbufs[at]->next = NULL;
		mbufs[at]->nb_segs = 1;
	}
	rte_mempool_put_bulk(pool, (void *const *)mbufs, count);
}

/* A piece of a frame to be sent: a new mbuf, the one behind it, and what it refers to, unless it has bytes of its own. */
struct catnip_piece {
	struct rte_mbuf *mbuf;
	struct rte_mbuf *next;
	void *data;
	struct rte_mbuf_ext_shared_info *shared;
	uint16_t bytes;
};

/* Lets new mbufs refer to memory that the device knows by the same address, and strings them together. */
static inline void catnip_mbufs_attach(const struct catnip_piece *pieces, uint32_t count)
{
	for (const struct catnip_piece *piece = pieces; piece < pieces + count; piece++) {
		if (piece->shared != NULL) {
			rte_pktmbuf_attach_extbuf(piece->mbuf, piece->data, (rte_iova_t)(uintptr_t)piece->data,
						  piece->bytes, piece->shared);
			piece->mbuf->data_len = piece->bytes;
		}
		piece->mbuf->next = piece->next;
	}
}

/* Room of a new mbuf's own, of which `bytes` will be filled. */
static inline uint8_t *catnip_mbuf_append(struct rte_mbuf *mbuf, uint16_t bytes)
{
	mbuf->data_len = bytes;
	return rte_pktmbuf_mtod(mbuf, uint8_t *);
}

/* What a frame is as a whole. */
struct catnip_frame {
	struct rte_mbuf *head;
	uint64_t flags;
	uint32_t bytes;
	uint16_t segments;
	uint16_t link_header_bytes;
	uint16_t network_header_bytes;
	uint16_t transport_header_bytes;
	uint16_t segment_bytes;
};

/* Tells the first mbuf of each frame. */
static inline void catnip_mbufs_describe(const struct catnip_frame *frames, uint32_t count)
{
	for (const struct catnip_frame *frame = frames; frame < frames + count; frame++) {
		struct rte_mbuf *mbuf = frame->head;

		mbuf->pkt_len = frame->bytes;
		mbuf->nb_segs = frame->segments;
		mbuf->ol_flags |= frame->flags;
		mbuf->tx_offload = rte_mbuf_tx_offload(frame->link_header_bytes, frame->network_header_bytes,
						       frame->transport_header_bytes, frame->segment_bytes, 0, 0,
						       0);
	}
}
