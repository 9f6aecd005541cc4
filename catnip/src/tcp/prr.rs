//! Proportional rate reduction: how much leaves while a loss is repaired (RFC 9937).

/// The variables of one recovery.
#[derive(Debug, Clone, Copy)]
pub(super) struct RateReduction {
    /// RecoverFS: what was in flight when the loss was noticed.
    flight_bytes: u32,
    /// Where the window is to arrive: ssthresh.
    target_bytes: u32,
    /// prr_delivered and prr_out.
    delivered_bytes: u64,
    sent_bytes: u64,
    /// The congestion window for now.
    cwnd_bytes: u32,
}

/// What an acknowledgment says to the rate reduction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// DeliveredData: bytes it was the first to tell of.
    pub delivered_bytes: u32,
    /// Bytes in the network.
    pub pipe_bytes: u32,
    /// SND.UNA advanced, and nothing more turned out to be lost: safeACK.
    pub is_safe: bool,
    /// Payload bytes of a full segment.
    pub mss_bytes: u32,
}

impl RateReduction {
    /// Recovery begins with `flight_bytes` outstanding when the acknowledgment arrived that told of the loss, without
    /// what had been selectively acknowledged before it.
    pub(super) fn new(flight_bytes: u32, target_bytes: u32) -> Self {
        Self {
            flight_bytes: flight_bytes.max(1),
            target_bytes,
            delivered_bytes: 0,
            sent_bytes: 0,
            cwnd_bytes: target_bytes,
        }
    }

    /// An acknowledgment arrived (RFC 9937, section 6.2).
    pub(super) fn on_acknowledgment(&mut self, step: Step) {
        self.delivered_bytes += u64::from(step.delivered_bytes);
        let pipe = u64::from(step.pipe_bytes);
        let target = u64::from(self.target_bytes);
        let mut allowed = if pipe > target {
            let share = (self.delivered_bytes * target).div_ceil(u64::from(self.flight_bytes));
            share.saturating_sub(self.sent_bytes)
        } else {
            // Below the target: as slow start when the path is seen to deliver, else as much as left the network.
            let left = self.delivered_bytes.saturating_sub(self.sent_bytes);
            let grown = left.max(u64::from(step.delivered_bytes))
                + if step.is_safe { u64::from(step.mss_bytes) } else { 0 };
            grown.min(target - pipe)
        };
        if self.sent_bytes == 0 {
            // The first retransmission leaves at once, whatever the shares say.
            allowed = allowed.max(u64::from(step.mss_bytes));
        }
        self.cwnd_bytes = u32::try_from(pipe + allowed).unwrap_or(u32::MAX);
    }

    /// Something left.
    pub(super) fn on_sent(&mut self, bytes: u32) {
        self.sent_bytes += u64::from(bytes);
    }

