//! Typed sockets over a module of pipes.

mod datagrams;
mod pipes;
mod streams;

use std::net::{Ipv4Addr, SocketAddr};

use crate::LibOs;
use crate::library_os::test_support::arena;
use pipes::Pipes;

fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A library OS whose streams hold `limit` bytes in each direction.
fn libos(limit: usize) -> LibOs {
    let libos = LibOs::builder().arena(arena()).build().unwrap();
    libos.install(Pipes::new(limit)).unwrap();
    libos
}
