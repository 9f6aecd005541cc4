//! Which of the many ways of XDP was got.

use std::fmt;

use super::config::{Placement, XdpConfig};

/// How a queue's frames come and go.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct XdpMode {
    /// Frames are taken in the driver, and not behind it.
    pub native: bool,
    /// The device reads and writes the library OS's memory itself; else the kernel copies.
    pub zero_copy: bool,
    /// A frame may lie in several pieces of memory, and be longer than one.
    pub multi_buffer: bool,
    /// Why the better was not got, in the words of the calls that were refused; empty when there is no better.
    pub refused: Vec<String>,
}

impl XdpMode {
    /// True when frames come and go in another way than the configuration would rather have.
    pub(super) fn falls_short_of(&self, config: &XdpConfig) -> bool {
        config.placement == Placement::Auto && !self.native || config.zero_copy && !self.zero_copy
    }
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let native = if self.native { "native" } else { "generic" };
        let copy = if self.zero_copy { "zero-copy" } else { "copying" };
        let buffers = if self.multi_buffer { "several buffers" } else { "one buffer" };
        write!(f, "{native} mode, {copy}, {buffers} a frame")?;
        for refusal in &self.refused {
            write!(f, "; {refusal}")?;
        }
        Ok(())
    }
}
