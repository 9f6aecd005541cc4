//! A device that takes less than there is to send.

use super::script::Script;

#[test]
fn a_short_device_queue_delays_nobody() {
    let mut t = Script::configured(|config| config.transmit_queue_frames = 3);
    let id = t.open();
    t.write(id, 10_000);
    // All of it as the device takes frames, without waiting for any timer.
    assert_eq!(t.take_sent().len(), 10);
}
