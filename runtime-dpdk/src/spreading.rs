//! Which queue a device hands the frames of a flow to.

use dpdk_sys as sys;

/// Bytes of a hash key that covers both ends of an IPv6 flow.
pub const HASH_KEY_BYTES: usize = 40;

/// Entries in one part of a table, as DPDK passes it around.
const PART_ENTRIES: usize = 64;

/// The hash key and the table by which a port with several queues is to choose one for each flow, so that a flow's frames
/// arrive on the core that it belongs to. What a device cannot be told, the cores do among themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spreading {
    /// The key of the Toeplitz hash.
    pub key: [u8; HASH_KEY_BYTES],
    /// The queue of each remainder that the hash leaves when it is divided by the table's length.
    pub queues: Vec<u16>,
}

impl Spreading {
    /// The key in as many bytes as the device wants; None when it wants fewer than there are. What is behind the
    /// first 40 is multiplied by bytes that no flow has.
    pub(crate) fn key_of(&self, device_bytes: u8) -> Option<Box<[u8]>> {
        // Drivers that do not say how many take 40.
        let bytes = if device_bytes == 0 { HASH_KEY_BYTES } else { usize::from(device_bytes) };
        let mut key = self.key.to_vec();
        (bytes >= key.len()).then(|| {
            key.resize(bytes, 0);
            key.into()
        })
    }

    /// Fills the started device's table, of so many entries; false when it has none, or one in which ours does not fit.
    pub(crate) fn apply(&self, port: u16, device_entries: u16) -> bool {
        let entries = usize::from(device_entries);
        if self.queues.is_empty() || entries == 0 || !entries.is_multiple_of(self.queues.len()) {
            return false;
        }
        let mut parts: Vec<sys::rte_eth_rss_reta_entry64> = (0..entries.div_ceil(PART_ENTRIES))
            .map(|_| sys::rte_eth_rss_reta_entry64 { mask: 0, reta: [0; PART_ENTRIES] })
            .collect();
        for (entry, queue) in self.queues.iter().cycle().take(entries).enumerate() {
            let part = &mut parts[entry / PART_ENTRIES];
            part.mask |= 1 << (entry % PART_ENTRIES);
            part.reta[entry % PART_ENTRIES] = *queue;
        }
        // SAFETY: the port is valid, and there are parts for as many entries.
        unsafe { sys::rte_eth_dev_rss_reta_update(port, parts.as_mut_ptr(), device_entries) == 0 }
    }

    /// Tells the started device the key, for these kinds of packets: some drivers do not take it with the port's
    /// configuration. False when this one does not take it at all.
    pub(crate) fn tell_key(port: u16, key: &[u8], functions: u64) -> bool {
        let mut conf = sys::rte_eth_rss_conf {
            // DPDK reads it alone.
            rss_key: key.as_ptr().cast_mut(),
            rss_key_len: key.len() as u8,
            rss_hf: functions,
        };
        // SAFETY: the port is valid, and the key as long as it says.
        unsafe { sys::rte_eth_dev_rss_hash_update(port, &raw mut conf) == 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_as_long_as_the_device_wants_it_or_not_used() {
        let spreading = Spreading { key: [7; HASH_KEY_BYTES], queues: vec![0, 1] };
        let len = |device_bytes| {
            spreading.key_of(device_bytes).map(|key| (key.len(), key[39], key.get(40).copied()))
        };
        assert_eq!(len(0), Some((40, 7, None)));
        assert_eq!(len(40), Some((40, 7, None)));
        assert_eq!(len(52), Some((52, 7, Some(0))));
        assert_eq!(len(39), None);
    }

    #[test]
    fn a_table_that_does_not_fit_the_devices_is_not_told() {
        let spreading = |entries| Spreading { key: [7; HASH_KEY_BYTES], queues: vec![0; entries] };
        for (ours, device) in [(0, 128), (128, 0), (128, 64), (128, 192)] {
            assert!(!spreading(ours).apply(u16::MAX, device), "{ours} in {device}");
        }
    }
}
