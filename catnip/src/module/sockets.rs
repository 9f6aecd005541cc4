//! Sockets as the library OS sees them: what is behind a handle, and what may be set on it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::Poll;

use libos::{
    Domain, Error, FilterMode, GroupMembership, Handle, Instant, QueueDescriptor, Runtime, ScatterGather,
    Shutdown, SocketKind, SocketOption, SocketOptionName, Token,
};

use super::StackModule;
use super::datagrams;
use super::fifo::Fifo;
use crate::events::{ConnectionId, ListenerId, UdpId};
use crate::slab::Key;
use crate::tcp::{TcpBinding, TcpOptions};

/// A stream socket that is neither listening nor connected.
#[derive(Debug)]
pub(super) struct Fresh {
    pub domain: Domain,
    pub binding: Option<TcpBinding>,
    pub options: Box<TcpOptions>,
}

/// A stream socket with a connection, or on its way to one.
#[derive(Debug)]
pub(super) struct Stream {
    pub id: ConnectionId,
    pub connect: Option<Token>,
    pub pushes: Fifo<ScatterGather>,
    /// Whose pops wait for data, once one did.
    pub popped_as: Option<QueueDescriptor>,
}

impl Stream {
    pub(super) fn new(id: ConnectionId) -> Self {
        Self { id, connect: None, pushes: Fifo::default(), popped_as: None }
    }
}

/// A datagram socket. It has its stack's socket from its first `bind`, `connect`, push or pop on.
#[derive(Debug)]
pub(super) struct Datagram {
    pub domain: Domain,
    pub id: Option<UdpId>,
    /// The stack's socket from when an option was set or read until it is bound.
    pub unbound: Option<UdpId>,
    pub pushes: Fifo<(ScatterGather, Option<SocketAddr>)>,
    /// It is among the module's blocked sockets, which it stays until they are tried again.
    pub is_blocked: bool,
    /// Whose pops wait for datagrams, once one did.
    pub popped_as: Option<QueueDescriptor>,
}

/// What is behind a handle.
#[derive(Debug)]
pub(super) enum Socket {
    Fresh(Fresh),
    Listener {
        id: ListenerId,
        accepts: Fifo<()>,
    },
    Stream(Stream),
    Datagram(Datagram),
    /// A stream that lingers: its descriptor is gone, and the close waits for its end.
    Closing {
        id: ConnectionId,
        close: Token,
    },
}

impl Socket {
    /// Forgets an outstanding operation other than a pop.
    pub(super) fn cancel(&mut self, token: Token) {
        match self {
            Self::Fresh(_) | Self::Closing { .. } => {}
            Self::Listener { accepts, .. } => accepts.remove(token),
            Self::Stream(stream) => {
                if stream.connect == Some(token) {
                    stream.connect = None;
                }
                stream.pushes.remove(token);
            }
            Self::Datagram(datagram) => datagram.pushes.remove(token),
        }
    }
}

/// The address that stands for all of the domain's.
pub(super) const fn any_address(domain: Domain) -> SocketAddr {
    match domain {
        Domain::Ipv4 => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        Domain::Ipv6 => SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
    }
}

/// An address of the other family than the socket's is a mistake of the program.
pub(super) fn check_family(domain: Domain, address: SocketAddr) -> Result<(), Error> {
    if (domain == Domain::Ipv4) == address.is_ipv4() { Ok(()) } else { Err(Error::InvalidArgument) }
}

impl<R: Runtime> StackModule<R> {
    pub(super) fn new_socket(&mut self, domain: Domain, kind: SocketKind) -> Result<Handle, Error> {
        let socket = match kind {
            SocketKind::Stream => Socket::Fresh(Fresh {
                domain,
                binding: None,
                options: Box::new(self.stack.default_tcp_options().clone()),
            }),
            SocketKind::Datagram => Socket::Datagram(Datagram {
                domain,
                id: None,
                unbound: None,
                pushes: Fifo::default(),
                is_blocked: false,
                popped_as: None,
            }),
        };
        self.sockets.insert(socket).map(|key| Handle(key.to_bits())).ok_or(Error::TooManyConnections)
    }

