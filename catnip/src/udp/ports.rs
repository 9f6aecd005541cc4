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
    first: Box<[u32; PORTS]>,
    connected: Box<[u32; PORTS]>,
}

impl PortTable {
    pub(super) fn new() -> Self {
        Self { first: zeros(), connected: zeros() }
    }

    /// The slab index of the first socket that takes datagrams from anybody.
    #[inline]
    pub(super) fn first(&self, port: u16) -> Option<u32> {
        self.first[usize::from(port)].checked_sub(1)
    }

    /// Puts another socket, or none, in the first's place.
    pub(super) fn set_first(&mut self, port: u16, index: Option<u32>) {
        // Slab indices stay below u32::MAX.
        self.first[usize::from(port)] = index.map_or(0, |index| index.saturating_add(1));
    }

    /// Number of connected sockets on the port.
    #[inline]
    pub(super) fn connected(&self, port: u16) -> u32 {
        self.connected[usize::from(port)]
    }

    pub(super) fn add_connected(&mut self, port: u16) {
        self.connected[usize::from(port)] += 1;
    }

    pub(super) fn remove_connected(&mut self, port: u16) {
        let count = &mut self.connected[usize::from(port)];
        *count = count.saturating_sub(1);
    }
}

/// A table of zeros, made in place: it is too large for some stacks.
fn zeros() -> Box<[u32; PORTS]> {
    vec![0; PORTS].into_boxed_slice().try_into().unwrap_or_else(|_| Box::new([0; PORTS]))
}
