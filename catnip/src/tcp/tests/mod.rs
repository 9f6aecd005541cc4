//! TCP segment by segment: one stack, and a peer that is a script (compare packetdrill).

mod acceptability;
mod acknowledgment;
mod backlog;
mod buffers;
mod closing;
mod congestion;
mod cookies;
mod data;
mod ecn;
mod handshake;
mod hostile;
mod icmp;
mod info;
mod keepalive;
mod limits;
mod options;
mod policies;
mod recovery;
mod reset;
mod retransmission;
mod script;
mod seg;
mod selective;
mod timewait;
mod turns;
mod window;
