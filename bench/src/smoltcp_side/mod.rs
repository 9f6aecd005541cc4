//! smoltcp as a contender: two interfaces on in-memory queues, driven as its documentation shows, with
//! `Interface::poll` and no finer knowledge of what a poll will find.

mod datagrams;
mod device;
mod echo;
mod host;
mod idle;
mod stream;

use crate::scenario::{Failure, Scenario, Subject, Work};

/// Sets the scenario up.
///
/// # Errors
/// [`Failure`] when it cannot be.
pub fn build(scenario: &Scenario) -> Result<Box<dyn Subject>, Failure> {
    Ok(match scenario.work {
        Work::TcpEcho => Box::new(echo::TcpEcho::new(scenario)?),
        Work::UdpEcho => Box::new(echo::UdpEcho::new(scenario)?),
        Work::Stream => Box::new(stream::Stream::new(scenario)?),
        Work::Datagrams => Box::new(datagrams::Datagrams::new(scenario)?),
        Work::Losses => return Err("losses are measured of Catnip alone".into()),
        Work::SynFlood => return Err("floods are measured of Catnip alone".into()),
        Work::IdlePoll => Box::new(idle::IdlePoll::new(scenario)?),
    })
}
