//! The runtime: frames between one queue and the stack.

use std::os::fd::{AsFd, AsRawFd, RawFd};

use libos::metrics::MetricsSink;
use libos::runtime::{Medium, MemoryAccess, RxBatch, TxChecksum};
use libos::{Arena, Capabilities, Error, FrameBatch, Instant, Runtime, SetupError};

use super::attach::{XdpQueue, failed, reason};
use super::config::XdpConfig;
use super::counters::XdpCounters;
use super::mode::XdpMode;
use super::receive::Receiver;
use super::socket::{Quiesce, XskSocket, chunk_bytes};
use super::transmit::Transmitter;
use crate::interface::{self, Watch};
use crate::system::{bpf, socket, xsk};

/// The kernel is reminded after this time of what it left in the transmit ring, though nothing wakes the library OS.
const REMIND_AFTER_NS: u64 = 1_000_000;

/// One queue of an interface: a [`Runtime`] for the thread whose memory it was given.
#[derive(Debug)]
pub struct Xdp {
    // Closed first: until then the kernel and the device use the memory that the fields below hold.
    socket: XskSocket,
    _quiesce: Quiesce,
    receiver: Receiver,
    transmitter: Transmitter,
    queue: XdpQueue,
    mode: XdpMode,
    busy_poll: bool,
    watch: Watch,
    polled_at: Instant,
    counters: XdpCounters,
}

impl Xdp {
    /// Opens queues of an interface, one runtime each, that all serve the calling thread. For queues on several
    /// threads see [`XdpQueue::open`].
    ///
    /// # Errors
    /// As [`XdpQueue::open`] and [`Self::new`].
    pub fn open(config: &XdpConfig, arena: &Arena) -> Result<Vec<Self>, SetupError> {
        XdpQueue::open(config)?.into_iter().map(|queue| Self::new(queue, arena)).collect()
    }

    /// Makes a runtime of a queue. The arena's whole region is registered with the kernel, which keeps it in memory.
    ///
    /// # Errors
    /// [`SetupError::Device`] with the call that failed and what would help.
    pub fn new(queue: XdpQueue, arena: &Arena) -> Result<Self, SetupError> {
        let chunk = chunk_bytes(queue.attached.attachment.mtu);
        let may_be_device = queue.config.zero_copy && queue.attached.native;
        // In the opposite order of the fields above: when a step fails, what was declared last goes first.
        let mut receiver = Receiver::new(arena, chunk, 2 * queue.config.receive_ring, may_be_device);
        let mut quiesce = Quiesce { queue: None, arena: arena.clone() };
        let mut socket = XskSocket::new(&queue, arena.region())?;
        let mut counters = XdpCounters::default();
        receiver.fill(&mut socket, &mut counters);
        let mut mode = socket.bind(&queue)?;
        quiesce.queue = mode.zero_copy.then(|| queue.clone());
        receiver.set_page_bound(mode.zero_copy);
        let busy_poll = match queue.config.busy_poll_us {
            0 => false,
            busy_poll_us => match socket.prefer_busy_poll(busy_poll_us) {
                Ok(()) => true,
                Err(error) => {
                    mode.refused.push(format!("busy polling was refused: {error}"));
                    false
                }
            },
        };
        bpf::put_socket(queue.attached.sockets.as_fd(), queue.queue, socket.fd.as_fd())
            .map_err(|error| failed(&queue.config, "BPF_MAP_UPDATE_ELEM", reason(&error)))?;
        let level = if mode.falls_short_of(&queue.config) { log::Level::Warn } else { log::Level::Info };
        log::log!(level, "{}, queue {}: {mode}", queue.config.interface, queue.queue);
        let transmitter = Transmitter::new(arena, &mode, chunk, queue.config.transmit_ring);
        let (watch, polled_at) = (Watch::default(), Instant::ZERO);
        Ok(Self {
            socket,
            _quiesce: quiesce,
            receiver,
            transmitter,
            queue,
            mode,
            busy_poll,
            watch,
            polled_at,
            counters,
        })
    }

