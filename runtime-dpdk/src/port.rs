//! A port: found or plugged in, set up by what its driver can do, started when all its queues are there, and given
//! back with the last of them.

use std::ffi::{CStr, CString, c_char};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use dpdk_sys as sys;
use libos::memory::ArenaConfig;
use libos::runtime::Medium;
use libos::{Arena, Capabilities, MemoryAccess, SetupError, mac};

use crate::config::{DpdkConfig, MAX_MTU};
use crate::events::Events;
use crate::failure::{check, describe, failed, last_number};
use crate::negotiation::{Negotiated, Offered};
use crate::registration::{self, Device};
use crate::spreading::Spreading;
use crate::{drivers, eal};

/// Between two looks at the link.
const LINK_LOOK_EVERY: Duration = Duration::from_millis(2);

/// More than anything is waited for.
const FOR_EVER: Duration = Duration::from_secs(1 << 32);

/// An open port, from which a library OS's memory and a runtime for each queue are made.
#[derive(Debug)]
pub struct DpdkPort {
    port: Arc<Port>,
}

/// A queue pair of a port, which may move to the thread that will poll it.
#[derive(Debug)]
pub struct DpdkQueue {
    pub(crate) port: Arc<Port>,
    pub(crate) index: u16,
}

/// What all queues of a port share.
#[derive(Debug)]
pub(crate) struct Port {
    pub id: u16,
    pub name: String,
    /// As it calls itself.
    pub driver: String,
    pub hardware_address: [u8; 6],
    pub mtu: usize,
    pub rx_descriptors: u16,
    pub tx_descriptors: u16,
    /// That the device has at a time, of each queue.
    pub receive_buffers: usize,
    pub memory: MemoryAccess,
    pub negotiated: Negotiated,
    pub device: Device,
    pub interrupts: bool,
    queues: u16,
    spreading: Option<Spread>,
    /// The device chooses queues by the hash and the table that it was told.
    spreads: AtomicBool,
    link_wait: Duration,
    pub events: Events,
    /// The device was plugged in for this port, and is to be unplugged.
    plugged: bool,
    /// Frames flow. Asked by threads whose queue is set up, while another one waits for the link under the lock.
    runs: AtomicBool,
    state: Mutex<State>,
}

/// How the device is told to spread flows.
#[derive(Debug)]
struct Spread {
    /// As long as the device wants it. Drivers keep the address that they were given it at.
    key: Box<[u8]>,
    spreading: Spreading,
    device_entries: u16,
}

/// How far the port is.
#[derive(Debug, Default)]
struct State {
    /// Queues that were set up, and those given up again.
    set_up: u16,
    given_up: u16,
    started: bool,
    closed: bool,
}

impl DpdkPort {
    /// Opens a port: initialises EAL if this is the process's first, plugs the device in, and sets it up as far as that
    /// takes no memory of the library OS. `region_bytes` is how large a region [`Self::arena`] will be asked for, so
    /// that DPDK gets enough memory for one where the driver wants it from there.
    ///
    /// # Errors
    /// [`SetupError::Config`] for values that are out of range, [`SetupError::Device`] with the port, the call and DPDK's own words
    /// for what went wrong.
    pub fn open(config: &DpdkConfig, region_bytes: usize) -> Result<Self, SetupError> {
        config.validate()?;
        eal::initialise(config, region_bytes)?;
        let (id, plugged) = find(config)?;
        let name = port_name(id).unwrap_or_else(|| config.label());
        let port = Port::set_up(config, id, name, plugged)?;
        Ok(Self { port: Arc::new(port) })
    }

    /// The port's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.port.name
    }

    /// What the port's driver can do with memory.
    #[must_use]
    pub fn memory_access(&self) -> MemoryAccess {
        self.port.memory
    }

    /// Memory for a library OS that will use the port: from DPDK's heap where its driver takes no other.
    ///
    /// # Errors
    /// [`SetupError`] when there is not as much.
    pub fn arena(&self, config: &ArenaConfig) -> Result<Arena, SetupError> {
        self.port.arena(config)
    }

    /// The port's queue pairs. Frames flow once a runtime was made of each.
    #[must_use]
    pub fn into_queues(self) -> Vec<DpdkQueue> {
        (0..self.port.queues).map(|index| DpdkQueue { port: self.port.clone(), index }).collect()
    }
}

