//! What drivers do with memory that is not DPDK's own: delivery differs, return codes don't.

use libos::MemoryAccess;

use crate::config::MemoryPolicy;
use crate::pools::PoolLayout;

/// Drivers of virtual devices, as `rte_eth_dev_info` names them, for which it was found out by comparing payloads.
const VIRTUAL_DRIVERS: [(&str, MemoryAccess); 8] = [
    // Their copies are made by the processor, which reads any memory.
    ("net_tap", MemoryAccess::Dma),
    ("net_af_packet", MemoryAccess::Dma),
    ("net_null", MemoryAccess::Dma),
    ("net_ring", MemoryAccess::Dma),
    // Their peers map DPDK's memory, and no other: frames in other memory are lost without a word.
    ("net_memif", MemoryAccess::RuntimeHeapOnly),
    ("net_virtio_user", MemoryAccess::RuntimeHeapOnly),
    // The processor copies between our memory and the guest's.
    ("net_vhost", MemoryAccess::Dma),
    // Sends other bytes than those of an attached buffer.
    ("net_af_xdp", MemoryAccess::Copy),
];

/// What a port of this driver is given. `physical` is true on a bus whose devices reach memory through an IOMMU or by
/// its physical address.
pub(crate) fn memory_access(policy: MemoryPolicy, driver: &str, physical: bool) -> MemoryAccess {
    match policy {
        MemoryPolicy::Dma => MemoryAccess::Dma,
        MemoryPolicy::RuntimeHeap => MemoryAccess::RuntimeHeapOnly,
        MemoryPolicy::Copy => MemoryAccess::Copy,
        MemoryPolicy::Auto => match VIRTUAL_DRIVERS.iter().find(|(name, _)| *name == driver) {
            Some((_, access)) => *access,
            None if physical => MemoryAccess::Dma,
            None => MemoryAccess::Copy,
        },
    }
}

/// True for a driver whose port has the Ethernet address of the kernel's interface at its other end, and passes its own
/// on to it. Two ends of a link need two: the stack's is another one, which the port is not told.
pub(crate) fn mirrors_address(driver: &str) -> bool {
    driver == "net_tap"
}

/// True for a driver that offers to cut frames and then refuses to: it takes the link's header for part of the MTU, so that
/// segments of a full MTU are too large for it, makes no more than 64 of a frame, and none of IPv6, which it sends whole. One of
/// those below net_failsafe may be such.
pub(crate) fn refuses_to_cut(driver: &str) -> bool {
    matches!(driver, "net_tap" | "net_failsafe")
}

/// True for a driver that lets itself be configured with receive interrupts and then does not start: it wants a thread of DPDK's
/// services for them.
pub(crate) fn refuses_interrupts(driver: &str) -> bool {
    driver == "net_failsafe"
}

/// True for a device whose driver tells its peer of all memory that DPDK knows, and fails on what is not DPDK's own: that has no file
/// which it could pass on.
pub(crate) fn shares_all_memory(device: &str) -> bool {
    ["virtio_user", "net_virtio_user"].iter().any(|name| device.starts_with(name))
}

/// True for a driver that asks its peer when it is asked for statistics or waiting frames: without one it complains of that on standard
/// error.
pub(crate) fn needs_a_peer(driver: &str) -> bool {
    driver == "net_vhost"
}

/// Buffers that the driver takes at the start for each receive queue, however many descriptors that was to have; 0 for as
/// many as descriptors.
pub(crate) fn first_receive_buffers(driver: &str) -> usize {
    if driver == "net_af_xdp" { 2048 } else { 0 }
}

/// How a driver wants the mbufs to lie that it receives into: one maps as much memory as they take one behind the other, and what lies
/// behind that, for the gaps between them, is refused by the kernel without a word.
pub(crate) fn pool_layout(driver: &str) -> PoolLayout {
    if driver == "net_af_xdp" { PoolLayout::OnePiece } else { PoolLayout::Any }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_get_the_memory_that_they_deliver_from() {
        for (driver, physical, access) in [
            ("net_tap", false, MemoryAccess::Dma),
            ("net_memif", false, MemoryAccess::RuntimeHeapOnly),
            ("net_af_xdp", false, MemoryAccess::Copy),
            ("net_unheard_of", false, MemoryAccess::Copy),
            ("net_e1000_em", true, MemoryAccess::Dma),
        ] {
            assert_eq!(memory_access(MemoryPolicy::Auto, driver, physical), access, "{driver}");
            assert_eq!(memory_access(MemoryPolicy::Copy, driver, physical), MemoryAccess::Copy);
            assert_eq!(memory_access(MemoryPolicy::Dma, driver, physical), MemoryAccess::Dma);
            let heap = memory_access(MemoryPolicy::RuntimeHeap, driver, physical);
            assert_eq!(heap, MemoryAccess::RuntimeHeapOnly);
        }
    }
}
