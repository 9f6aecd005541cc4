//! What must hold for each connection of a host of ours: nobody waits in vain, and the window is what there is room for.

use std::collections::HashMap;
use std::time::Duration;

use catnip::tcp::{State, TcpInfo};

use super::CatnipHost;
use crate::host::Opening;

/// Data is acknowledged within half a second (RFC 1122, section 4.2.3.2).
const LONGEST_DELAY: Duration = Duration::from_millis(500);

impl CatnipHost {
    /// What waits on a connection can still come, and no more was offered than the buffer takes.
    pub(super) fn check_connections(&self) {
        let now = libos::Clock::now(&self.clock);
        let module = self.module.borrow();
        let infos: HashMap<_, _> =
            module.stack().tcp_infos().map(|info| ((info.local, info.remote), info)).collect();
        for info in infos.values() {
            let taken_bytes = info.rcv_wnd_bytes as usize + info.receive_queue_bytes;
            let is_clamped = module.stack().tcp_counters().memory_clamps > 0;
            assert!(
                taken_bytes <= info.receive_buffer_bytes || is_clamped,
                "a window beyond the buffer: {info:#?}"
            );
            // An acknowledgment of what came last will tell, and may be late.
            let is_late = now > info.last_data_received + LONGEST_DELAY + 2 * self.config.tick;
            let is_withheld =
                info.state.receives_data() && is_worth_telling(info) && is_late && !self.libos.needs_poll();
            assert!(!is_withheld || is_clamped, "a window that nobody was told of: {info:#?}");
        }
        for (socket, connection) in &self.connections {
            let Opening::Open { local, remote } = connection.opening else { continue };
            let info = infos.get(&(local, remote));
            // With Fast Open data goes before the handshake is over.
            let opens = info.is_some_and(|info| matches!(info.state, State::SynSent | State::SynReceived));
            let receives = info.is_some_and(|info| info.state.receives_data());
            let may_receive = (opens || receives) && info.is_some_and(|info| info.receive_queue_bytes == 0);
            assert!(
                may_receive || connection.pops.is_empty(),
                "a pop of {socket:?} waits for nothing: {info:#?}"
            );
            let may_send = opens || info.is_some_and(|info| info.state.sends_data());
            assert!(
                may_send || connection.pushes.is_empty(),
                "a push of {socket:?} waits for nothing: {info:#?}"
            );
        }
    }
}

/// True when the peer may send less than half of what there is room for, and the rest is worth a segment (RFC 9293,
/// section 3.8.6.2.2).
fn is_worth_telling(info: &TcpInfo) -> bool {
    let window_bytes = info.rcv_wnd_bytes as usize;
    let scale = info.window_scales.map_or(0, |(_, ours)| ours);
    let free_bytes = info.receive_buffer_bytes.saturating_sub(info.receive_queue_bytes).min(0xffff << scale);
    let segment_bytes = usize::from(info.snd_mss_bytes.max(info.rcv_mss_bytes));
    // Before data comes the window is that of a SYN, which is not scaled.
    info.received_bytes > 0
        && free_bytes / 2 > window_bytes
        && free_bytes - window_bytes >= segment_bytes.min(info.receive_buffer_bytes / 2)
}