    pub(super) fn bind_socket(&mut self, handle: Handle, local: SocketAddr) -> Result<(), Error> {
        let socket = self.sockets.get_mut(Key::from_bits(handle.0)).ok_or(Error::BadDescriptor)?;
        match socket {
            Socket::Fresh(fresh) => {
                check_family(fresh.domain, local)?;
                if fresh.binding.is_some() {
                    return Err(Error::InvalidArgument);
                }
                fresh.binding = Some(self.stack.stir().tcp_bind_shared(local, fresh.options.reuse)?);
                Ok(())
            }
            Socket::Datagram(datagram) => {
                check_family(datagram.domain, local)?;
                if datagram.id.is_some() {
                    return Err(Error::InvalidArgument);
                }
                datagrams::bind(self.stack.stir(), Key::from_bits(handle.0), datagram, local).map(drop)
            }
            Socket::Listener { .. } | Socket::Stream(_) => Err(Error::InvalidArgument),
            Socket::Closing { .. } => Err(Error::BadDescriptor),
        }
    }

    pub(super) fn listen_on(&mut self, handle: Handle, backlog: usize) -> Result<(), Error> {
        let socket = self.sockets.get_mut(Key::from_bits(handle.0)).ok_or(Error::BadDescriptor)?;
        match socket {
            Socket::Fresh(fresh) => {
                if fresh.binding.is_none() {
                    let any = any_address(fresh.domain);
                    fresh.binding = Some(self.stack.stir().tcp_bind_shared(any, fresh.options.reuse)?);
                }
                // A program whose port somebody else listens on keeps it, and may try again.
                let id = self.stack.stir().tcp_listen_bound(&mut fresh.binding, backlog, &fresh.options)?;
                self.stack.stir().tcp_set_listener_user_data(id, handle.0);
                *socket = Socket::Listener { id, accepts: Fifo::default() };
                Ok(())
            }
            Socket::Listener { .. } | Socket::Stream(_) => Err(Error::InvalidArgument),
            Socket::Datagram(_) => Err(Error::NotSupported),
            Socket::Closing { .. } => Err(Error::BadDescriptor),
        }
    }

    pub(super) fn shut_down(&mut self, handle: Handle, how: Shutdown) -> Result<(), Error> {
        match self.socket_of(handle)? {
            Socket::Stream(stream) => {
                let id = stream.id;
                self.stack.stir().tcp_shutdown(id, how)
            }
            Socket::Fresh(_) | Socket::Listener { .. } => Err(Error::NotConnected),
            Socket::Datagram(_) => Err(Error::NotSupported),
            Socket::Closing { .. } => Err(Error::BadDescriptor),
        }
    }

    pub(super) fn set_socket_option(&mut self, handle: Handle, option: SocketOption) -> Result<(), Error> {
        match self.sockets.get_mut(Key::from_bits(handle.0)).ok_or(Error::BadDescriptor)? {
            Socket::Fresh(fresh) => fresh.options.set(option),
            Socket::Stream(stream) => self.stack.stir().tcp_set_option(stream.id, option),
            Socket::Listener { id, .. } => self.stack.stir().tcp_set_listener_option(*id, option),
            Socket::Datagram(datagram) => {
                let id = datagrams::socket_for_options(self.stack.stir(), datagram)?;
                self.stack.stir().udp_set_option(id, option)
            }
            Socket::Closing { .. } => Err(Error::BadDescriptor),
        }
    }

    pub(super) fn socket_option(
        &mut self,
        handle: Handle,
        name: SocketOptionName,
    ) -> Result<SocketOption, Error> {
        match self.sockets.get_mut(Key::from_bits(handle.0)).ok_or(Error::BadDescriptor)? {
            Socket::Fresh(fresh) => fresh.options.get(name),
            Socket::Stream(stream) => self.stack.stir().tcp_option(stream.id, name),
            Socket::Listener { id, .. } => self.stack.stir().tcp_listener_option(*id, name),
            Socket::Datagram(datagram) => {
                let id = datagrams::socket_for_options(self.stack.stir(), datagram)?;
                self.stack.stir().udp_option(id, name)
            }
            Socket::Closing { .. } => Err(Error::BadDescriptor),
        }
    }

