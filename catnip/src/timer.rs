//! The timer wheel: one for all connections of a stack, O(1) to arm, move and cancel.
//!
//! A hierarchical wheel after Varghese and Lauck ("Hashed and Hierarchical Timing Wheels", 1987). A
//! level has 64 slots; a slot of level `n` spans 64^n ticks. A timer lies on the level of the highest
//! base-64 digit in which its tick differs from the wheel's position and moves down a level when the
//! position reaches its slot, so it moves at most once a level. Bitmaps of occupied slots make
//! empty time free to cross, however long. Nine levels of 6 bits cover every tick that an
//! [`Instant`] can name, so there is no horizon and no overflow list.

use libos::Instant;

/// Timers are sorted by ticks of 2^13 ns (8.2 us); within a tick their own time decides.
const TICK_SHIFT: u32 = 13;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = 9;

/// List heads are told from keys by this bit in a `previous` link.
const HEAD: u32 = 1 << 31;
/// The head of the list of timers that are due and were not taken yet.
const EXPIRED: usize = LEVELS * SLOTS;
const NONE: u32 = u32::MAX;
const NEVER_NS: u64 = u64::MAX;

/// Timers looked at to tell a slot's earliest; a fuller slot is answered with its start.
const SCAN_LIMIT: usize = 16;

/// A key's timer: 16 bytes.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// [`NEVER_NS`] when not armed.
    deadline_ns: u64,
    next: u32,
    previous: u32,
}

const UNARMED: Entry = Entry { deadline_ns: NEVER_NS, next: NONE, previous: NONE };

/// At most one timer for each of many small integer keys, such as the slots of a slab.
///
/// Takes 16 bytes for each key up to the highest one armed, and 2.4 KB in all.
#[derive(Debug)]
pub struct TimerWheel {
    entries: Vec<Entry>,
    heads: Box<[u32; EXPIRED + 1]>,
    occupied_slots: [u64; LEVELS],
    occupied_levels: u32,
    /// The wheel's position: no timer in the slots has an earlier tick.
    position: u64,
    /// Before this time nothing is due and no slot needs to be taken apart: one comparison and an
    /// idle poll is done.
    quiet_until_ns: u64,
}

impl TimerWheel {
    /// Keys must be below this.
    pub const KEY_LIMIT: u32 = HEAD;

