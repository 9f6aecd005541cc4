//! The library OSes of the two processes.

use std::net::SocketAddr;
use std::path::Path;

use catnip_os::libos::{
    Config, Domain, Error, LibOs, Outcome, QueueDescriptor, ScatterGather, SocketKind, SocketOption, Token,
};

use crate::scenario::Failure;

/// Which process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Shares its memory.
    Client,
    /// Maps it.
    Server,
}

const PORT: u16 = 7;

impl Role {
    /// Where this process is.
    pub fn address(self) -> SocketAddr {
        let host = if self == Self::Client { 1 } else { 2 };
        ([10, 88, 0, host], PORT).into()
    }
}

/// A library OS on the link.
pub fn open(role: Role, socket: &Path) -> Result<LibOs, Failure> {
    let text = format!(
        "[libos]\nidle = \"spin\"\n[runtime]\nkind = \"vhost\"\n[vhost]\nsocket = \"{}\"\nrole = \"{}\"\n\
         [stack]\naddresses = [\"{}/24\"]\n",
        socket.display(),
        if role == Role::Client { "front" } else { "back" },
        role.address().ip(),
    );
    Ok(catnip_os::open(&Config::from_toml_str("bench", &text)?)?)
}

pub fn socket(libos: &LibOs, kind: SocketKind) -> Result<QueueDescriptor, Error> {
    let queue = libos.socket(Domain::Ipv4, kind)?;
    if kind == SocketKind::Stream {
        libos.set_option(queue, SocketOption::NoDelay(true))?;
    }
    Ok(queue)
}

/// What a pop brought, with whom it came from.
#[inline]
pub fn popped(libos: &LibOs, pop: Token) -> Result<(ScatterGather, Option<SocketAddr>), Failure> {
    match libos.wait(pop, None)?.outcome {
        Outcome::Popped { data, from } => Ok((data, from)),
        other => Err(format!("a pop brought {other:?}").into()),
    }
}

/// Waits for an operation that brings nothing.
#[inline]
pub fn done(libos: &LibOs, token: Token) -> Result<(), Failure> {
    match libos.wait(token, None)?.outcome {
        Outcome::Pushed | Outcome::Connected | Outcome::Closed => Ok(()),
        other => Err(format!("an operation ended with {other:?}").into()),
    }
}

/// The next connection to a listening socket.
pub fn accepted(libos: &LibOs, listener: QueueDescriptor) -> Result<QueueDescriptor, Failure> {
    match libos.wait(libos.accept(listener)?, None)?.outcome {
        Outcome::Accepted { queue, .. } => Ok(queue),
        other => Err(format!("an accept ended with {other:?}").into()),
    }
}

/// A connection to the server.
pub fn connected(libos: &LibOs) -> Result<QueueDescriptor, Failure> {
    let queue = socket(libos, SocketKind::Stream)?;
    done(libos, libos.connect(queue, Role::Server.address())?)?;
    Ok(queue)
}
