//! Drivers whose other end is another DPDK process.

use std::env;

use crate::echo::{metric, nothing_is_copied};
use crate::processes::{CLIENT, Link, exchange, open};
use crate::{lossy, namespace};

#[test]
fn memif_carries_echoes_between_processes() {
    namespace::enter("-Urn", || {
        let link = Link {
            server: "net_memif0,role=server,socket=SOCKET,socket-abstract=no",
            client: "net_memif0,role=client,socket=SOCKET,socket-abstract=no",
        };
        exchange(&link, open, nothing_is_copied);
    });
}

#[test]
fn memif_without_a_copy_of_its_own_delivers_what_was_sent() {
    namespace::enter("-Urn", || {
        let link = Link {
            server: "net_memif0,role=server,socket=SOCKET,socket-abstract=no",
            client: "net_memif0,role=client,socket=SOCKET,socket-abstract=no,zero-copy=yes",
        };
        exchange(&link, open, nothing_is_copied);
    });
}

#[test]
fn a_vhost_port_and_a_virtio_user_port_exchange_echoes() {
    namespace::enter("-Urn", || {
        let link = Link {
            server: "net_vhost0,iface=SOCKET,queues=1",
            client: "virtio_user0,path=SOCKET,queues=1,packed_vq=1",
        };
        exchange(&link, open, nothing_is_copied);
    });
}

/// The device reads the client's buffers where they are, the client frees them at once and writes over what it gets
/// next, and one frame of forty is lost: what arrives is right only if each buffer stayed until it was acknowledged.
#[test]
fn what_is_freed_and_sent_again_under_loss_arrives_as_it_was() {
    namespace::enter("-Urn", || {
        let link =
            Link { server: "net_vhost0,iface=SOCKET,queues=1", client: "virtio_user0,path=SOCKET,queues=1" };
        exchange(&link, lossy::open, |libos| {
            nothing_is_copied(libos);
            if env::var_os(CLIENT).is_some() {
                assert!(metric(libos, "catnip.tcp.retransmitted_segments") > 10);
            }
        });
    });
}
