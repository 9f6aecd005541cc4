//! One core's seat: all it takes to build a library OS, in a form that may be sent to the core's thread.

use std::fmt;
use std::time::Duration;

use catnip::steering::{CoreShare, ExchangeSeat, exchange};
#[cfg(any(feature = "tap", feature = "packet", feature = "xdp", feature = "dpdk", feature = "vhost"))]
use catnip::steering::{Link, Steered};
#[cfg(any(feature = "tap", feature = "packet", feature = "xdp", feature = "dpdk", feature = "vhost"))]
use libos::Runtime;
use libos::{Config, LibOs, SetupError, affinity};

use super::CoresConfig;
#[cfg(any(feature = "tap", feature = "packet", feature = "xdp", feature = "dpdk", feature = "vhost"))]
use crate::device::{self, DeviceQueue};
use crate::open::{self, network};

/// Stands for a number of queues that nobody set: as many as cores.
#[cfg(any(feature = "tap", feature = "packet", feature = "xdp", feature = "dpdk", feature = "vhost"))]
const NOT_SET: usize = usize::MAX;

/// Builds a core's library OS, on the core's thread.
type Build = Box<dyn FnOnce(Part<'_>) -> Result<LibOs, SetupError> + Send>;

/// A core's part of what the cores have in common.
#[cfg_attr(
    not(any(feature = "tap", feature = "packet", feature = "xdp", feature = "dpdk", feature = "vhost")),
    allow(dead_code, reason = "without devices cores have nothing in common")
)]
struct Part<'a> {
    config: &'a Config,
    share: CoreShare,
    exchange: ExchangeSeat,
    /// What addresses that the stacks form follow from: the same on all cores.
    address_secret: u128,
}

/// What a core's thread builds its library OS from. Made by [`Cores::open`](super::Cores::open).
pub struct CoreSeat {
    core: usize,
    cpu: Option<usize>,
    config: Config,
    wait_for_addresses: Duration,
    share: CoreShare,
    exchange: ExchangeSeat,
    address_secret: u128,
    build: Build,
}

impl CoreSeat {
    /// The core's number, from 0 on.
    #[must_use]
    pub const fn core(&self) -> usize {
        self.core
    }

    /// The processor that the core's thread is bound to, if to any.
    #[must_use]
    pub const fn cpu(&self) -> Option<usize> {
        self.cpu
    }

    /// Binds the calling thread to the core's processor, as `pin` in `[cores]` has it, and builds the core's library OS.
    ///
    /// # Errors
    /// [`SetupError`]: a mistake in the configuration, what the machine does not provide, or no address in time.
    pub fn open(self) -> Result<LibOs, SetupError> {
        let Self { core: _, cpu, config, wait_for_addresses, share, exchange, address_secret, build } = self;
        if let Some(cpu) = cpu {
            affinity::pin_to(cpu)?;
        }
        let libos = build(Part { config: &config, share, exchange, address_secret })?;
        network::wait_for_addresses(&libos, wait_for_addresses)?;
        Ok(libos)
    }
}

impl fmt::Debug for CoreSeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoreSeat").field("core", &self.core).field("cpu", &self.cpu).finish_non_exhaustive()
    }
}

