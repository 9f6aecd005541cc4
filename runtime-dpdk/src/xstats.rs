//! The port's own statistics.

use std::ffi::CStr;
use std::ptr;

use dpdk_sys as sys;
use libos::metrics::MetricsSink;

/// Most statistics of a port that are asked for; more are left out.
const MAX_XSTATS: usize = 4096;

/// Writes what the driver counts, under its own names. Slow, as drivers may have to ask the device.
pub(crate) fn write(port: u16, sink: &mut dyn MetricsSink) {
    // SAFETY: without room, the calls only say how much they need.
    let count = unsafe { sys::rte_eth_xstats_get_names(port, ptr::null_mut(), 0) };
    let count = usize::try_from(count).unwrap_or(0).min(MAX_XSTATS);
    let mut names = vec![sys::rte_eth_xstat_name { name: [0; 64] }; count];
    let mut values = vec![sys::rte_eth_xstat { id: 0, value: 0 }; count];
    // SAFETY: there is room for `count` of each.
    let (named, counted) = unsafe {
        (
            sys::rte_eth_xstats_get_names(port, names.as_mut_ptr(), count as u32),
            sys::rte_eth_xstats_get(port, values.as_mut_ptr(), count as u32),
        )
    };
    let within = |got: i32| usize::try_from(got).unwrap_or(0).min(count);
    let names = &names[..within(named)];
    for value in &values[..within(counted)] {
        let Some(name) = names.get(value.id as usize) else { continue };
        let bytes = name.name.map(|letter| letter as u8);
        if let Some(name) = CStr::from_bytes_until_nul(&bytes).ok().and_then(|name| name.to_str().ok()) {
            sink.counter(name, value.value);
        }
    }
}
