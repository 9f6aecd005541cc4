//! The back end's side of the control protocol: it answers what the front end asks.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{
    BackendReqHandler, Error, GpuBackend, Result, VhostUserBackendReqHandlerMut, VhostUserProtocolFeatures,
};
use vmm_sys_util::eventfd::EventFd;

use super::{RingSetup, early};
use crate::config::VhostConfig;
use crate::features::Features;
use crate::link::socket::{self, Listener};
use crate::link::{Link, Phase, lock};
use crate::peer_memory::{MAX_REGIONS, PeerMemory};
use crate::ring::{MAX_RING_SIZE, MIN_RING_SIZE, Position, RingOptions};
use crate::system;

/// How long a front end that stops a ring is kept waiting for a program that does not poll.
const SEEN_TIMEOUT: Duration = Duration::from_secs(10);

/// After a front end that broke the rules the next one is waited with for so long: one that comes again and again is nothing that
/// a processor, or the log, is full of.
const PAUSE: Duration = Duration::from_millis(100);

/// How most links end.
const LEFT: &str = "the front end left";

/// What the control thread does for as long as the device is there.
pub(crate) fn control(link: &Arc<Link>, config: &VhostConfig) -> std::result::Result<(), String> {
    let listener = if config.server { Some(Listener::bind(&config.socket)?) } else { None };
    let mut agreed = None;
    loop {
        let stream = match &listener {
            Some(listener) => listener.accept(link)?,
            None => socket::connect(&config.socket, link)?,
        };
        let Some(stream) = stream else { return Ok(()) };
        link.set_stream(&stream)?;
        let was_up = agreed.is_some();
        let end = serve(stream, link, config, &mut agreed);
        let end = link.reason_given_up().unwrap_or(end);
        if link.is_closing() {
            return Ok(());
        }
        let left = end == LEFT;
        // Who looks in at the socket and leaves is not whom the program waits for.
        let looked_in = left && !was_up && agreed.is_none() && listener.is_some();
        if !config.reconnect && !looked_in {
            link.fail(end, left);
            return Ok(());
        }
        if !left {
            log::warn!("{}: {end}; waiting for the next front end", config.name());
            system::wait_readable([&link.control], PAUSE);
        }
    }
}

/// Answers one front end until it leaves or breaks the rules; says which.
fn serve(
    stream: UnixStream,
    link: &Arc<Link>,
    config: &VhostConfig,
    agreed: &mut Option<Features>,
) -> String {
    let device = Device {
        link: link.clone(),
        config: config.clone(),
        agreed: *agreed,
        features: Features::default(),
        memory: None,
        rings: (0..2 * config.queues).map(|_| Ring::default()).collect(),
        refusal: None,
    };
    let device = Arc::new(Mutex::new(device));
    let peeked = match stream.try_clone() {
        Ok(peeked) => peeked,
        Err(error) => return error.to_string(),
    };
    let mut requests = BackendReqHandler::from_stream(stream, device.clone());
    let error = loop {
        let chosen = lock(&device).features.has_protocol_features();
        let handled = match if chosen { None } else { early::ring_enable(&peeked) } {
            Some((ring, enable)) => lock(&device).set_vring_enable(ring, enable),
            None => requests.handle_request(),
        };
        if let Err(error) = handled {
            break error;
        }
    };
    let mut device = lock(&device);
    device.stop_all();
    *agreed = device.agreed;
    match (device.refusal.take(), error) {
        (Some(refusal), _) => refusal,
        (None, Error::Disconnected | Error::PartialMessage) => LEFT.to_owned(),
        (None, error) => format!("the front end sent what cannot be served: {error}"),
    }
}

/// What the front end said about a ring.
#[derive(Debug, Default)]
struct Ring {
    size: u16,
    areas: Option<[u64; 3]>,
    base: u32,
    started: bool,
    enabled: bool,
    kick: Option<Arc<EventFd>>,
    call: Option<Arc<EventFd>>,
}

/// The device as the front end has set it up so far.
#[derive(Debug)]
struct Device {
    link: Arc<Link>,
    config: VhostConfig,
    /// What the program above was told that the link can do.
    agreed: Option<Features>,
    features: Features,
    memory: Option<Arc<PeerMemory>>,
    rings: Vec<Ring>,
    /// Why a request was refused.
    refusal: Option<String>,
}

impl Device {
    fn refuse<T>(&mut self, reason: impl Into<String>) -> Result<T> {
        self.refusal = Some(reason.into());
        Err(Error::InvalidParam)
    }