    /// A wheel without timers.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            entries: Vec::new(),
            heads: Box::new([NONE; EXPIRED + 1]),
            occupied_slots: [0; LEVELS],
            occupied_levels: 0,
            position: tick_of(now.as_nanos()),
            quiet_until_ns: NEVER_NS,
        }
    }

    /// Sets the timer of `key`, in place of the one it may have had. [`Instant::FAR_FUTURE`] is never:
    /// the same as [`Self::cancel`]. A time in the past is due at once.
    pub fn arm(&mut self, key: u32, at: Instant) {
        debug_assert!(key < Self::KEY_LIMIT, "timer key {key} out of range");
        let deadline_ns = at.as_nanos();
        if key as usize >= self.entries.len() {
            self.entries.resize(key as usize + 1, UNARMED);
        }
        let armed_ns = self.entries[key as usize].deadline_ns;
        if armed_ns == deadline_ns {
            return;
        }
        if armed_ns != NEVER_NS {
            self.unlink(key);
        }
        self.entries[key as usize].deadline_ns = deadline_ns;
        if deadline_ns != NEVER_NS {
            self.file(key, deadline_ns);
        }
    }

    /// Takes the timer of `key` away, if it has one.
    pub fn cancel(&mut self, key: u32) {
        if self.armed_at(key).is_some() {
            self.unlink(key);
            self.entries[key as usize].deadline_ns = NEVER_NS;
        }
    }

    /// When the timer of `key` is due, if it has one.
    #[must_use]
    pub fn armed_at(&self, key: u32) -> Option<Instant> {
        let entry = self.entries.get(key as usize)?;
        (entry.deadline_ns != NEVER_NS).then(|| Instant::from_nanos(entry.deadline_ns))
    }

    /// Takes one timer that is due at `now` (its time is `now` or earlier) and returns its key. Call
    /// until `None`. In between, timers may be armed and cancelled at will; one that is armed for
    /// `now` or earlier comes up in the same round, so a caller that does so must bound the round.
    pub fn next_expired(&mut self, now: Instant) -> Option<u32> {
        if !self.is_due(now) {
            self.follow(now);
            return None;
        }
        self.pop_expired(now.as_nanos())
    }

    /// Lets the position follow the clock while nothing is due: what is armed next lands on the lowest level that
    /// will do. For whoever asks [`Self::is_due`] first.
    #[inline]
    pub fn follow(&mut self, now: Instant) {
        debug_assert!(!self.is_due(now), "what is due is taken first");
        self.position = self.position.max(tick_of(now.as_nanos()));
    }

    /// False when [`Self::next_expired`] has nothing, by one comparison.
    #[must_use]
    #[inline]
    pub const fn is_due(&self, now: Instant) -> bool {
        now.as_nanos() >= self.quiet_until_ns
    }

    /// A time at or before which the earliest timer is due; `None` without timers. Exact unless more
    /// than 16 timers share the earliest slot. Once [`Self::next_expired`] has returned `None` for a
    /// `now`, this is later than that `now`, so going from deadline to deadline makes progress.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let due = self.heads[EXPIRED];
        if due != NONE {
            return Some(Instant::from_nanos(self.entries[due as usize].deadline_ns));
        }
        let (level, slot) = self.earliest_slot()?;
        let exact_ns = self.earliest_in(level * SLOTS + slot);
        let start_ns = self.slot_start(level, slot) << TICK_SHIFT;
        Some(Instant::from_nanos(exact_ns.unwrap_or(start_ns.max(self.quiet_until_ns))))
    }

    #[cold]
    fn pop_expired(&mut self, now_ns: u64) -> Option<u32> {
        if self.heads[EXPIRED] == NONE {
            self.collect(now_ns);
        }
        let key = self.heads[EXPIRED];
        if key == NONE {
            return None;
        }
        self.unlink(key);
        self.entries[key as usize].deadline_ns = NEVER_NS;
        Some(key)
    }

    /// Moves the position on towards `now_ns` until timers are due, which go to the expired list, or
    /// until the position is there. The expired list must be empty.
    fn collect(&mut self, now_ns: u64) {
        let now_tick = tick_of(now_ns).max(self.position);
        loop {
            let Some((level, slot)) = self.earliest_slot() else {
                self.position = now_tick;
                self.quiet_until_ns = NEVER_NS;
                return;
            };
            let start = self.slot_start(level, slot);
            if start > now_tick {
                self.position = now_tick;
                self.quiet_until_ns = start << TICK_SHIFT;
                return;
            }
            self.position = start;
            if level > 0 {
                self.refile(self.heads[level * SLOTS + slot], level, slot);
            } else if start < tick_of(now_ns) {
                self.expire_all(slot);
                return;
            } else {
                self.expire_due(slot, now_ns);
                return;
            }
        }
    }

    /// Takes a slot of a higher level apart: its timers go to lower levels.
    fn refile(&mut self, mut key: u32, level: usize, slot: usize) {
        self.heads[level * SLOTS + slot] = NONE;
        self.mark_empty(level * SLOTS + slot);
        while key != NONE {
            let Entry { deadline_ns, next, .. } = self.entries[key as usize];
            self.file(key, deadline_ns);
            key = next;
        }
    }

    /// All timers of a slot of level 0 are due.
    fn expire_all(&mut self, slot: usize) {
        let first = std::mem::replace(&mut self.heads[slot], NONE);
        self.mark_empty(slot);
        self.heads[EXPIRED] = first;
        self.entries[first as usize].previous = HEAD | EXPIRED as u32;
        self.quiet_until_ns = 0;
    }

    /// Some timers of the slot of level 0 that `now_ns` lies in may be due.
    fn expire_due(&mut self, slot: usize, now_ns: u64) {
        let mut earliest_left_ns = NEVER_NS;
        let mut key = self.heads[slot];
        while key != NONE {
            let Entry { deadline_ns, next, .. } = self.entries[key as usize];
            if deadline_ns <= now_ns {
                self.unlink(key);
                self.link(key, EXPIRED);
            } else {
                earliest_left_ns = earliest_left_ns.min(deadline_ns);
            }
            key = next;
        }
        let none_due = self.heads[EXPIRED] == NONE;
        self.quiet_until_ns = if none_due { earliest_left_ns } else { 0 };
    }

    /// Puts an armed, unlinked key where its time belongs.
    fn file(&mut self, key: u32, deadline_ns: u64) {
        let tick = tick_of(deadline_ns);
        if tick < self.position {
            self.quiet_until_ns = 0;
            self.link(key, EXPIRED);
            return;
        }
        let highest_bit = 63 - ((tick ^ self.position) | (SLOTS as u64 - 1)).leading_zeros();
        let level = highest_bit / SLOT_BITS;
        let slot = (tick >> (level * SLOT_BITS)) as usize % SLOTS;
        // A timer on level 0 stays where it is until it is due; from a higher slot it has to come down.
        let wake_ns =
            if level == 0 { deadline_ns } else { self.slot_start(level as usize, slot) << TICK_SHIFT };
        self.quiet_until_ns = self.quiet_until_ns.min(wake_ns);
        self.occupied_slots[level as usize] |= 1 << slot;
        self.occupied_levels |= 1 << level;
        self.link(key, level as usize * SLOTS + slot);
    }

    fn link(&mut self, key: u32, list: usize) {
        let first = std::mem::replace(&mut self.heads[list], key);
        if first != NONE {
            self.entries[first as usize].previous = key;
        }
        let entry = &mut self.entries[key as usize];
        entry.next = first;
        entry.previous = HEAD | list as u32;
    }

    fn unlink(&mut self, key: u32) {
        let Entry { next, previous, .. } = self.entries[key as usize];
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        if previous & HEAD == 0 {
            self.entries[previous as usize].next = next;
            return;
        }
        let list = (previous & !HEAD) as usize;
        self.heads[list] = next;
        if next == NONE && list != EXPIRED {
            self.mark_empty(list);
        }
    }

    fn mark_empty(&mut self, list: usize) {
        let (level, slot) = (list / SLOTS, list % SLOTS);
        self.occupied_slots[level] &= !(1 << slot);
        if self.occupied_slots[level] == 0 {
            self.occupied_levels &= !(1 << level);
        }
    }

    /// The occupied slot that starts first: all timers of a level come before those of the next.
    fn earliest_slot(&self) -> Option<(usize, usize)> {
        if self.occupied_levels == 0 {
            return None;
        }
        let level = self.occupied_levels.trailing_zeros() as usize;
        Some((level, self.occupied_slots[level].trailing_zeros() as usize))
    }

    /// The first tick of a slot: the position's digits above `level`, then `slot`, then zeros.
    fn slot_start(&self, level: usize, slot: usize) -> u64 {
        let shift = level as u32 * SLOT_BITS;
        let above = self.position >> (shift + SLOT_BITS) << SLOT_BITS;
        (above | slot as u64) << shift
    }

    /// The earliest time in a list, `None` when it has more than [`SCAN_LIMIT`] timers.
    fn earliest_in(&self, list: usize) -> Option<u64> {
        let mut earliest_ns = NEVER_NS;
        let mut key = self.heads[list];
        for _ in 0..SCAN_LIMIT {
            if key == NONE {
                return Some(earliest_ns);
            }
            let entry = &self.entries[key as usize];
            earliest_ns = earliest_ns.min(entry.deadline_ns);
            key = entry.next;
        }
        (key == NONE).then_some(earliest_ns)
    }
}