impl DpdkQueue {
    /// The port's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.port.name
    }

    /// What the port can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.port.capabilities()
    }

    /// Memory for the library OS that will use the queue; as [`DpdkPort::arena`].
    ///
    /// # Errors
    /// [`SetupError`] when there is not as much.
    pub fn arena(&self, config: &ArenaConfig) -> Result<Arena, SetupError> {
        self.port.arena(config)
    }
}

/// The port's number, and whether its device was plugged in now.
fn find(config: &DpdkConfig) -> Result<(u16, bool), SetupError> {
    let label = config.label();
    if config.device.is_empty() {
        // SAFETY: any number may be asked for.
        let valid = unsafe { sys::rte_eth_dev_is_valid_port(config.port) } != 0;
        let reason = "there is no such port: dpdk.device names one to open, or dpdk.eal_args";
        return if valid {
            Ok((config.port, false))
        } else {
            Err(failed(&label, "rte_eth_dev_is_valid_port", reason))
        };
    }
    if let Some(id) = port_number(&label)? {
        return Ok((id, false));
    }
    let device = in_c(&label, &config.device)?;
    registration::expect_sharing(&label);
    // SAFETY: a text that ends with a zero.
    let probe = || unsafe { sys::rte_dev_probe(device.as_ptr()) };
    let probed = registration::while_shared(probe);
    if probed < 0 {
        let reason = "no driver of DPDK's takes the device (dpdk.device), or it cannot be started";
        let number = if probed == -1 { last_number() } else { probed };
        return Err(failed(&label, "rte_dev_probe", format!("{}: {reason}", describe(number))));
    }
    match port_number(&label)? {
        Some(id) => Ok((id, true)),
        None => Err(failed(&label, "rte_dev_probe", "the device has no Ethernet port of its name")),
    }
}

fn in_c(label: &str, text: &str) -> Result<CString, SetupError> {
    CString::new(text).map_err(|_| failed(label, "rte_dev_probe", "the name has a zero byte"))
}

fn port_number(name: &str) -> Result<Option<u16>, SetupError> {
    let text = in_c(name, name)?;
    let mut id = 0;
    // SAFETY: a text that ends with a zero, and a number to write to.
    let result = unsafe { sys::rte_eth_dev_get_port_by_name(text.as_ptr(), &raw mut id) };
    Ok((result == 0).then_some(id))
}

fn port_name(id: u16) -> Option<String> {
    let mut name = [0 as c_char; sys::RTE_ETH_NAME_MAX_LEN as usize];
    // SAFETY: as much room as DPDK asks for; it ends what it writes with a zero.
    let found = unsafe { sys::rte_eth_dev_get_name_by_port(id, name.as_mut_ptr()) } == 0;
    let bytes = name.map(|letter| letter as u8);
    let text = CStr::from_bytes_until_nul(&bytes).ok()?.to_str().ok()?;
    found.then(|| text.to_owned())
}