    pub(super) fn set_filter(
        &mut self,
        handle: Handle,
        group: GroupMembership,
        mode: FilterMode,
        sources: &[IpAddr],
    ) -> Result<(), Error> {
        let id = self.group_socket(handle)?;
        self.stack.stir().udp_set_source_filter(id, group, mode, sources)
    }

    pub(super) fn filter_of(
        &mut self,
        handle: Handle,
        group: GroupMembership,
    ) -> Result<(FilterMode, Vec<IpAddr>), Error> {
        let id = self.group_socket(handle)?;
        self.stack.udp_source_filter(id, group).map(|filter| (filter.mode(), filter.sources().to_vec()))
    }

    /// A socket that joins groups.
    fn group_socket(&mut self, handle: Handle) -> Result<UdpId, Error> {
        match self.sockets.get_mut(Key::from_bits(handle.0)).ok_or(Error::BadDescriptor)? {
            Socket::Datagram(datagram) => datagrams::socket_for_options(self.stack.stir(), datagram),
            Socket::Fresh(_) | Socket::Stream(_) | Socket::Listener { .. } => Err(Error::NotSupported),
            Socket::Closing { .. } => Err(Error::BadDescriptor),
        }
    }

    pub(super) fn address_of(&self, handle: Handle) -> Result<SocketAddr, Error> {
        match self.sockets.get(Key::from_bits(handle.0)).ok_or(Error::BadDescriptor)? {
            Socket::Fresh(fresh) => {
                Ok(fresh.binding.as_ref().map_or(any_address(fresh.domain), TcpBinding::local))
            }
            Socket::Listener { id, .. } => self.stack.tcp_listener_address(*id),
            Socket::Stream(stream) => self.stack.tcp_local_address(stream.id),
            Socket::Datagram(datagram) => match datagram.id {
                Some(id) => self.stack.udp_local_address(id),
                None => Ok(any_address(datagram.domain)),
            },
            Socket::Closing { .. } => Err(Error::BadDescriptor),
        }
    }

    pub(super) fn peer_of(&self, handle: Handle) -> Result<SocketAddr, Error> {
        match self.sockets.get(Key::from_bits(handle.0)).ok_or(Error::BadDescriptor)? {
            Socket::Fresh(_) | Socket::Listener { .. } => Err(Error::NotConnected),
            Socket::Stream(stream) => self.stack.tcp_remote_address(stream.id),
            Socket::Datagram(datagram) => {
                let id = datagram.id.ok_or(Error::NotConnected)?;
                self.stack.udp_remote_address(id)
            }
            Socket::Closing { .. } => Err(Error::BadDescriptor),
        }
    }

    /// Closes a stream that lingers, or another socket.
    pub(super) fn close_socket_for(
        &mut self,
        now: Instant,
        handle: Handle,
        close: Token,
    ) -> Poll<Result<(), Error>> {
        let key = Key::from_bits(handle.0);
        if let Some(socket @ Socket::Stream(_)) = self.sockets.get_mut(key)
            && let Socket::Stream(Stream { id, .. }) = *socket
            && self.stack.stir().tcp_close_awaited(now, id)
        {
            *socket = Socket::Closing { id, close };
            return Poll::Pending;
        }
        self.close_socket(now, handle);
        Poll::Ready(Ok(()))
    }

    pub(super) fn close_socket(&mut self, now: Instant, handle: Handle) {
        match self.sockets.remove(Key::from_bits(handle.0)) {
            Some(Socket::Fresh(fresh)) => {
                if let Some(binding) = fresh.binding {
                    self.stack.stir().tcp_unbind(binding);
                }
            }
            Some(Socket::Listener { id, .. }) => self.stack.stir().tcp_close_listener(now, id),
            Some(Socket::Stream(stream)) => self.stack.stir().tcp_close(now, stream.id),
            Some(Socket::Datagram(datagram)) => {
                if let Some(id) = datagram.id.or(datagram.unbound) {
                    self.stack.stir().udp_close(id);
                }
            }
            // It has no handle by which it could be closed again.
            Some(Socket::Closing { .. }) | None => {}
        }
    }
}