const fn tick_of(ns: u64) -> u64 {
    ns >> TICK_SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const HOUR_NS: u64 = 3_600_000_000_000;
    const TICK_NS: u64 = 1 << TICK_SHIFT;

    fn at(ns: u64) -> Instant {
        Instant::from_nanos(ns)
    }

    fn expired(wheel: &mut TimerWheel, now_ns: u64) -> Vec<u32> {
        let mut keys: Vec<u32> = std::iter::from_fn(|| wheel.next_expired(at(now_ns))).collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn a_timer_fires_at_its_nanosecond_and_not_before() {
        for deadline_ns in [
            1,
            5,
            TICK_NS - 1,
            TICK_NS,
            TICK_NS + 1,
            64 * TICK_NS,
            4_096 * TICK_NS + 7,
            HOUR_NS,
            1 << 60,
            u64::MAX - 1,
        ] {
            let mut wheel = TimerWheel::new(Instant::ZERO);
            wheel.arm(3, at(deadline_ns));
            assert_eq!(wheel.next_deadline(), Some(at(deadline_ns)));
            assert_eq!(expired(&mut wheel, deadline_ns - 1), []);
            assert_eq!(wheel.armed_at(3), Some(at(deadline_ns)));
            assert_eq!(expired(&mut wheel, deadline_ns), [3]);
            assert_eq!((wheel.armed_at(3), wheel.next_deadline()), (None, None));
            assert_eq!(expired(&mut wheel, deadline_ns), []);
        }
    }

    #[test]
    fn arming_again_moves_the_timer_both_ways() {
        let mut wheel = TimerWheel::new(Instant::ZERO);
        wheel.arm(0, at(1_000_000));
        wheel.arm(0, at(9_000_000));
        assert_eq!(expired(&mut wheel, 8_999_999), []);
        wheel.arm(0, at(8_999_999));
        assert_eq!(expired(&mut wheel, 8_999_999), [0]);
    }

    #[test]
    fn a_cancelled_timer_and_one_armed_for_never_do_not_fire() {
        let mut wheel = TimerWheel::new(Instant::ZERO);
        for key in 0..4 {
            wheel.arm(key, at(100));
        }
        wheel.cancel(1);
        wheel.arm(2, Instant::FAR_FUTURE);
        wheel.cancel(900);
        assert_eq!(wheel.armed_at(1), None);
        assert_eq!(wheel.armed_at(2), None);
        assert_eq!(expired(&mut wheel, u64::MAX), [0, 3]);
        assert_eq!(expired(&mut wheel, u64::MAX), []);
    }

    #[test]
    fn a_timer_that_is_due_may_be_cancelled_or_moved_before_it_is_taken() {
        let mut wheel = TimerWheel::new(Instant::ZERO);
        for key in 0..4 {
            wheel.arm(key, at(10));
        }
        let first = wheel.next_expired(at(100_000)).unwrap();
        let left: Vec<u32> = (0..4).filter(|&key| key != first).collect();
        wheel.cancel(left[0]);
        wheel.arm(left[1], at(200_000));
        assert_eq!(expired(&mut wheel, 100_000), [left[2]]);
        assert_eq!(expired(&mut wheel, 200_000), [left[1]]);
    }

    #[test]
    fn a_time_in_the_past_is_due_at_once() {
        let mut wheel = TimerWheel::new(at(HOUR_NS));
        wheel.arm(0, at(5));
        assert!(wheel.next_deadline().unwrap() <= at(HOUR_NS));
        assert_eq!(expired(&mut wheel, HOUR_NS), [0]);
    }

    #[test]
    fn crossing_hours_of_empty_time_takes_a_handful_of_steps() {
        let mut wheel = TimerWheel::new(Instant::ZERO);
        wheel.arm(7, at(1_000 * HOUR_NS));
        for key in 100..200 {
            wheel.arm(key, at(1_000 * HOUR_NS + u64::from(key)));
        }
        let mut polls = 0;
        while let Some(deadline) = wheel.next_deadline() {
            polls += 1;
            assert!(polls < 200, "no progress at {deadline:?}");
            while wheel.next_expired(deadline).is_some() {}
        }
    }

    #[test]
    fn a_crowded_slot_answers_with_a_lower_bound_that_makes_progress() {
        let mut wheel = TimerWheel::new(Instant::ZERO);
        let deadline_ns = |key: u32| 5_000_000 + u64::from(key) * 50;
        (0..100).for_each(|key| wheel.arm(key, at(deadline_ns(key))));
        let mut fired = Vec::new();
        let mut last = Instant::ZERO;
        while let Some(deadline) = wheel.next_deadline() {
            assert!(deadline > last, "stuck at {deadline:?}");
            assert!(deadline.as_nanos() <= deadline_ns(fired.len() as u32));
            fired.extend(expired(&mut wheel, deadline.as_nanos()));
            last = deadline;
        }
        assert_eq!(fired, (0..100).collect::<Vec<_>>());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Arm(u32, u64),
        Cancel(u32),
        Advance(u64),
        AdvanceToDeadline,
        TakeOne,
    }

    /// Spans from below a tick to days, so that every level is used.
    fn span_ns() -> impl Strategy<Value = u64> {
        (0_u32..52, any::<u64>()).prop_map(|(bits, raw)| raw & ((1 << bits) - 1))
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u32..40, span_ns()).prop_map(|(key, span)| Step::Arm(key, span)),
            1 => (0_u32..45).prop_map(Step::Cancel),
            3 => span_ns().prop_map(Step::Advance),
            2 => Just(Step::AdvanceToDeadline),
            1 => Just(Step::TakeOne),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_sorted_map(start in span_ns(), steps in prop::collection::vec(step(), 1..200)) {
            let mut wheel = TimerWheel::new(at(start));
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let mut now_ns = start;
            for step in steps {
                match step {
                    Step::Arm(key, span) => {
                        // A quarter of the spans lies in the past.
                        let deadline_ns =
                            if span % 4 == 0 { now_ns.saturating_sub(span) } else { now_ns + span };
                        wheel.arm(key, at(deadline_ns));
                        model.insert(key, deadline_ns);
                    }
                    Step::Cancel(key) => {
                        wheel.cancel(key);
                        model.remove(&key);
                    }
                    Step::TakeOne => {
                        if let Some(key) = wheel.next_expired(at(now_ns)) {
                            let deadline_ns = model.remove(&key);
                            prop_assert!(deadline_ns.is_some_and(|deadline_ns| deadline_ns <= now_ns));
                        } else {
                            prop_assert!(model.values().all(|&deadline_ns| deadline_ns > now_ns));
                        }
                    }
                    Step::Advance(_) | Step::AdvanceToDeadline => {
                        if let Step::Advance(span) = step {
                            now_ns += span;
                        } else if let Some(deadline) = wheel.next_deadline() {
                            now_ns = now_ns.max(deadline.as_nanos());
                        }
                        let mut due: Vec<u32> = model
                            .iter()
                            .filter(|&(_, &deadline_ns)| deadline_ns <= now_ns)
                            .map(|(&key, _)| key)
                            .collect();
                        due.sort_unstable();
                        prop_assert_eq!(expired(&mut wheel, now_ns), due);
                        model.retain(|_, deadline_ns| *deadline_ns > now_ns);
                        let earliest_ns = model.values().min().copied();
                        let deadline_ns = wheel.next_deadline().map(Instant::as_nanos);
                        prop_assert_eq!(deadline_ns.is_some(), earliest_ns.is_some());
                        if let (Some(deadline_ns), Some(earliest_ns)) = (deadline_ns, earliest_ns) {
                            prop_assert!(now_ns < deadline_ns && deadline_ns <= earliest_ns);
                        }
                    }
                }
                for key in 0..45 {
                    prop_assert_eq!(wheel.armed_at(key).map(Instant::as_nanos), model.get(&key).copied());
                }
            }
        }
    }
}
