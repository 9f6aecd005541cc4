//! The IOMMU's mappings, and what it reports.

use std::ffi::c_void;
use std::fs::OpenOptions;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::unix::fs::OpenOptionsExt;

use dpdk_sys as sys;
use libos::Arena;

/// Takes the mapping of an arena's region away from a port's device, without the runtime knowing.
pub fn unmap(port: u16, arena: &Arena) {
    let region = arena.region();
    let base = region.base().as_ptr();
    let mut info = MaybeUninit::<sys::rte_eth_dev_info>::zeroed();
    // SAFETY: the port is open; DPDK fills the structure, for which zeros are valid too.
    let info = unsafe {
        assert_eq!(sys::rte_eth_dev_info_get(port, info.as_mut_ptr()), 0);
        info.assume_init()
    };
    // SAFETY: the region was mapped so when the port was opened.
    let result =
        unsafe { sys::rte_dev_dma_unmap(info.device, base.cast::<c_void>(), base as u64, region.len()) };
    assert_eq!(result, 0, "the region was not mapped for port {port}");
}

/// How many accesses of this device the kernel's log has that the IOMMU stopped.
pub fn faults(device: &str) -> usize {
    let short = device.strip_prefix("0000:").unwrap_or(device);
    let mut log =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg").expect("needs root");
    let mut record = [0; 8192];
    let mut faults = 0;
    // One record a call, until there is none.
    while let Ok(len) = log.read(&mut record) {
        let line = String::from_utf8_lossy(&record[..len]);
        faults += usize::from(line.contains("DMAR") && line.contains(&format!("[{short}] fault addr")));
    }
    faults
}
