//! Who has which local port, found by indexing.

/// Ports that there are.
const PORTS: usize = 1 << 16;

/// For each port the sockets that take datagrams from anybody, as a list through the sockets
/// themselves, and the number of connected ones.
///
/// The tables are indexed by port. They are allocated as zeros, so memory is used only for the pages
/// whose ports are in use: 4 KiB for a thousand neighbouring ports, 512 KiB at most.
#[derive(Debug)]
pub(super) struct PortTable {
    first: Box<[u32]>,
    connected: Box<[u32]>,
}

impl PortTable {
    pub(super) fn new() -> Self {
        Self { first: vec![0; PORTS].into(), connected: vec![0; PORTS].into() }
    }

    /// The slab index of the first socket that takes datagrams from anybody.
    #[inline]
    pub(super) fn first(&self, port: u16) -> Option<u32> {
        self.first.get(usize::from(port)).and_then(|stored| stored.checked_sub(1))
    }

    /// Puts another socket, or none, in the first's place.
    pub(super) fn set_first(&mut self, port: u16, index: Option<u32>) {
        if let Some(stored) = self.first.get_mut(usize::from(port)) {
            // Slab indices stay below u32::MAX.
            *stored = index.map_or(0, |index| index.saturating_add(1));
        }
    }

    /// Number of connected sockets on the port.
    #[inline]
    pub(super) fn connected(&self, port: u16) -> u32 {
        self.connected.get(usize::from(port)).copied().unwrap_or(0)
    }

    pub(super) fn add_connected(&mut self, port: u16) {
        if let Some(count) = self.connected.get_mut(usize::from(port)) {
            *count += 1;
        }
    }

    pub(super) fn remove_connected(&mut self, port: u16) {
        if let Some(count) = self.connected.get_mut(usize::from(port)) {
            *count = count.saturating_sub(1);
        }
    }
}
