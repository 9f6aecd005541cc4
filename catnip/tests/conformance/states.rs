//! What each state makes of segments that are rare in it (RFC 9293, section 3.10.7, with RFC 5961 and RFC 1337).

use catnip::events::ConnectionId;
use libos::{Error, Shutdown};

use crate::host::{Host, PEER_PORT, PORT, Peer, Shown};
use crate::wire::{ACK, FAMILIES, FIN, Family, PSH, RST, SYN};

/// How far behind what is acknowledged a segment's acknowledgment is too old to be one: more than the peer's window.
const TOO_OLD: u32 = 40_000;
/// Beyond any window that the stack offers here.
const BEYOND: u32 = 3_000_000;

#[test]
fn a_closed_port_resets_with_the_numbers_of_the_rfc() {
    for family in FAMILIES {
        let mut host = Host::new("");
        let peer = Peer { iss: 5_000, ..Peer::new(family) };
        // Section 3.10.7.1. Without an acknowledgment: number 0, and all of the segment is acknowledged.
        for (flags, text, acknowledged) in [
            (SYN, 0, 1),
            (SYN, 10, 11),
            (SYN | FIN, 10, 12),
            (FIN, 0, 1),
            (FIN, 5, 6),
            (PSH, 5, 5),
            (0, 0, 0),
        ] {
            let answers = peer.ask(&mut host, flags, 0, 0, &vec![1; text]);
            assert_eq!(answers.len(), 1, "{family:?}, flags {flags}");
            let reset = &answers[0];
            assert_eq!((reset.flags, reset.seq, reset.ports), (RST | ACK, 0, (PORT, PEER_PORT)));
            assert_eq!(
                reset.ack.wrapping_sub(peer.isn),
                acknowledged,
                "{family:?}, flags {flags}, {text} bytes"
            );
            assert_eq!((reset.window, reset.options.len(), reset.payload.len()), (0, 0, 0));
        }
        for flags in [ACK, ACK | PSH, SYN | ACK, FIN | ACK] {
            assert_eq!(
                peer.tell(&mut host, flags, 0, 77, b""),
                [(RST, 77, 0, 0)],
                "{family:?}, flags {flags}"
            );
        }
        for flags in [RST, RST | ACK, RST | SYN] {
            assert_eq!(peer.tell(&mut host, flags, 0, 77, b""), [], "{family:?}, flags {flags}");
        }
    }
}

#[test]
fn syn_sent_takes_what_acknowledges_its_syn() {
    let reset = |number| vec![(RST, number, 0, 0)];
    for family in FAMILIES {
        for (flags, ack, text, answers, state) in [
            (ACK, 0, 0, reset(0), "SYN-SENT"),
            (ACK, 2, 0, reset(2), "SYN-SENT"),
            (ACK, 1, 0, vec![], "SYN-SENT"),
            (ACK, 1, 10, vec![], "SYN-SENT"),
            (SYN | ACK, 0, 0, reset(0), "SYN-SENT"),
            (SYN | ACK, 2, 0, reset(2), "SYN-SENT"),
            (FIN | ACK, 1, 0, vec![], "SYN-SENT"),
            (FIN, 0, 0, vec![], "SYN-SENT"),
            (0, 0, 0, vec![], "SYN-SENT"),
            (RST, 0, 0, vec![], "SYN-SENT"),
            (RST | ACK, 0, 0, vec![], "SYN-SENT"),
            (RST | ACK, 2, 0, vec![], "SYN-SENT"),
            (RST | ACK, 1, 0, vec![], "CLOSED"),
            (RST | SYN | ACK, 1, 0, vec![], "CLOSED"),
            (SYN | ACK, 1, 0, vec![(ACK, 1, 1, 0)], "ESTABLISHED"),
            (SYN | ACK, 1, 10, vec![(ACK, 1, 11, 0)], "ESTABLISHED"),
            (SYN | ACK | FIN, 1, 10, vec![(ACK, 1, 12, 0)], "CLOSE-WAIT"),
            (SYN, 0, 0, vec![(SYN | ACK, 0, 1, 0)], "SYN-RECEIVED"),
        ] {
            let mut host = Host::new("");
            let id = host.connect(family, PORT, &[]);
            let peer = Peer { iss: host.segments()[0].seq, ..Peer::new(family) };
            let case = format!("{family:?}, flags {flags}, ack {ack}, {text} bytes");
            assert_eq!(peer.tell(&mut host, flags, 0, ack, &vec![3; text]), answers, "{case}");
            assert_eq!(host.state(id), state, "{case}");
            let error = (state == "CLOSED").then_some(Error::ConnectionRefused);
            assert_eq!([host.error(id), host.error(id)], [error, None], "{case}: told once");
        }
    }
}

