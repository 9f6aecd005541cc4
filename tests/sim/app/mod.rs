//! Applications: small state machines over a host's sockets.

mod stream;
mod tcp;
mod udp;

use libos::Instant;

pub use self::stream::{Ending, Plan, Side, Silence};
pub use self::tcp::{Forgives, TcpClient, TcpServer, Workload};
pub use self::udp::{UdpEchoClient, UdpEchoServer};
use crate::host::Host;

/// An application of one host.
pub trait App {
    /// Does what can be done now; true when something was.
    fn step(&mut self, host: &mut dyn Host, now: Instant) -> bool;
    /// When it goes on by itself after `now`.
    fn deadline(&self, now: Instant) -> Option<Instant>;
    /// True when it has nothing more to do.
    fn is_done(&self) -> bool;
    /// Gives its listening sockets back, after all applications are done.
    fn end(&mut self, host: &mut dyn Host);
    /// Where it stands, for a report of a run that does not end.
    fn describe(&self) -> String;
}
