//! Frames that may belong to another core: the stack is asked.

use libos::module::Completions;
use libos::runtime::Doubt;
use libos::{Instant, Runtime};

use super::StackModule;
use super::pops::Pops;

impl<R: Runtime> StackModule<R> {
    /// Takes in what the stack knows of, and passes on the rest: this one and all that follow.
    #[cold]
    #[inline(never)]
    pub(super) fn settle_doubts(&mut self, now: Instant, first: Doubt, completions: &mut Completions) {
        let mut next = Some(first);
        while let Some(doubt) = next {
            let ours =
                if self.stack.claims(&doubt.frame) { Some(doubt.frame) } else { self.runtime.pass_on(doubt) };
            if let Some(frame) = ours {
                let mut pops = Pops { sockets: &mut self.sockets, completions, in_burst: true };
                self.stack.stir().receive_for(now, frame, &mut pops);
            }
            next = self.runtime.next_doubt();
        }
    }
}
