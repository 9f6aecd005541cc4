//! A veth pair whose far end is in a network namespace of its own: two ends of the kernel's.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::link::run;
use crate::scenario::Failure;

/// Address of the near end.
pub const NEAR: &str = "10.7.0.1";
/// Address of the far end.
pub const FAR: &str = "10.7.0.2";
/// The far end's interface.
pub const FAR_INTERFACE: &str = "peer-far";

/// Nothing on one machine takes that long.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A process that is ended with its owner.
pub struct Ended(pub Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Neither fails but for a process that is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether the pair carries large frames without checksums, as between two ends of one machine, or whole packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offloads {
    On,
    Off,
}

/// The pair.
pub struct KernelPair {
    /// Keeps the far namespace.
    keeper: Ended,
}

impl KernelPair {
    /// Makes the pair.
    ///
    /// # Errors
    /// [`Failure`] with the command that failed.
    pub fn new(offloads: Offloads) -> Result<Self, Failure> {
        let keeper = Ended(Command::new("unshare").args(["-n", "sleep", "600"]).spawn()?);
        let id = keeper.0.id();
        until("a second network namespace", || {
            let network = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
            network(&id.to_string()).is_some_and(|other| Some(other) != network("self"))
        })?;
        run("ip link set lo up")?;
        run(&format!("ip link add peer-near type veth peer name {FAR_INTERFACE} netns {id}"))?;
        run(&format!("ip address add {NEAR}/24 dev peer-near"))?;
        run("ip link set peer-near up")?;
        run(&format!("nsenter -t {id} -n ip address add {FAR}/24 dev {FAR_INTERFACE}"))?;
        run(&format!("nsenter -t {id} -n ip link set {FAR_INTERFACE} up"))?;
        if offloads == Offloads::Off {
            run("ethtool -K peer-near tx off")?;
            run(&format!("nsenter -t {id} -n ethtool -K {FAR_INTERFACE} tx off"))?;
        }
        Ok(Self { keeper })
    }

    /// The process that holds the far namespace.
    pub fn far_process(&self) -> u32 {
        self.keeper.0.id()
    }

    /// Moves the calling thread into the far namespace of a pair whose [`Self::far_process`] this is: its sockets are
    /// made there.
    ///
    /// # Errors
    /// What the system answers.
    pub fn enter_far(process: u32) -> io::Result<()> {
        let namespace = File::open(format!("/proc/{process}/ns/net"))?;
        // SAFETY: an open descriptor; the calling thread alone is moved.
        let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Waits for something that comes within seconds.
///
/// # Errors
/// [`Failure`] when it does not come.
pub fn until(what: &str, condition: impl Fn() -> bool) -> Result<(), Failure> {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() > end {
            return Err(format!("{what} does not come").into());
        }
        sleep(LOOK_EVERY);
    }
    Ok(())
}
