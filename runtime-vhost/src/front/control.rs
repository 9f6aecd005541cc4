//! The front end's side of the control protocol: it asks, the back end answers.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vhost::vhost_user::message::VhostUserHeaderFlag;
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VringConfigData};

use super::table::Table;
use super::{FrontSetup, Stop};
use crate::config::VhostConfig;
use crate::features::Features;
use crate::link::socket::{self, Listener};
use crate::link::{FOREVER, Link, Phase, lock};
use crate::ring::{Position, RingKind};
use crate::system;

/// Between two looks at whether anybody is still interested.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Most regions of memory that a back end is told of, whatever more it takes.
const MAX_SLOTS: usize = 64;

/// What the control thread does, from the first connection to the last ring's end.
pub(crate) fn control(link: &Arc<Link>, config: &VhostConfig) -> Result<(), String> {
    let Some((mut frontend, watched, offered)) = meet(link, config)? else { return Ok(()) };
    let (features, slots) = agree(&mut frontend, config, offered)?;
    link.set_phase(Phase::Agreed(features));

    let attached = || link.pairs.iter().all(|pair| lock(&pair.front).attached);
    link.wait(Instant::now() + FOREVER, |_| (attached() || link.is_closing()).then_some(()));
    if link.is_closing() {
        return Ok(());
    }
    let mut table = start(&mut frontend, link, config, (features, slots))?;
    link.set_phase(Phase::Up(features));
    attend(&mut frontend, &watched, link, &mut table)
}

/// Meets a back end that says what it can do; None when the link closes first. The connection is returned as well.
fn meet(link: &Link, config: &VhostConfig) -> Result<Option<(Frontend, UnixStream, u64)>, String> {
    let listener = if config.server { Some(Listener::bind(&config.socket)?) } else { None };
    loop {
        let stream = match &listener {
            Some(listener) => listener.accept(link)?,
            None => socket::connect(&config.socket, link)?,
        };
        let Some(stream) = stream else { return Ok(None) };
        link.set_stream(&stream)?;
        let watched = stream.try_clone().map_err(|error| error.to_string())?;
        let frontend = Frontend::from_stream(stream, 2 * config.queues as u64);
        match frontend.get_features() {
            Ok(offered) => return Ok(Some((frontend, watched, offered))),
            // Who looks in at the socket and leaves is not whom the program waits for.
            Err(_) if listener.is_some() && matches!(system::peek(&watched), Ok(0)) => {}
            Err(error) => return Err(failed("GET_FEATURES")(error)),
        }
    }
}

pub(super) fn failed(call: &'static str) -> impl Fn(vhost::Error) -> String {
    move |error| format!("{call}: {error}")
}