/// Opens the device and makes a seat for each core.
pub(super) fn open_seats(config: &Config) -> Result<Vec<CoreSeat>, SetupError> {
    let cores = CoresConfig::from_config(config)?;
    let (kind, wait_for_addresses) = open::kind_and_wait(config)?;
    let builds: Vec<Build> = match kind {
        "none" => (0..cores.count).map(|_| without_stack()).collect(),
        // Each core reaches itself alone.
        "loopback" => (0..cores.count).map(|_| loopback()).collect(),
        #[cfg(feature = "tap")]
        "tap" => queues::<runtime_linux::tap::TapQueue>(config, cores.count)?,
        #[cfg(feature = "packet")]
        "packet" => queues::<runtime_linux::packet::PacketSocket>(config, cores.count)?,
        #[cfg(feature = "xdp")]
        "xdp" => queues::<runtime_linux::xdp::XdpQueue>(config, cores.count)?,
        #[cfg(feature = "dpdk")]
        "dpdk" => queues::<runtime_dpdk::DpdkQueue>(config, cores.count)?,
        #[cfg(feature = "vhost")]
        "vhost" => queues::<runtime_vhost::VhostQueue>(config, cores.count)?,
        _ => return Err(config.section("runtime").reject("kind", "a device that several cores can share")),
    };
    let shares = CoreShare::split(cores.count, cores.hash_key);
    let exchange = exchange(cores.count, cores.ring_frames)?;
    let address_secret = u128::from(network::seed()?) << 64 | u128::from(network::seed()?);
    let parts = shares.into_iter().zip(exchange).zip(builds).enumerate();
    Ok(parts
        .map(|(core, ((share, exchange), build))| CoreSeat {
            core,
            cpu: cores.cpu_of(core),
            config: config.clone(),
            wait_for_addresses,
            share,
            exchange,
            address_secret,
            build,
        })
        .collect())
}

fn without_stack() -> Build {
    Box::new(|part| open::empty(LibOs::builder(), part.config))
}

fn loopback() -> Build {
    Box::new(|part| {
        let libos = open::empty(LibOs::builder(), part.config)?;
        network::install(&libos, part.config, network::loopback()?)?;
        Ok(libos)
    })
}

/// Opens the device, with a queue for each core unless its table says how many.
#[cfg(any(feature = "tap", feature = "packet", feature = "xdp", feature = "dpdk", feature = "vhost"))]
fn queues<Q: DeviceQueue>(config: &Config, cores: usize) -> Result<Vec<Build>, SetupError> {
    let mut section = config.section(Q::TABLE);
    let wanted = section.usize("queues", 1..=usize::MAX >> 1, NOT_SET)?;
    if wanted > cores && wanted != NOT_SET {
        return Err(section.reject("queues", format!("at most as many as cores: cores.count is {cores}")));
    }
    let queues = device::open_queues::<Q>(config, Some(wanted.min(cores)))?;
    let names: Vec<_> =
        queues.iter().map(|queue| (queue.device().to_owned(), queue.capabilities())).collect();
    let mut builds: Vec<Build> = Vec::with_capacity(cores);
    for queue in queues {
        builds.push(Box::new(|part| {
            let libos = queue.library_os(part.config)?;
            let runtime = queue.serve(libos.device_arena())?;
            install(&libos, part, Link::Queue(runtime))?;
            Ok(libos)
        }));
    }
    // The others share the queues that there are.
    for core in builds.len()..cores {
        let owner = core.checked_rem(names.len()).unwrap_or(0);
        let Some((name, Some(capabilities))) = names.get(owner).cloned() else {
            return Err(section.reject("queues", format!("one for each core with this device: {cores}")));
        };
        builds.push(Box::new(move |part| {
            let libos = open::empty(LibOs::builder(), part.config)?;
            install::<Q::Runtime>(&libos, part, Link::Through { core: owner, name, capabilities })?;
            Ok(libos)
        }));
    }
    Ok(builds)
}

#[cfg(any(feature = "tap", feature = "packet", feature = "xdp", feature = "dpdk", feature = "vhost"))]
fn install<R: Runtime + 'static>(libos: &LibOs, part: Part<'_>, link: Link<R>) -> Result<(), SetupError> {
    let Part { config, share, exchange, address_secret } = part;
    // One core needs nothing of all this.
    match link {
        Link::Queue(queue) if share.cores() == 1 => network::install(libos, config, queue),
        link => {
            let steered = Steered::new(link, share.clone(), exchange, libos.device_arena());
            network::install_part(libos, config, steered, |settings| {
                settings.share = Some(share);
                settings.address_secret.get_or_insert(address_secret);
            })
        }
    }
}