    fn ring(&mut self, index: u32) -> Result<&mut Ring> {
        let rings = self.rings.len();
        if index as usize >= rings {
            return self.refuse(format!("the front end speaks of ring {index} of {rings}"));
        }
        Ok(&mut self.rings[index as usize])
    }

    /// The ring as the queue is to serve it, if it runs.
    fn setup(&self, ring: &Ring) -> Option<RingSetup> {
        let enabled = ring.enabled || !self.features.has_protocol_features();
        if !ring.started || !enabled || !self.features.has_version_1() {
            return None;
        }
        let kind = self.features.ring_kind();
        let setup = RingSetup {
            memory: self.memory.clone()?,
            options: RingOptions { kind, size: ring.size, event_index: self.features.has_event_index() },
            areas: ring.areas?,
            start: Position::from_base(ring.base, kind, ring.size.max(1)),
            kick: ring.kick.clone(),
            call: ring.call.clone(),
        };
        setup.ring_memory().map(|_| setup)
    }

    /// Has the queue of ring `index` serve what the front end has set up by now. When it returns, nothing that was
    /// in use before and is no more will be touched.
    fn update(&mut self, index: usize) -> Result<()> {
        let pair = index / 2;
        let setups = [2 * pair, 2 * pair + 1].map(|ring| self.setup(&self.rings[ring]));
        let link = self.link.clone();
        let cell = &link.pairs[pair];
        {
            let mut rings = lock(&cell.back);
            let same = |(old, new): (&Option<RingSetup>, &Option<RingSetup>)| match (old, new) {
                (Some(old), Some(new)) => old.is_same(new),
                (old, new) => old.is_none() && new.is_none(),
            };
            let mut both = rings.setups.iter().zip(&setups);
            if both.clone().all(same) {
                return Ok(());
            }
            let stops = rings.in_use && both.any(|both| both.0.is_some() && !same(both));
            let ends = rings.setups.iter().zip(&setups).any(|both| match both {
                (Some(old), Some(new)) => !new.goes_on_from(old),
                (old, _) => old.is_some(),
            });
            rings.setups = setups;
            rings.mergeable = self.features.has_mergeable_buffers();
            drop(rings);
            cell.notify();
            // Memory that came can be used from when the queue has seen it; whoever does not poll uses none.
            if stops && !link.wait_until_seen(cell, SEEN_TIMEOUT) && ends {
                return self.refuse("the program did not poll in time for the front end to stop a ring");
            }
            // Where a ring that was stopped goes on when it is started again.
            let kind = self.features.ring_kind();
            let positions = std::mem::take(&mut lock(&cell.back).positions);
            for (ring, position) in self.rings[2 * pair..].iter_mut().zip(positions) {
                ring.base = position.map_or(ring.base, |position| position.to_base(kind));
            }
        }
        self.come_up()
    }

    /// Says that the link is up once its first queue pair runs.
    fn come_up(&mut self) -> Result<()> {
        let runs = lock(&self.link.pairs[0].back).setups.iter().all(Option::is_some);
        if !runs {
            return Ok(());
        }
        let features = self.features;
        match self.agreed {
            Some(agreed) if agreed.capabilities(&self.config) != features.capabilities(&self.config) => {
                self.refuse("the new front end can do less than the one before")
            }
            _ => {
                self.agreed = Some(features);
                self.link.set_phase(Phase::Up(features));
                Ok(())
            }
        }
    }

    /// Stops all rings; what the queues did last is where they are.
    fn stop_all(&mut self) {
        self.rings.iter_mut().for_each(|ring| ring.started = false);
        for pair in 0..self.link.pairs.len() {
            if let Err(error) = self.update(2 * pair) {
                self.refusal.get_or_insert_with(|| error.to_string());
            }
        }
    }

    /// From now on, the front end shares other memory. What it shared before and does no more is used by nobody when this returns.
    fn replace_memory(&mut self, memory: std::result::Result<PeerMemory, String>) -> Result<()> {
        match memory {
            Ok(memory) => self.memory = Some(Arc::new(memory)),
            Err(reason) => return self.refuse(reason),
        }
        (0..self.link.pairs.len()).try_for_each(|pair| self.update(2 * pair))
    }

    fn unsupported<T>(&mut self, what: &str) -> Result<T> {
        self.refuse(format!("the front end asks for what was not offered: {what}"))
    }

