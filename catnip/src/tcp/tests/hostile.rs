//! A peer that sends anything at all: no panic, no broken invariant, no endless sending, no growing memory.

use libos::{Shutdown, SocketOption};
use proptest::prelude::*;

use super::script::{MSS, Script, fix_receive_buffer};
use super::seg::{Seg, seg};
use crate::tcp::segment::Flags;

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// A segment close to what the connection expects, or far from it.
    Segment {
        flags: u8,
        seq: i32,
        ack: i32,
        window: u16,
        len: usize,
        stamp: Option<(i32, i32)>,
    },
    Write(usize),
    Read(usize),
    Pass(u64),
    ShutDown(bool),
    ReceiveBuffer(usize),
    Close,
}

/// Mostly small numbers, so that edges are met.
fn near() -> impl Strategy<Value = i32> {
    prop_oneof![
        4 => Just(0),
        4 => -3_i32..4,
        3 => -3_000_i32..3_000,
        1 => -100_000_i32..100_000,
        1 => any::<i32>(),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let flags = prop_oneof![
        8 => Just(Flags::ACK.bits()),
        3 => Just(Flags::ACK.union(Flags::FIN).bits()),
        1 => Just(Flags::SYN.bits()),
        1 => Just(Flags::ACK.union(Flags::SYN).bits()),
        1 => Just(Flags::RST.bits()),
        1 => any::<u8>(),
    ];
    let window = prop_oneof![3 => Just(30_000), 2 => Just(0), 2 => 0_u16..1_500, 1 => any::<u16>()];
    let len = prop_oneof![3 => Just(0), 2 => 1_usize..1_400, 1 => Just(1)];
    let stamp = prop::option::of((near(), near()));
    prop_oneof![
        12 => (flags, near(), near(), window, len, stamp).prop_map(
            |(flags, seq, ack, window, len, stamp)| Step::Segment { flags, seq, ack, window, len, stamp }
        ),
        3 => (1_usize..10_000).prop_map(Step::Write),
        3 => (1_usize..10_000).prop_map(Step::Read),
        3 => prop_oneof![0_u64..50, 0_u64..5_000, 0_u64..200_000].prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::ShutDown),
        1 => (8_000_usize..100_000).prop_map(Step::ReceiveBuffer),
        1 => Just(Step::Close),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn nothing_a_peer_sends_does_harm(
        stamps: bool,
        active: bool,
        scale in prop::option::of(any::<u8>()),
        mss in prop::option::of(prop_oneof![Just(MSS), any::<u16>()]),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut t = Script::configured(|config| fix_receive_buffer(config, 8_000));
        let syn = Seg { mss, wscale: scale, timestamp: stamps.then_some((1_000, 0)), ..seg() };
        let mut listener = None;
        let id = if active {
            let id = t.connect();
            let _ = t.take_sent();
            t.inject(syn.syn().seq(0).ack(1));
            id
        } else {
            let accepting = *listener.insert(t.listen());
            t.open_on(accepting, syn)
        };
        let _ = t.take_sent();
        let mut closed = false;
        for step in steps {
            let info = t.stack.tcp_infos().next();
            match step {
                Step::Segment { flags, seq, ack, window, len, stamp } => {
                    let (next, una) = info.map_or((1, 1), |info| (info.rcv_nxt, info.snd_una));
                    let mut segment = seg()
                        .raw_seq(next.wrapping_add_signed(seq))
                        .raw_ack(una.wrapping_add_signed(ack))
                        .win(window)
                        .bytes(&vec![7; len]);
                    segment.flags = Flags::from_bits(flags);
                    if let Some((value, echo)) = stamp {
                        segment = segment.ts(1_000_u32.wrapping_add_signed(value), echo.cast_unsigned());
                    }
                    t.inject(segment);
                }
                Step::Pass(millis) => t.pass(millis),
                _ if closed => {}
                Step::Write(len) => drop(t.try_write(id, len)),
                Step::Read(limit) => drop(t.stack.tcp_receive(
                    id,
                    libos::PopLimit { segments: 16, bytes: limit },
                )),
                Step::ShutDown(write) => {
                    let how = if write { Shutdown::Write } else { Shutdown::Read };
                    let _ = t.stack.tcp_shutdown(id, how);
                }
                Step::ReceiveBuffer(bytes) => {
                    let _ = t.stack.tcp_set_option(id, SocketOption::ReceiveBuffer(bytes));
                }
                Step::Close => {
                    t.close(id);
                    closed = true;
                }
            }
            // One segment or call makes the stack send a window of segments at most.
            let sent = t.take_sent().len();
            prop_assert!(sent < 3_000, "{sent} segments at once");
        }
        if !closed {
            t.close(id);
        }
        if let Some(listener) = listener {
            t.stack.tcp_close_listener(t.now, listener);
        }
        // Nothing holds on to a connection that both sides left.
        t.pass(7_200_000);
        prop_assert_eq!(t.stack.tcp_connections(), 0);
        let _ = t.take_sent();
        prop_assert_eq!(t.live_buffers(), 0);
    }
}