/// Says what is to be used of what the back end offers, and how many regions of memory it takes one by one.
fn agree(frontend: &mut Frontend, config: &VhostConfig, offered: u64) -> Result<(Features, usize), String> {
    let mut slots = 0;
    let features = Features::accepted(config, offered)?;
    if features.has_protocol_features() {
        let known = frontend.get_protocol_features().map_err(failed("GET_PROTOCOL_FEATURES"))?;
        let one_by_one = VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS;
        let mut wanted = known & (VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK);
        // Without an answer nobody knows when the back end has a region.
        if wanted.contains(VhostUserProtocolFeatures::REPLY_ACK) {
            wanted |= known & one_by_one;
        }
        frontend.set_protocol_features(wanted).map_err(failed("SET_PROTOCOL_FEATURES"))?;
        if wanted.contains(VhostUserProtocolFeatures::REPLY_ACK) {
            frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        if wanted.contains(one_by_one) {
            let most = frontend.get_max_mem_slots().map_err(failed("GET_MAX_MEM_SLOTS"))?;
            slots = usize::try_from(most).unwrap_or(usize::MAX).min(MAX_SLOTS);
        }
        if config.queues > 1 && !wanted.contains(VhostUserProtocolFeatures::MQ) {
            return Err("the back end has one queue pair".to_owned());
        }
        // Not asked is GET_QUEUE_NUM: the crate takes its answer for a number of rings, and back ends
        // mean pairs. One that has too few refuses the first ring that it does not have.
    } else if config.queues > 1 {
        return Err("the back end has one queue pair".to_owned());
    }
    frontend.set_owner().map_err(failed("SET_OWNER"))?;
    frontend.set_features(features.0).map_err(failed("SET_FEATURES"))?;
    Ok((features, slots))
}

/// Tells the back end where memory and rings are, and starts them.
fn start(
    frontend: &mut Frontend,
    link: &Link,
    config: &VhostConfig,
    (features, slots): (Features, usize),
) -> Result<Table, String> {
    let setups: Option<Vec<FrontSetup>> =
        link.pairs.iter().map(|pair| lock(&pair.front).setup.take()).collect();
    // Rings have the numbers of their queues.
    let setups = setups.ok_or("a queue was given up before all of them were there")?;
    let table = Table::share(frontend, config, &setups, slots)?;
    let base = match features.ring_kind() {
        RingKind::Split => 0,
        RingKind::Packed => Position { index: 0, wrap: true }.to_base(RingKind::Packed) as u16,
    };
    for (index, ring) in setups.iter().flat_map(|setup| &setup.rings).enumerate() {
        let [desc_table_addr, avail_ring_addr, used_ring_addr] = ring.areas;
        let size = config.queue_size;
        let addresses = VringConfigData {
            queue_max_size: size,
            queue_size: size,
            flags: 0,
            desc_table_addr,
            used_ring_addr,
            avail_ring_addr,
            log_addr: None,
        };
        frontend.set_vring_num(index, size).map_err(failed("SET_VRING_NUM"))?;
        frontend.set_vring_base(index, base).map_err(failed("SET_VRING_BASE"))?;
        frontend.set_vring_addr(index, &addresses).map_err(failed("SET_VRING_ADDR"))?;
        frontend.set_vring_call(index, &ring.call).map_err(failed("SET_VRING_CALL"))?;
        frontend.set_vring_kick(index, &ring.kick).map_err(failed("SET_VRING_KICK"))?;
    }
    if features.has_protocol_features() {
        for index in 0..2 * setups.len() {
            frontend.set_vring_enable(index, true).map_err(failed("SET_VRING_ENABLE"))?;
        }
    }
    if !table.ids().is_empty() {
        tell_queues(link, &table);
    }
    Ok(table)
}

/// Tells the queues which regions the back end knows.
fn tell_queues(link: &Link, table: &Table) {
    for pair in &link.pairs {
        lock(&pair.front).shared = table.ids();
        pair.notify();
    }
}

/// Stops queues that are dropped, until the last one is, shares memory that comes later, and notices when the back end leaves.
fn attend(
    frontend: &mut Frontend,
    watched: &UnixStream,
    link: &Link,
    table: &mut Table,
) -> Result<(), String> {
    loop {
        let [peer, asked] = system::wait_readable([watched, &link.control], LOOK_EVERY);
        if asked {
            // Only empties the counter.
            let _ = link.control.read();
        }
        if stop_dropped(frontend, link)? || link.is_closing() {
            return Ok(());
        }
        if !peer && table.update(frontend)? {
            tell_queues(link, table);
        }
        if peer {
            match system::peek(watched) {
                Ok(0) => {
                    link.fail("the back end left", true);
                    return Ok(());
                }
                Ok(_) => return Err("the back end said something that it was not asked".to_owned()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

/// Stops the rings of the queues that ask for it; true when all are stopped.
fn stop_dropped(frontend: &mut Frontend, link: &Link) -> Result<bool, String> {
    let mut all = true;
    for (index, pair) in link.pairs.iter().enumerate() {
        let stop = lock(&pair.front).stop;
        if stop == Stop::Asked {
            for ring in [2 * index, 2 * index + 1] {
                // The answer comes once the back end uses the ring and its buffers no more.
                frontend.get_vring_base(ring).map_err(failed("GET_VRING_BASE"))?;
            }
            lock(&pair.front).stop = Stop::Done;
            link.announce();
        }
        all &= stop != Stop::No;
    }
    Ok(all)
}