#[test]
fn syn_received_takes_what_completes_the_handshake() {
    for family in FAMILIES {
        for (flags, seq, ack, text, answers, connections, is_accepted) in [
            (SYN, 0, 0, 0, vec![(SYN | ACK, 0, 1, 0)], 1, false),
            (ACK, 1, 1, 0, vec![], 1, true),
            (ACK, 1, 0, 0, vec![(RST, 0, 0, 0)], 1, false),
            (ACK, 1, 2, 0, vec![(RST, 2, 0, 0)], 1, false),
            (RST, 1, 0, 0, vec![], 0, false),
            (RST | ACK, 1, 1, 0, vec![], 0, false),
            (RST, 2, 0, 0, vec![(ACK, 1, 1, 0)], 1, false),
            (RST, BEYOND, 0, 0, vec![], 1, false),
            (FIN | ACK, 1, 1, 10, vec![(ACK, 1, 12, 0)], 1, true),
            (ACK, 0_u32.wrapping_sub(100), 1, 0, vec![(ACK, 1, 1, 0)], 1, false),
            (ACK, BEYOND, 1, 0, vec![(ACK, 1, 1, 0)], 1, false),
            (PSH, 1, 0, 10, vec![], 1, false),
            (FIN, 1, 0, 0, vec![], 1, false),
        ] {
            let mut host = Host::new("");
            let listener = host.listen(family, PORT, &[]);
            let mut peer = Peer::new(family);
            peer.iss = peer.ask(&mut host, SYN, 0, 0, b"")[0].seq;
            let case = format!("{family:?}, flags {flags}, {seq}({text}), ack {ack}");
            assert_eq!(peer.tell(&mut host, flags, seq, ack, &vec![3; text]), answers, "{case}");
            assert_eq!(host.stack.tcp_connections(), connections, "{case}");
            assert_eq!(host.stack.tcp_accept(listener).is_some(), is_accepted, "{case}");
        }
    }
}

/// A connection in one of the states behind the handshake.
struct Standing {
    host: Host,
    peer: Peer,
    id: ConnectionId,
    /// SND.NXT and RCV.NXT, relative.
    snd_nxt: u32,
    rcv_nxt: u32,
}

const STATES: [&str; 7] =
    ["ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2", "CLOSE-WAIT", "CLOSING", "LAST-ACK", "TIME-WAIT"];

impl Standing {
    fn new(family: Family, state: &str) -> Self {
        let (mut host, peer, id) = Peer::opened(family, "", &[], &[]);
        let we_closed = |host: &mut Host| {
            host.stack.tcp_shutdown(id, Shutdown::Write).unwrap();
            host.turn();
        };
        let fin = |host: &mut Host, ack| drop(peer.tell(host, FIN | ACK, 1, ack, b""));
        let (snd_nxt, rcv_nxt) = match state {
            "FIN-WAIT-1" => {
                we_closed(&mut host);
                (2, 1)
            }
            "FIN-WAIT-2" => {
                we_closed(&mut host);
                peer.tell(&mut host, ACK, 1, 2, b"");
                (2, 1)
            }
            "CLOSE-WAIT" => {
                fin(&mut host, 1);
                (1, 2)
            }
            "CLOSING" => {
                we_closed(&mut host);
                fin(&mut host, 1);
                (2, 2)
            }
            "LAST-ACK" => {
                fin(&mut host, 1);
                we_closed(&mut host);
                (2, 2)
            }
            "TIME-WAIT" => {
                we_closed(&mut host);
                fin(&mut host, 2);
                (2, 2)
            }
            _ => (1, 1),
        };
        assert_eq!(host.state(id), state);
        Self { host, peer, id, snd_nxt, rcv_nxt }
    }

    /// SND.UNA: a FIN may not be acknowledged yet.
    fn snd_una(&self) -> u32 {
        match self.host.state(self.id) {
            "FIN-WAIT-1" | "CLOSING" | "LAST-ACK" => 1,
            _ => self.snd_nxt,
        }
    }

    /// Sends a segment so far from what is expected.
    fn tell(&mut self, flags: u8, from_nxt: u32, ack: u32, text: &[u8]) -> Vec<Shown> {
        self.peer.tell(&mut self.host, flags, self.rcv_nxt.wrapping_add(from_nxt), ack, text)
    }

    /// An acknowledgment that only says where the connection stands.
    fn acknowledgment(&self) -> Vec<Shown> {
        vec![(ACK, self.snd_nxt, self.rcv_nxt, 0)]
    }
}