    /// How frames come and go, and why not better.
    #[must_use]
    pub fn mode(&self) -> &XdpMode {
        &self.mode
    }

    /// What this queue has counted.
    #[must_use]
    pub fn counters(&self) -> XdpCounters {
        self.counters
    }

    /// The kernel did not look at the transmit ring. A link that is down keeps what is in the ring until it is up.
    #[cold]
    fn refusal(&mut self) -> Result<(), Error> {
        self.transmitter.kick_left = true;
        let attached = &self.queue.attached;
        interface::look(attached.filter.as_fd(), attached.attachment.link.index)
    }

    /// When nothing arrived.
    fn idle(&mut self, now: Instant) -> Result<(), Error> {
        if self.busy_poll || self.socket.fill.needs_wakeup() {
            xsk::kick_receive(self.socket.fd.as_fd());
        }
        if self.transmitter.kick_left
            && self.transmitter.kick(&mut self.socket, 0, &mut self.counters).is_err()
        {
            self.refusal()?;
        }
        let attached = &self.queue.attached;
        self.watch.look(now, attached.filter.as_fd(), attached.attachment.link.index)
    }
}

impl Runtime for Xdp {
    fn name(&self) -> &str {
        &self.queue.config.interface
    }

    fn capabilities(&self) -> Capabilities {
        let attachment = &self.queue.attached.attachment;
        Capabilities {
            medium: Medium::Ethernet,
            hardware_address: attachment.hardware_address,
            mtu: attachment.mtu,
            tx_checksum: TxChecksum::Software,
            tcp_segmentation_bytes: 0,
            max_segments: self.transmitter.max_segments(),
        }
    }

    fn memory_access(&self) -> MemoryAccess {
        if self.mode.zero_copy { MemoryAccess::Dma } else { MemoryAccess::Copy }
    }

    fn receive(&mut self, now: Instant, batch: &mut RxBatch) -> Result<(), Error> {
        let before = batch.len();
        self.polled_at = now;
        self.transmitter.reap(&mut self.socket);
        self.receiver.receive(&mut self.socket, batch, &mut self.counters);
        if batch.len() > before { Ok(()) } else { self.idle(now) }
    }

    fn transmit(&mut self, now: Instant, batch: &mut FrameBatch) -> Result<(), Error> {
        self.polled_at = now;
        match self.transmitter.transmit(&mut self.socket, batch, &mut self.counters) {
            Ok(()) => Ok(()),
            Err(_) => self.refusal(),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        if self.transmitter.kick_left {
            return Some(self.polled_at.plus_nanos(REMIND_AFTER_NS));
        }
        self.watch.next_deadline()
    }

    fn wake_fd(&self) -> Option<RawFd> {
        Some(self.socket.fd.as_raw_fd())
    }

    fn metrics(&self, sink: &mut dyn MetricsSink) {
        self.counters.write_all(self.mode.zero_copy, sink);
        sink.gauge("native_mode", u64::from(self.mode.native));
        sink.gauge("multi_buffer", u64::from(self.mode.multi_buffer));
        let fd = self.socket.fd.as_fd();
        let Ok(kernel) = socket::option::<libc::xdp_statistics>(fd, libc::SOL_XDP, libc::XDP_STATISTICS)
        else {
            return;
        };
        for (name, value) in [
            ("kernel_rx_dropped", kernel.rx_dropped),
            ("kernel_rx_invalid", kernel.rx_invalid_descs),
            ("kernel_rx_ring_full", kernel.rx_ring_full),
            ("kernel_rx_fill_ring_empty", kernel.rx_fill_ring_empty_descs),
            ("kernel_tx_invalid", kernel.tx_invalid_descs),
        ] {
            sink.counter(name, value);
        }
    }
}
