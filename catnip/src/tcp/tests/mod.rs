//! TCP segment by segment: one stack, and a peer that is a script (compare packetdrill).

mod acceptability;
mod acknowledgment;
mod data;
mod handshake;
mod recovery;
mod reset;
mod retransmission;
mod script;
mod seg;
mod window;