#[test]
fn segments_that_are_not_acceptable_are_acknowledged_and_change_no_state() {
    for (family, state) in FAMILIES.into_iter().flat_map(|family| STATES.map(|state| (family, state))) {
        let una = Standing::new(family, state).snd_una();
        let nxt = Standing::new(family, state).snd_nxt;
        let before = |distance: u32| 0_u32.wrapping_sub(distance);
        for (name, flags, from_nxt, ack, text, is_answered) in [
            ("beyond the window", ACK | PSH, BEYOND, nxt, &b"data"[..], true),
            ("before the window", ACK | PSH, before(4), nxt, b"data", true),
            ("a SYN before the window", SYN, before(5), 0, b"", true),
            ("a SYN-ACK in the window", SYN | ACK, 5, nxt, b"", true),
            ("a SYN-ACK beyond it", SYN | ACK, BEYOND, nxt, b"", true),
            ("an acknowledgment of what was never sent", ACK, 0, nxt + 1, b"", true),
            ("an acknowledgment older than any", ACK, 0, una.wrapping_sub(TOO_OLD), b"", true),
            ("an old acknowledgment", ACK, 0, una.wrapping_sub(1), b"", false),
            ("no acknowledgment", PSH, 0, 0, b"data", false),
            ("a FIN without one", FIN, 0, 0, b"", false),
            ("a reset in the window", RST, 10, 0, b"", true),
            ("a reset before it", RST, before(1), 0, b"", false),
            ("a reset beyond it", RST, BEYOND, 0, b"", false),
        ] {
            let mut standing = Standing::new(family, state);
            let wanted = if is_answered { standing.acknowledgment() } else { vec![] };
            assert_eq!(standing.tell(flags, from_nxt, ack, text), wanted, "{family:?}, {state}: {name}");
            assert_eq!(standing.host.state(standing.id), state, "{family:?}, {state}: {name}");
        }
    }
}

#[test]
fn an_exact_reset_ends_every_state_but_time_wait_and_is_an_error_while_something_is_missing() {
    for (family, state) in FAMILIES.into_iter().flat_map(|family| STATES.map(|state| (family, state))) {
        let mut standing = Standing::new(family, state);
        assert_eq!(standing.tell(RST, 0, 0, b""), [], "{family:?}, {state}");
        let (after, error) = match state {
            "TIME-WAIT" => (state, None),
            "CLOSING" | "LAST-ACK" => ("CLOSED", None),
            _ => ("CLOSED", Some(Error::ConnectionReset)),
        };
        assert_eq!(standing.host.state(standing.id), after, "{family:?}, {state}");
        assert_eq!(standing.host.error(standing.id), error, "{family:?}, {state}");
    }
}

#[test]
fn a_fin_moves_each_state_on_once() {
    for (family, state) in FAMILIES.into_iter().flat_map(|family| STATES.map(|state| (family, state))) {
        let mut standing = Standing::new(family, state);
        let una = standing.snd_una();
        let has_come = standing.rcv_nxt == 2;
        standing.rcv_nxt = 2;
        let wanted = standing.acknowledgment();
        // Again where it has come, else for the first time and without an acknowledgment of ours.
        assert_eq!(standing.tell(FIN | ACK, 0_u32.wrapping_sub(1), una, b""), wanted, "{family:?}, {state}");
        let after = match state {
            "ESTABLISHED" => "CLOSE-WAIT",
            "FIN-WAIT-1" => "CLOSING",
            "FIN-WAIT-2" => "TIME-WAIT",
            same => same,
        };
        assert_eq!(standing.host.state(standing.id), after, "{family:?}, {state}");
        assert_eq!(has_come, after == state);
    }
}

#[test]
fn giving_up_resets_where_the_peer_may_still_send_or_wait() {
    for (family, state) in FAMILIES.into_iter().flat_map(|family| STATES.map(|state| (family, state))) {
        let Standing { mut host, peer, id, snd_nxt, rcv_nxt } = Standing::new(family, state);
        host.segments();
        host.stack.tcp_abort(host.now(), id);
        host.turn();
        let is_told = !matches!(state, "CLOSING" | "LAST-ACK" | "TIME-WAIT");
        let wanted = if is_told { vec![(RST | ACK, snd_nxt, rcv_nxt, 0)] } else { vec![] };
        assert_eq!(peer.shown_all(&host.segments()), wanted, "{family:?}, {state}");
        assert_eq!(host.stack.tcp_connections(), 0, "{family:?}, {state}");
    }
}

#[test]
fn data_for_a_program_that_has_gone_is_reset() {
    for family in FAMILIES {
        for (is_acknowledged, flags) in [(false, ACK), (true, ACK), (true, FIN | ACK)] {
            let (mut host, peer, id) = Peer::opened(family, "", &[], &[]);
            host.close(id);
            assert_eq!(peer.shown_all(&host.segments()), [(FIN | ACK, 1, 1, 0)]);
            let ack = 1 + u32::from(is_acknowledged);
            peer.tell(&mut host, ACK, 1, ack, b"");
            assert_eq!(peer.tell(&mut host, flags, 1, ack, b"late"), [(RST | ACK, 2, 1, 0)], "{family:?}");
            assert_eq!(host.stack.tcp_connections(), 0, "{family:?}");
        }
    }
}
