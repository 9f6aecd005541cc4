//! A device that takes less than there is to send.

use super::script::{MSS, Script};
use super::seg::seg;

#[test]
fn a_short_device_queue_delays_nobody() {
    let mut t = Script::configured(|config| config.transmit_queue_frames = 3);
    let id = t.open();
    t.write(id, 10_000);
    // All of it as the device takes frames, without waiting for any timer.
    assert_eq!(t.take_sent().len(), 10);
}

#[test]
fn connections_that_all_have_much_to_send_take_turns_at_a_short_device_queue() {
    const CONNECTIONS: u16 = 5;
    const QUEUE_FRAMES: usize = 3;
    let mut t = Script::configured(|config| config.transmit_queue_frames = QUEUE_FRAMES);
    let listener = t.listen();
    let ids: Vec<_> = (1..=CONNECTIONS)
        .map(|port| {
            t.inject(seg().seq(0).syn().mss(MSS).with_peer_port(port));
            t.expect(seg().syn().seq(0).ack(1).with_peer_port(port));
            t.inject(seg().ack(1).with_peer_port(port));
            t.stack.tcp_accept(listener).unwrap().0
        })
        .collect();
    for &id in &ids {
        t.queue(id, 10_000).unwrap();
    }
    let mut counts = [0; CONNECTIONS as usize];
    for sent in t.take_sent() {
        counts[usize::from(sent.segment.destination_port) - 1] += 1;
        // Whoever has had a turn waits until all others had theirs: nobody is ahead by more than two.
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(most - least <= 2 * QUEUE_FRAMES, "{counts:?}");
    }
    assert_eq!(counts, [10; CONNECTIONS as usize]);
}
