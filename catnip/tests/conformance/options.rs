//! Options of segments behind the handshake (RFC 7323, RFC 2018, RFC 9293, section 3.2).

use std::time::Duration;

use libos::{Shutdown, SocketOption};

use crate::host::{Host, PEER_PORT, PORT, Peer};
use crate::wire::{ACK, FAMILIES, FIN, PSH, RST, SYN, Tcp, URG};

const MSS_1000: [u8; 4] = [2, 4, 3, 232];
const TIMESTAMPS: u8 = 8;
/// The option's bytes as RFC 7323, appendix A recommends them.
const TIMESTAMPS_LEAD: [u8; 4] = [1, 1, 8, 10];
const SACK: u8 = 5;

fn timestamp(value: u32) -> Vec<u8> {
    [&TIMESTAMPS_LEAD[..], &value.to_be_bytes(), &[0; 4]].concat()
}

/// What brings a segment of each kind about, and its flags.
type Cause = (&'static str, u8, fn(&mut Host, &Peer, catnip::events::ConnectionId));

const CAUSES: [Cause; 11] = [
    ("data", ACK | PSH, |host, _, id| assert_eq!(host.send(id, b"data"), Ok(4))),
    ("an acknowledgment", ACK, |host, peer, _| {
        host.inject(&peer.packet(&peer.segment(ACK | PSH, 1, 1, b"data")));
        host.pass_ms(50);
    }),
    ("a challenge", ACK, |host, peer, _| host.inject(&peer.packet(&peer.segment(SYN, 1, 0, b"")))),
    ("a retransmission", ACK | PSH, |host, _, id| {
        host.send(id, b"data").unwrap();
        host.segments();
        host.pass_ms(300);
    }),
    ("a FIN", ACK | FIN, |host, _, id| {
        host.stack.tcp_shutdown(id, Shutdown::Write).unwrap();
        host.turn();
    }),
    ("a FIN again", ACK | FIN, |host, _, id| {
        host.close(id);
        host.segments();
        host.pass_ms(300);
    }),
    ("a probe of an idle peer", ACK, |host, _, id| {
        host.stack.tcp_set_option(id, SocketOption::KeepAliveIdle(Duration::from_secs(1))).unwrap();
        host.stack.tcp_set_option(id, SocketOption::KeepAlive(true)).unwrap();
        host.pass_ms(1_010);
    }),
    ("a probe of a closed window", ACK | PSH, |host, peer, id| {
        host.inject(&peer.packet(&Tcp { window: 0, ..peer.segment(ACK, 1, 1, b"") }));
        host.send(id, b"d").unwrap();
        host.pass_ms(300);
    }),
    ("a window update", ACK, |host, peer, id| {
        for at in 0..4 {
            host.inject(&peer.packet(&peer.segment(ACK | PSH, 1 + at * 1_000, 1, &[1; 1_000])));
        }
        host.pass_ms(50);
        host.segments();
        host.read(id).unwrap();
    }),
    ("a reset for unread data", RST | ACK, |host, peer, id| {
        host.inject(&peer.packet(&peer.segment(ACK | PSH, 1, 1, b"data")));
        host.close(id);
    }),
    ("a reset by the program", RST | ACK, |host, _, id| {
        host.stack.tcp_abort(host.now(), id);
        host.turn();
    }),
];

#[test]
fn every_segment_carries_the_timestamps_that_were_agreed_on() {
    let small = "tcp.receive_buffer_bytes = 4000\ntcp.receive_buffer_max_bytes = 4000";
    for family in FAMILIES {
        for (name, flags, cause) in CAUSES {
            for (offer, wanted) in [(timestamp(7), Some(7_u32)), (MSS_1000.to_vec(), None)] {
                let (mut host, mut peer, id) = Peer::opened(family, small, &offer, &[]);
                peer.options = if wanted.is_some() { timestamp(7) } else { Vec::new() };
                cause(&mut host, &peer, id);
                let sent = host.segments();
                let segment = sent.last().unwrap_or_else(|| panic!("{family:?}: {name} is not sent"));
                assert_eq!(segment.flags, flags, "{family:?}, {name}: {sent:?}");
                let stamp = segment.option(TIMESTAMPS);
                let echo = stamp.map(|stamp| u32::from_be_bytes(stamp[4..].try_into().unwrap()));
                assert_eq!(echo, wanted, "{family:?}, {name}");
                let is_aligned = segment.options.is_empty() || segment.options[..4] == TIMESTAMPS_LEAD;
                assert!(is_aligned, "{family:?}, {name}: {:?}", segment.options);
            }
        }
    }
}

#[test]
fn options_of_the_handshake_mean_nothing_behind_it() {
    for family in FAMILIES {
        let (mut host, peer, id) = Peer::opened(family, "", &MSS_1000, &[SocketOption::NoDelay(true)]);
        let late = [&[2, 4, 0, 100][..], &[1, 3, 3, 7], &[1, 1, 4, 2], &timestamp(9)].concat();
        let before = host.stack.tcp_info(id).unwrap();
        peer.ask_with(&mut host, &Tcp { options: late, window: 5_000, ..peer.segment(ACK, 1, 1, b"") });
        let after = host.stack.tcp_info(id).unwrap();
        assert_eq!(after.snd_wnd_bytes, 5_000, "{family:?}: not scaled");
        assert_eq!(after.snd_mss_bytes, before.snd_mss_bytes, "{family:?}");
        assert_eq!((after.timestamps, after.sack, after.window_scales), (false, false, None), "{family:?}");
        host.send(id, &[1; 2_000]).unwrap();
        let sent: Vec<_> =
            host.segments().iter().map(|sent| (sent.payload.len(), sent.options.len())).collect();
        assert_eq!(sent, [(1_000, 0), (1_000, 0)], "{family:?}");
        // Blocks that nobody agreed to say nothing, and none are sent.
        let block =
            [peer.iss.wrapping_add(1_001), peer.iss.wrapping_add(2_001)].map(u32::to_be_bytes).concat();
        let report = [&[1, 1, SACK, 10][..], &block].concat();
        for _ in 0..2 {
            peer.ask_with(&mut host, &Tcp { options: report.clone(), ..peer.segment(ACK, 1, 1, b"") });
        }
        assert_eq!(host.stack.tcp_info(id).unwrap().sacked_segments, 0, "{family:?}");
        let answers = peer.ask(&mut host, ACK, 501, 1, &[1; 100]);
        assert_eq!((answers.len(), answers[0].options.len()), (1, 0), "{family:?}");
    }
}

#[test]
fn windows_are_scaled_behind_the_handshake_and_not_in_it() {
    for family in FAMILIES {
        let offer = [&MSS_1000[..], &[1, 3, 3, 7]].concat();
        let mut host =
            Host::new("tcp.receive_buffer_bytes = 1000000\ntcp.receive_buffer_max_bytes = 1000000");
        host.listen(family, PORT, &[]);
        let mut peer = Peer::new(family);
        let syn = Tcp { options: offer, window: 1_000, ..peer.segment(SYN, 0, 0, b"") };
        let answers = peer.ask_with(&mut host, &syn);
        assert_eq!(answers[0].window, u16::MAX, "{family:?}");
        // 65535 << 4 is the first that reaches a million.
        assert_eq!(answers[0].option(3), Some(vec![4]), "{family:?}");
        peer.iss = answers[0].seq;
        let infos: Vec<_> = host.stack.tcp_infos().map(|info| info.snd_wnd_bytes).collect();
        assert_eq!(infos, [1_000], "{family:?}");
        peer.ask_with(&mut host, &Tcp { window: 1_000, ..peer.segment(ACK, 1, 1, b"") });
        let infos: Vec<_> = host.stack.tcp_infos().map(|info| info.snd_wnd_bytes).collect();
        assert_eq!(infos, [1_000 << 7], "{family:?}");
        peer.ask(&mut host, ACK | PSH, 1, 1, &[1; 1_000]);
        let sent = peer.ask(&mut host, ACK | PSH, 1_001, 1, &[1; 1_000]);
        assert_eq!(sent.last().map(|sent| sent.window), Some((998_000_u32 >> 4) as u16), "{family:?}");
    }
}

#[test]
fn urgent_data_stays_in_its_place_wherever_the_pointer_leads() {
    for family in FAMILIES {
        let (mut host, peer, id) = Peer::opened(family, "", &MSS_1000, &[]);
        let mut at = 1;
        for (urgent, text) in [(5, &b"hello"[..]), (60_000, b"x"), (0, b"y"), (1, b"")] {
            let segment = Tcp { urgent, ..peer.segment(ACK | URG, at, 1, text) };
            peer.ask_with(&mut host, &segment);
            at += text.len() as u32;
        }
        assert_eq!(host.read(id), Ok(Some(b"helloxy".to_vec())), "{family:?}");
        assert_eq!(peer.port, PEER_PORT);
    }
}
