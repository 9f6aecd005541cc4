//! TCP segment by segment: one stack, and a peer that is a script (compare packetdrill).

mod acceptability;
mod acknowledgment;
mod data;
mod handshake;
mod reset;
mod script;
mod seg;
