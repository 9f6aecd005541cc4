//! Catnip as a contender: two library OSes, each with a stack on one end of a pipe.

mod crowd;
mod datagrams;
mod echo;
mod flood;
mod idle;
mod losses;
mod pair;
mod stream;

pub use idle::IdleConnections;

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
        Work::Losses => Box::new(losses::Losses::new(scenario)?),
        Work::SynFlood => Box::new(flood::Flood::new()?),
        Work::IdlePoll => Box::new(idle::IdlePoll::new(scenario)?),
    })
}