/// A structure of DPDK's that is plain numbers and pointers, all zeros.
fn zeroed<T: Copy>() -> T {
    // SAFETY: only used for structures that C programs clear with memset.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

impl Port {
    fn set_up(config: &DpdkConfig, id: u16, name: String, plugged: bool) -> Result<Self, SetupError> {
        let mut info: sys::rte_eth_dev_info = zeroed();
        // SAFETY: the port is valid, and there is room for what it says.
        check(&name, "rte_eth_dev_info_get", unsafe { sys::rte_eth_dev_info_get(id, &raw mut info) })?;
        for (what, most) in [("receive", info.max_rx_queues), ("transmit", info.max_tx_queues)] {
            if config.queues > usize::from(most) {
                let reason = format!(
                    "{} queues (dpdk.queues), and the driver has {most} {what} queues",
                    config.queues
                );
                return Err(failed(&name, "rte_eth_dev_configure", reason));
            }
        }
        let mtu = mtu(config, &name, id, &info)?;
        let driver = text(info.driver_name);
        // One that the user's arguments for EAL made was not probed here.
        registration::expect_sharing(&driver);
        let withdrawn =
            if drivers::refuses_to_cut(&driver) { sys::CATNIP_RTE_ETH_TX_OFFLOAD_TCP_TSO } else { 0 };
        let offered = Offered {
            rx_offloads: info.rx_offload_capa,
            tx_offloads: info.tx_offload_capa & !withdrawn,
            rss_functions: info.flow_type_rss_offloads,
            max_segments: info.tx_desc_lim.nb_seg_max,
            max_segments_uncut: info.tx_desc_lim.nb_mtu_seg_max,
        };
        let negotiated = Negotiated::new(config, &offered, mtu);
        let queues = config.queues as u16;
        let spreading =
            if queues > 1 && negotiated.rss_functions != 0 { spread(config, &info) } else { None };
        let key = spreading.as_ref().map(|spread| &*spread.key);
        let interrupts = !drivers::refuses_interrupts(&driver);
        let configure = || configure(&name, id, (queues, mtu, interrupts), &negotiated, key);
        let interrupts = registration::while_shared(configure)?;
        // SAFETY: the port is valid.
        let accepted = unsafe { sys::rte_eth_dev_set_mtu(id, mtu as u16) };
        if accepted != 0 && current_mtu(id) != Some(mtu) && config.mtu != 0 {
            check(&name, "rte_eth_dev_set_mtu", accepted)?;
        }
        let (mut rx_descriptors, mut tx_descriptors) =
            (config.rx_descriptors as u16, config.tx_descriptors as u16);
        // SAFETY: the port is valid, and both are numbers to write to.
        let result = unsafe {
            sys::rte_eth_dev_adjust_nb_rx_tx_desc(id, &raw mut rx_descriptors, &raw mut tx_descriptors)
        };
        check(&name, "rte_eth_dev_adjust_nb_rx_tx_desc", result)?;

        let physical = eal::pci_address(&name).is_some();
        let memory = match drivers::memory_access(config.memory, &driver, physical) {
            // The buffers' addresses mean nothing to a device that wants physical ones.
            MemoryAccess::Dma | MemoryAccess::RuntimeHeapOnly
                if !registration::devices_use_our_addresses() =>
            {
                MemoryAccess::Copy
            }
            memory => memory,
        };
        let hardware_address = hardware_address(config, &name, id, &driver)?;
        Ok(Self {
            id,
            hardware_address,
            mtu,
            rx_descriptors,
            tx_descriptors,
            receive_buffers: usize::from(rx_descriptors).max(drivers::first_receive_buffers(&driver)),
            memory,
            negotiated,
            device: Device(info.device),
            interrupts,
            queues,
            spreading,
            spreads: AtomicBool::new(false),
            link_wait: config.link_wait,
            events: Events::new(&name)?,
            plugged,
            runs: AtomicBool::new(false),
            state: Mutex::default(),
            name,
            driver,
        })
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        Capabilities {
            medium: Medium::Ethernet,
            hardware_address: self.hardware_address,
            mtu: self.mtu,
            tx_checksum: self.negotiated.tx_checksum,
            tcp_segmentation_bytes: self.negotiated.tcp_segmentation_bytes,
            max_segments: self.negotiated.max_segments,
        }
    }

    fn arena(&self, config: &ArenaConfig) -> Result<Arena, SetupError> {
        match self.memory {
            MemoryAccess::RuntimeHeapOnly => {
                Arena::with_region(registration::region_from_heap(&self.name, config.region_bytes)?)
            }
            MemoryAccess::Dma | MemoryAccess::Copy => Arena::new(config),
        }
    }

    /// True when the device chooses a flow's queue by the hash and the table that it was told.
    pub(crate) fn spreads(&self) -> bool {
        self.spreads.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets one queue pair up, with the pool that it receives into. The last one starts the port, and waits for the link.
    ///
    /// # Errors
    /// [`SetupError::Device`]; the port is closed then, and uses the pool no more.
    pub(crate) fn set_up_queue(
        &self,
        queue: u16,
        receive_pool: *mut sys::rte_mempool,
    ) -> Result<(), SetupError> {
        let mut state = self.lock();
        let done = self.try_set_up_queue(&mut state, queue, receive_pool);
        if let Err(error) = &done {
            self.events.give_up(|| format!("queue {queue} could not be set up: {error}"));
            self.close(&mut state);
        }
        done
    }

    fn try_set_up_queue(
        &self,
        state: &mut State,
        queue: u16,
        receive_pool: *mut sys::rte_mempool,
    ) -> Result<(), SetupError> {
        let (id, rx, tx) = (self.id, self.rx_descriptors, self.tx_descriptors);
        // SAFETY: the port is configured for as many queues; no configuration means the driver's own.
        let receive = || unsafe { sys::rte_eth_rx_queue_setup(id, queue, rx, 0, ptr::null(), receive_pool) };
        check(&self.name, "rte_eth_rx_queue_setup", registration::while_shared(receive))?;
        // SAFETY: as above.
        let transmit = || unsafe { sys::rte_eth_tx_queue_setup(id, queue, tx, 0, ptr::null()) };
        check(&self.name, "rte_eth_tx_queue_setup", registration::while_shared(transmit))?;
        state.set_up += 1;
        if state.set_up == self.queues {
            self.start(state)?;
            // Not before: a port whose link does not come up is closed, which nobody else may be using then.
            self.runs.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// True when the port runs.
    pub(crate) fn is_started(&self) -> bool {
        self.runs.load(Ordering::Acquire)
    }

    fn start(&self, state: &mut State) -> Result<(), SetupError> {
        self.events.watch(self.id, &self.name)?;
        // SAFETY: the port is configured, with all queues set up.
        let start = || unsafe { sys::rte_eth_dev_start(self.id) };
        check(&self.name, "rte_eth_dev_start", registration::while_shared(start))?;
        state.started = true;
        if let Some(Spread { key, spreading, device_entries }) = &self.spreading {
            let told = Spreading::tell_key(self.id, key, self.negotiated.rss_functions)
                && spreading.apply(self.id, *device_entries);
            self.spreads.store(told, Ordering::Relaxed);
        }
        // Groups that the stack joins are not told to the port one by one. What a driver without the call
        // does not filter arrives anyway.
        // SAFETY: the port is started.
        if unsafe { sys::rte_eth_allmulticast_enable(self.id) } != 0 {
            // SAFETY: as above.
            unsafe { sys::rte_eth_promiscuous_enable(self.id) };
        }
        self.wait_for_link()
    }

    /// False while there is nobody of whom the driver needs one.
    pub(crate) fn has_peer(&self) -> bool {
        !drivers::needs_a_peer(&self.driver) || self.link_is_up()
    }

    /// What the started port says of its link; false when it cannot be asked.
    pub(crate) fn link_is_up(&self) -> bool {
        self.link().is_ok_and(|link| link.link_status() != 0)
    }

    fn link(&self) -> Result<sys::rte_eth_link, SetupError> {
        let mut link: sys::rte_eth_link = zeroed();
        // SAFETY: there is room for what the port says.
        let result = unsafe { sys::rte_eth_link_get_nowait(self.id, &raw mut link) };
        check(&self.name, "rte_eth_link_get_nowait", result).map(|_| link)
    }

    fn wait_for_link(&self) -> Result<(), SetupError> {
        let end = Instant::now() + self.link_wait.min(FOR_EVER);
        loop {
            if self.link()?.link_status() != 0 || self.link_wait.is_zero() {
                return Ok(());
            }
            if Instant::now() >= end {
                let ms = self.link_wait.as_millis();
                let reason =
                    format!("the link did not come up within {ms} ms (dpdk.link_wait_ms; 0 does not wait)");
                return Err(failed(&self.name, "rte_eth_link_get_nowait", reason));
            }
            sleep(LINK_LOOK_EVERY);
        }
    }

    /// Takes note that a queue will not be polled any more. With the last one the port is stopped and closed, and the
    /// device lets go of all memory: true then.
    pub(crate) fn give_up_queue(&self) -> bool {
        let mut state = self.lock();
        state.given_up += 1;
        if state.given_up == state.set_up {
            self.close(&mut state);
        }
        state.closed
    }

    fn close(&self, state: &mut State) {
        if state.closed {
            return;
        }
        state.closed = true;
        self.events.unwatch(self.id);
        // A port that never ran was not watched.
        if !matches!(port_number(&self.name), Ok(Some(id)) if id == self.id) {
            self.events.note_destroyed();
        }
        if self.events.is_destroyed() {
            return;
        }
        // SAFETY: the port is valid. A device that was pulled out refuses what it can't do any more.
        registration::while_shared(|| unsafe {
            if state.started {
                sys::rte_eth_dev_stop(self.id);
            }
            sys::rte_eth_dev_close(self.id);
        });
        state.started = false;
    }
}

impl Drop for Port {
    /// Unplugs the device, of which all queues have let go by now.
    fn drop(&mut self) {
        self.close(&mut self.lock());
        if self.plugged && !self.events.is_destroyed() {
            // SAFETY: the device exists, and its port is closed.
            registration::while_shared(|| unsafe { sys::rte_dev_remove(self.device.0) });
        }
    }
}

/// What the device is to be told of how to spread flows; None when it has no use for that.
fn spread(config: &DpdkConfig, info: &sys::rte_eth_dev_info) -> Option<Spread> {
    let spreading = config.spreading.clone()?;
    let key = spreading.key_of(info.hash_key_size)?;
    Some(Spread { key, spreading, device_entries: info.reta_size })
}

/// Configures the port, with receive interrupts if they are wanted and it has them: true then.
fn configure(
    name: &str,
    id: u16,
    (queues, mtu, interrupts): (u16, usize, bool),
    negotiated: &Negotiated,
    hash_key: Option<&[u8]>,
) -> Result<bool, SetupError> {
    let mut conf: sys::rte_eth_conf = zeroed();
    conf.rxmode.mtu = mtu as u32;
    conf.rxmode.offloads = negotiated.rx_offloads;
    conf.txmode.offloads = negotiated.tx_offloads;
    if queues > 1 && negotiated.rss_functions != 0 {
        conf.rxmode.mq_mode = sys::RTE_ETH_MQ_RX_RSS;
        conf.rx_adv_conf.rss_conf.rss_hf = negotiated.rss_functions;
        if let Some(key) = hash_key {
            // DPDK reads it alone.
            conf.rx_adv_conf.rss_conf.rss_key = key.as_ptr().cast_mut();
            conf.rx_adv_conf.rss_conf.rss_key_len = key.len() as u8;
        }
    }
    if interrupts {
        conf.intr_conf.set_rxq(1);
        // SAFETY: the port is valid and stopped, and the key lives as long as it.
        if unsafe { sys::rte_eth_dev_configure(id, queues, queues, &raw const conf) } == 0 {
            return Ok(true);
        }
    }
    conf.intr_conf.set_rxq(0);
    // SAFETY: as above.
    let result = unsafe { sys::rte_eth_dev_configure(id, queues, queues, &raw const conf) };
    check(name, "rte_eth_dev_configure", result).map(|_| false)
}

fn current_mtu(id: u16) -> Option<usize> {
    let mut mtu = 0;
    // SAFETY: a number to write to.
    (unsafe { sys::rte_eth_dev_get_mtu(id, &raw mut mtu) } == 0).then_some(usize::from(mtu))
}

/// The MTU that was asked for, or the port's own; what the driver does not carry is refused.
fn mtu(config: &DpdkConfig, name: &str, id: u16, info: &sys::rte_eth_dev_info) -> Result<usize, SetupError> {
    if config.mtu == 0 {
        return Ok(current_mtu(id).unwrap_or(1500).min(MAX_MTU));
    }
    let (least, most) = (usize::from(info.min_mtu), usize::from(info.max_mtu));
    if (least..=most).contains(&config.mtu) {
        return Ok(config.mtu);
    }
    let reason = format!("{} (dpdk.mtu), and the driver carries {least} to {most}", config.mtu);
    Err(failed(name, "rte_eth_dev_set_mtu", reason))
}

/// The port's Ethernet address, after it was given the one that the configuration has.
fn hardware_address(config: &DpdkConfig, name: &str, id: u16, driver: &str) -> Result<[u8; 6], SetupError> {
    let mut address: sys::rte_ether_addr = zeroed();
    let mirrors = drivers::mirrors_address(driver);
    if let Some(mac) = config.mac {
        address.addr_bytes = mac;
        if mirrors {
            return Ok(mac);
        }
        // SAFETY: the port is valid, and the address is read alone.
        let result = unsafe { sys::rte_eth_dev_default_mac_addr_set(id, &raw mut address) };
        // A port that filters nothing needs no address; the stack's frames carry it.
        if result != -libc::ENOTSUP {
            check(name, "rte_eth_dev_default_mac_addr_set", result)?;
        }
        return Ok(mac);
    }
    // SAFETY: there is room for the address.
    check(name, "rte_eth_macaddr_get", unsafe { sys::rte_eth_macaddr_get(id, &raw mut address) })?;
    let own = address.addr_bytes;
    let own = if mirrors { mac::neighbour_of(own) } else { own };
    if !mac::is_station(own) {
        let reason = format!("{}: dpdk.mac gives it one", describe(libc::EADDRNOTAVAIL));
        return Err(failed(name, "rte_eth_macaddr_get", reason));
    }
    Ok(own)
}

fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: drivers' names are texts that end with a zero.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}