    /// The congestion window for now.
    pub(super) const fn cwnd_bytes(&self) -> u32 {
        self.cwnd_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MSS: u32 = 1_000;

    fn ack(delivered_bytes: u32, pipe_bytes: u32) -> Step {
        Step { delivered_bytes, pipe_bytes, is_safe: false, mss_bytes: MSS }
    }

    /// What may leave now.
    fn room(reduction: &RateReduction, pipe_bytes: u32) -> u32 {
        reduction.cwnd_bytes().saturating_sub(pipe_bytes)
    }

    #[test]
    fn the_window_comes_down_in_step_with_what_is_delivered() {
        // 20 in flight, one lost, down to 10: a segment leaves for every second that arrives.
        let mut reduction = RateReduction::new(20 * MSS, 10 * MSS);
        let mut pipe = 16 * MSS;
        let mut left = 0;
        reduction.on_acknowledgment(ack(3 * MSS, pipe));
        for _ in 0..12 {
            while room(&reduction, pipe) >= MSS {
                reduction.on_sent(MSS);
                pipe += MSS;
                left += 1;
            }
            pipe -= MSS;
            reduction.on_acknowledgment(ack(MSS, pipe));
        }
        assert_eq!(left, 7);
        assert_eq!(pipe + room(&reduction, pipe) / MSS * MSS, 11 * MSS);
    }

    #[test]
    fn the_first_retransmission_leaves_at_once() {
        let mut reduction = RateReduction::new(100 * MSS, 10 * MSS);
        reduction.on_acknowledgment(ack(100, 90 * MSS));
        assert_eq!(room(&reduction, 90 * MSS), MSS);
        reduction.on_sent(MSS);
        reduction.on_acknowledgment(ack(100, 91 * MSS));
        assert_eq!(room(&reduction, 91 * MSS), 0);
    }

    #[test]
    fn below_the_target_a_safe_acknowledgment_grows_the_window_as_slow_start_and_no_other_does() {
        for (is_safe, expected) in [(true, 2 * MSS), (false, MSS)] {
            let mut reduction = RateReduction::new(20 * MSS, 10 * MSS);
            reduction.on_sent(MSS);
            reduction.on_acknowledgment(Step { is_safe, ..ack(MSS, 2 * MSS) });
            assert_eq!(room(&reduction, 2 * MSS), expected, "{is_safe}");
        }
    }

    /// RFC 9937 §6.2, written down from its pseudo-code in real numbers: what may leave after an acknowledgment.
    struct Model {
        flight: f64,
        target: f64,
        delivered: f64,
        sent: f64,
    }

    impl Model {
        fn room(&mut self, step: Step) -> f64 {
            let (delivered, pipe) = (f64::from(step.delivered_bytes), f64::from(step.pipe_bytes));
            let mss = f64::from(step.mss_bytes);
            self.delivered += delivered;
            let room = if pipe > self.target {
                (self.delivered * self.target / self.flight).ceil() - self.sent
            } else {
                let conservative = (self.delivered - self.sent).max(delivered);
                let limit = if step.is_safe { conservative + mss } else { conservative };
                (self.target - pipe).min(limit)
            };
            // Entering fast recovery, one segment leaves whatever else is allowed.
            if self.sent == 0.0 { room.max(mss) } else { room.max(0.0) }
        }
    }

    proptest! {
        /// RFC 9937: while more than the target is in flight, no more leaves than its share of what arrives.
        #[test]
        fn what_leaves_stays_within_its_bounds(
            flight in 4_u32..2_000, percent in 10_u32..100,
            steps in prop::collection::vec((1_u32..5, any::<bool>()), 1..300),
        ) {
            let target = (flight * percent / 100).max(2) * MSS;
            let mut reduction = RateReduction::new(flight * MSS, target);
            let mut pipe = flight * MSS;
            let (mut delivered, mut sent) = (0_u64, 0_u64);
            for (segments, is_safe) in steps {
                let arrived = (segments * MSS).min(pipe);
                pipe -= arrived;
                delivered += u64::from(arrived);
                let above = pipe > target;
                reduction.on_acknowledgment(Step { is_safe, ..ack(arrived, pipe) });
                let first = sent == 0;
                while room(&reduction, pipe) >= MSS {
                    reduction.on_sent(MSS);
                    pipe += MSS;
                    sent += u64::from(MSS);
                }
                if above && !first {
                    let share = (delivered * u64::from(target)).div_ceil(u64::from(flight * MSS));
                    prop_assert!(sent <= share.max(u64::from(MSS)), "{sent} of {share}");
                } else {
                    prop_assert!(first || pipe <= target.max(flight * MSS));
                }
            }
        }

        #[test]
        fn the_room_is_what_the_model_computes(
            flight in 1_000_u32..10_000_000, percent in 1_u32..=100, mss_bytes in 36_u32..9_000,
            steps in prop::collection::vec((0_u32..60_000, 0_u32..200_000, any::<bool>()), 1..100),
        ) {
            let target = (u64::from(flight) * u64::from(percent) / 100) as u32;
            let mut reduction = RateReduction::new(flight, target);
            let (target, flight_f) = (f64::from(target), f64::from(flight));
            let mut model = Model { flight: flight_f, target, delivered: 0.0, sent: 0.0 };
            let mut pipe_bytes = flight;
            for (delivered, wanted, is_safe) in steps {
                let delivered_bytes = delivered.min(pipe_bytes);
                pipe_bytes -= delivered_bytes;
                let step = Step { delivered_bytes, pipe_bytes, is_safe, mss_bytes };
                reduction.on_acknowledgment(step);
                let expected = model.room(step);
                let actual = room(&reduction, pipe_bytes);
                prop_assert!((f64::from(actual) - expected).abs() <= 1.0, "{} for {}", actual, expected);
                // As much of it as the program has.
                let sent = wanted.min(actual);
                reduction.on_sent(sent);
                model.sent += f64::from(sent);
                pipe_bytes += sent;
            }
        }
    }
}
