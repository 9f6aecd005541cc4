//! Outstanding operations of one direction of one socket: nearly always none or one.

use std::collections::VecDeque;

use libos::Token;

/// A queue that keeps its first element in place, so that one outstanding operation allocates nothing
/// and an idle socket stays small.
#[derive(Debug)]
#[allow(clippy::box_collection, reason = "one word in every idle socket instead of four")]
pub(super) struct Fifo<T> {
    first: Option<(Token, T)>,
    rest: Option<Box<VecDeque<(Token, T)>>>,
}

impl<T> Default for Fifo<T> {
    fn default() -> Self {
        Self { first: None, rest: None }
    }
}

impl<T> Fifo<T> {
    pub(super) const fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    #[inline(always)]
    pub(super) fn push(&mut self, token: Token, value: T) {
        if self.first.is_none() {
            // There is nothing in its place to be dropped.
            std::mem::forget(self.first.replace((token, value)));
        } else {
            self.push_behind(token, value);
        }
    }

    #[inline(never)]
    fn push_behind(&mut self, token: Token, value: T) {
        self.rest.get_or_insert_default().push_back((token, value));
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut (Token, T)> {
        self.first.as_mut()
    }

    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<(Token, T)> {
        let front = self.first.take()?;
        if self.rest.is_some() {
            self.move_up();
        }
        Some(front)
    }

    #[inline(never)]
    fn move_up(&mut self) {
        self.first = self.rest.as_mut().and_then(|rest| rest.pop_front());
    }

    /// Takes the operation out, wherever it stands. O(outstanding operations of this socket).
    pub(super) fn remove(&mut self, token: Token) {
        if self.first.as_ref().is_some_and(|(first, _)| *first == token) {
            self.pop();
        } else if let Some(rest) = &mut self.rest {
            rest.retain(|(other, _)| *other != token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(raw: u64) -> Token {
        Token::from_raw(raw)
    }

    #[test]
    fn operations_leave_in_the_order_they_came_whichever_is_removed() {
        for removed in 1..=4 {
            let mut fifo = Fifo::default();
            (1..=4).for_each(|raw| fifo.push(token(raw), raw));
            fifo.remove(token(removed));
            let left: Vec<u64> = std::iter::from_fn(|| fifo.pop()).map(|(_, raw)| raw).collect();
            let expected: Vec<u64> = (1..=4).filter(|&raw| raw != removed).collect();
            assert_eq!(left, expected);
            assert!(fifo.is_empty());
        }
    }
}