    /// An event descriptor that the front end sent, if it sent any.
    fn event(&mut self, file: Option<File>) -> Result<Option<Arc<EventFd>>> {
        match file.map(system::event_fd_from_peer) {
            None => Ok(None),
            Some(Some(event)) => Ok(Some(Arc::new(event))),
            Some(None) => self.refuse("the front end sent something else than an event descriptor"),
        }
    }
}

impl VhostUserBackendReqHandlerMut for Device {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.stop_all();
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        self.stop_all();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(Features::wanted(&self.config).0)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        let offered = Features::wanted(&self.config).0;
        if features & !offered != 0 {
            return self.refuse(format!("the front end takes features {:#x} unasked", features & !offered));
        }
        if self.features.0 != features {
            if lock(&self.link.pairs[0].back).setups.iter().any(Option::is_some) {
                return self.refuse("the front end changes features while rings run");
            }
            self.features = Features(features);
        }
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<u64>>> {
        self.replace_memory(PeerMemory::map(regions, &files, self.config.trust_peer))?;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        match u16::try_from(num) {
            Ok(size) if size.is_power_of_two() && (MIN_RING_SIZE..=MAX_RING_SIZE).contains(&size) => {
                self.ring(index)?.size = size;
                self.update(index as usize)
            }
            _ => self.refuse(format!("the front end has rings of {num} descriptors")),
        }
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        self.ring(index)?.areas = Some([descriptor, available, used]);
        self.update(index as usize)?;
        let ring = &self.rings[index as usize];
        let runs = ring.started && self.memory.is_some();
        if runs && self.setup(ring).is_none() {
            return self.refuse("the front end has a ring outside the memory that it shares");
        }
        Ok(())
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        self.ring(index)?.base = base;
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        self.ring(index)?.started = false;
        self.update(index as usize)?;
        let ring = self.ring(index)?;
        ring.kick = None;
        Ok(VhostUserVringState::new(index, ring.base))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let kick = self.event(file)?;
        let ring = self.ring(index.into())?;
        ring.kick = kick;
        ring.started = true;
        let set_up = ring.areas.is_some();
        self.update(index.into())?;
        let ring = &self.rings[usize::from(index)];
        let enabled = ring.enabled || !self.features.has_protocol_features();
        if set_up && enabled && self.memory.is_some() && self.setup(ring).is_none() {
            return self.refuse("the front end has a ring outside the memory that it shares");
        }
        Ok(())
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let call = self.event(file)?;
        self.ring(index.into())?.call = call;
        self.update(index.into())
    }

    fn set_vring_err(&mut self, index: u8, file: Option<File>) -> Result<()> {
        self.event(file)?;
        self.ring(index.into()).map(drop)
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)
    }

    fn set_protocol_features(&mut self, _features: u64) -> Result<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.config.queues as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.ring(index)?.enabled = enable;
        self.update(index as usize)?;
        let ring = &self.rings[index as usize];
        if enable && ring.started && self.setup(ring).is_none() {
            return self.refuse("the front end has a ring outside the memory that it shares");
        }
        Ok(())
    }

    fn get_config(&mut self, _offset: u32, _size: u32, _flags: VhostUserConfigFlags) -> Result<Vec<u8>> {
        self.unsupported("GET_CONFIG")
    }

    fn set_config(&mut self, _offset: u32, _bytes: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        self.unsupported("SET_CONFIG")
    }

    fn set_gpu_socket(&mut self, _gpu: GpuBackend) -> Result<()> {
        self.unsupported("GPU_SET_SOCKET")
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        self.unsupported("GET_SHARED_OBJECT")
    }

    fn get_inflight_fd(&mut self, _inflight: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        self.unsupported("GET_INFLIGHT_FD")
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> Result<()> {
        self.unsupported("SET_INFLIGHT_FD")
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(MAX_REGIONS as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy: Option<bool>,
    ) -> Result<Option<u64>> {
        let trusted = self.config.trust_peer;
        let memory = match &self.memory {
            Some(memory) => memory.with(region, &file, trusted),
            None => PeerMemory::map(&[**region], &[file], trusted),
        };
        self.replace_memory(memory)?;
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let Some(memory) = &self.memory else {
            return self.refuse("the front end takes memory back that it never shared");
        };
        let memory = memory.without(region);
        self.replace_memory(Ok(memory))
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _file: File,
    ) -> Result<Option<File>> {
        self.unsupported("SET_DEVICE_STATE_FD")
    }

    fn check_device_state(&mut self) -> Result<()> {
        self.unsupported("CHECK_DEVICE_STATE")
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        self.unsupported("GET_SHMEM_CONFIG")
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> Result<()> {
        self.unsupported("SET_LOG_BASE")
    }
}
