//! A device that is gone: whatever waits for it ends with an error, and whatever would need it fails at once.

use libos::module::Completions;
use libos::{Error, Instant, Outcome, Runtime};

use super::StackModule;
use super::sockets::Socket;

impl<R: Runtime> StackModule<R> {
    /// Why the device failed, as far as it says.
    pub(super) fn device_failure(&self) -> String {
        let runtime = &self.runtime;
        runtime.failure().unwrap_or_else(|| format!("{}: the device failed", runtime.name()))
    }

    /// The device has said that no frame will ever move again. Every connection ends with an error, once;
    /// what it had received stays readable.
    #[cold]
    pub(super) fn on_device_failure(&mut self, now: Instant, completions: &mut Completions) {
        self.stack.stir().frames().clear();
        if self.device_failed {
            return;
        }
        self.device_failed = true;
        log::error!("{}; its connections are lost", self.device_failure());
        self.stack.stir().fail_all(now, Error::DeviceFailed);
        self.dispatch(completions);
        for (_, socket) in self.sockets.iter_mut() {
            fail_waiting(socket, completions);
        }
        self.blocked.clear();
    }
}

/// Ends what waits for something that a connection has no part in.
fn fail_waiting(socket: &mut Socket, completions: &mut Completions) {
    let fail = |completions: &mut Completions, token| {
        completions.complete(token, Outcome::Failed(Error::DeviceFailed));
    };
    match socket {
        // A connection's own error has ended its operations.
        Socket::Fresh(_) | Socket::Stream(_) | Socket::Closing { .. } => {}
        Socket::Listener { accepts, .. } => {
            while let Some((token, ())) = accepts.pop() {
                fail(completions, token);
            }
        }
        Socket::Datagram(datagram) => {
            while let Some((token, _)) = datagram.pushes.pop() {
                fail(completions, token);
            }
            while let Some(pop) = datagram.popped_as.and_then(|queue| completions.waiting_pop(queue)) {
                completions.pop_failed(pop, Error::DeviceFailed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::SocketAddr;
    use std::os::fd::{AsRawFd, RawFd};
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;
    use std::time::Duration;

    use libos::memory::ArenaConfig;
    use libos::metrics::MetricsSink;
    use libos::runtime::{Capabilities, Medium, RxBatch, TxChecksum};
    use libos::{Arena, Config, Domain, FrameBatch, LibOs, QueueDescriptor, SocketKind, Token};

    use super::*;
    use crate::{Stack, StackConfig};

    /// A device that takes everything and gives nothing, until it breaks.
    struct Breakable {
        broken: Rc<Cell<bool>>,
        /// Its other end is closed, so it is readable for ever, as a device that was taken away is.
        wake: UnixStream,
    }

    impl Breakable {
        fn state(&self) -> Result<(), Error> {
            if self.broken.get() { Err(Error::DeviceFailed) } else { Ok(()) }
        }
    }

    impl Runtime for Breakable {
        fn name(&self) -> &str {
            "breakable"
        }

        fn capabilities(&self) -> Capabilities {
            Capabilities {
                medium: Medium::Ip,
                hardware_address: [0; 6],
                mtu: 1500,
                tx_checksum: TxChecksum::Software,
                tcp_segmentation_bytes: 0,
                max_segments: 4,
            }
        }

        fn receive(&mut self, _now: Instant, _batch: &mut RxBatch) -> Result<(), Error> {
            self.state()
        }

        fn transmit(&mut self, _now: Instant, batch: &mut FrameBatch) -> Result<(), Error> {
            batch.clear();
            self.state()
        }

        fn wake_fd(&self) -> Option<RawFd> {
            Some(self.wake.as_raw_fd())
        }

        fn failure(&self) -> Option<String> {
            self.broken.get().then(|| "breakable: somebody broke it".to_owned())
        }

        fn metrics(&self, _sink: &mut dyn MetricsSink) {}
    }

    fn open() -> (LibOs, Rc<Cell<bool>>) {
        let arena = Arena::new(&ArenaConfig { region_bytes: 16 << 20, hugepages: false }).unwrap();
        let sleepy = Config::new().set("libos.idle", "sleep");
        let libos = LibOs::builder().config(&sleepy).arena(arena.clone()).build().unwrap();
        let broken = Rc::new(Cell::new(false));
        let (wake, _) = UnixStream::pair().unwrap();
        let device = Breakable { broken: broken.clone(), wake };
        let config = StackConfig::new(device.capabilities()).with_address("192.0.2.1/24".parse().unwrap());
        let stack = Stack::new(&config, arena, 1, libos.now()).unwrap();
        libos.install(StackModule::new(stack, device)).unwrap();
        (libos, broken)
    }

    fn socket(libos: &LibOs, kind: SocketKind, port: u16) -> QueueDescriptor {
        let queue = libos.socket(Domain::Ipv4, kind).unwrap();
        libos.bind(queue, SocketAddr::from(([192, 0, 2, 1], port))).unwrap();
        queue
    }

    /// One operation of each kind that can wait for the device.
    fn start_all(libos: &LibOs, first_port: u16) -> [Token; 3] {
        let listener = socket(libos, SocketKind::Stream, first_port);
        libos.listen(listener, 1).unwrap();
        let datagrams = socket(libos, SocketKind::Datagram, first_port);
        let client = socket(libos, SocketKind::Stream, first_port + 1);
        let peer = SocketAddr::from(([192, 0, 2, 2], 80));
        [libos.accept(listener).unwrap(), libos.pop(datagrams).unwrap(), libos.connect(client, peer).unwrap()]
    }

    #[test]
    fn what_waits_for_a_device_that_fails_ends_with_its_error_and_so_does_what_comes_after() {
        let (libos, broken) = open();
        let waiting = start_all(&libos, 1000);
        assert!(waiting.iter().all(|token| libos.try_take(*token).unwrap().is_none()));
        assert_eq!(libos.device_failure(), Ok(None));
        broken.set(true);
        let later = |libos: &LibOs| start_all(libos, 2000);
        for tokens in [waiting, later(&libos)] {
            for completion in libos.wait_all(&tokens, Some(Duration::from_secs(5))).unwrap() {
                assert!(matches!(completion.outcome, Outcome::Failed(Error::DeviceFailed)), "{completion:?}");
            }
        }
        assert!(!libos.needs_poll());
        assert_eq!(libos.device_failure(), Ok(Some("breakable: somebody broke it".to_owned())));
    }

    #[test]
    fn a_failed_device_wakes_nobody() {
        const WAIT: Duration = Duration::from_millis(50);
        let (libos, broken) = open();
        let polls_of_a_wait = || {
            let before = libos.metrics().unwrap().value("libos.polls");
            libos.block_on(libos.sleep(WAIT)).unwrap();
            libos.metrics().unwrap().value("libos.polls") - before
        };
        assert!(polls_of_a_wait() > 100, "the device should wake every wait while it works");
        broken.set(true);
        libos.poll().unwrap();
        assert!(polls_of_a_wait() < 20);
    }
}
