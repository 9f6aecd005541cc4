//! Devices with queues: opened once, each queue for the thread that serves it.

#[cfg(any(feature = "tap", feature = "packet", feature = "xdp", feature = "dpdk"))]
use std::time::Duration;

use libos::{Arena, Capabilities, Config, LibOs, Runtime, SetupError};

use crate::gathered::Gathered;
use crate::open::{self, network};

/// A queue of an open device, on its way to the thread that serves it.
pub trait DeviceQueue: Send + Sized + 'static {
    /// What serves it there.
    type Runtime: Runtime + 'static;

    /// The configuration's table of the device.
    const TABLE: &str;

    /// Opens the device with so many queues; `None` for what the configuration says.
    fn open(config: &Config, queues: Option<usize>) -> Result<Vec<Self>, SetupError>;

    /// The device's name.
    fn device(&self) -> &str;

    /// What the device can do, where that is known before a thread has the queue.
    fn capabilities(&self) -> Option<Capabilities>;

    /// Builds the library OS of the thread that will serve the queue, with memory that the device can use. It has
    /// in-memory queues and nothing else.
    fn library_os(&self, config: &Config) -> Result<LibOs, SetupError> {
        open::empty(LibOs::builder(), config)
    }

    /// Makes the runtime, on the thread that `arena` belongs to.
    fn serve(self, arena: &Arena) -> Result<Self::Runtime, SetupError>;
}

/// Opens the device. A value that it refuses is named with the place where it was set.
pub fn open_queues<Q: DeviceQueue>(config: &Config, queues: Option<usize>) -> Result<Vec<Q>, SetupError> {
    Q::open(config, queues).map_err(|error| {
        let SetupError::Config { key, allowed, .. } = &error else { return error };
        match key.strip_prefix(Q::TABLE).and_then(|key| key.strip_prefix('.')) {
            Some(key) => config.section(Q::TABLE).reject(key, allowed),
            None => error,
        }
    })
}

/// Builds a library OS with a stack on all queues of the device that the configuration names.
#[cfg(any(feature = "tap", feature = "packet", feature = "xdp", feature = "dpdk"))]
pub fn open<Q: DeviceQueue>(config: &Config, wait_for_addresses: Duration) -> Result<LibOs, SetupError> {
    let queues = open_queues::<Q>(config, None)?;
    let libos = queues.first().ok_or_else(|| without_queues(Q::TABLE))?.library_os(config)?;
    let runtimes = queues.into_iter().map(|queue| queue.serve(libos.device_arena()));
    install_all(&libos, config, Q::TABLE, runtimes.collect::<Result<_, _>>()?)?;
    network::wait_for_addresses(&libos, wait_for_addresses)?;
    Ok(libos)
}

fn without_queues(device: &str) -> SetupError {
    network::failed(device, "open", "the device has no queue".to_owned())
}

/// Puts a stack on all queues of a device.
pub fn install_all<R: Runtime + 'static>(
    libos: &LibOs,
    config: &Config,
    device: &str,
    runtimes: Vec<R>,
) -> Result<(), SetupError> {
    let mut runtimes = runtimes.into_iter();
    let Some(first) = runtimes.next() else {
        return Err(without_queues(device));
    };
    // The usual case without a step between.
    if runtimes.len() == 0 {
        return network::install(libos, config, first);
    }
    network::install(libos, config, Gathered::new(first, runtimes.collect()))
}

/// The program by which the kernel puts each frame into the queue of the core that its flow belongs to, so that no core
/// waits for what another one has.
#[cfg(any(feature = "tap", feature = "packet"))]
fn steering(
    config: &Config,
    queues: Option<usize>,
) -> Result<Option<runtime_linux::steering::Steering>, SetupError> {
    use catnip::steering::{Instruction, program};
    use runtime_linux::steering as kernel;

    let Some(queues) = queues.filter(|queues| *queues > 1) else { return Ok(None) };
    let cores = crate::cores::CoresConfig::from_config(config)?;
    let instructions = program(cores.hash_key, cores.count, queues).into_iter();
    let same = |Instruction { code, if_true, if_false, value }| kernel::Instruction {
        code,
        if_true,
        if_false,
        value,
    };
    Ok(Some(kernel::Steering(instructions.map(same).collect())))
}

#[cfg(feature = "tap")]
mod tap {
    use libos::{Arena, Capabilities, Config, SetupError};
    use runtime_linux::tap::{HostAddress, Tap, TapConfig, TapQueue};

    use super::DeviceQueue;

    /// One address at both ends of the link would be nobody's: each end takes what is sent there for its own.
    fn check_ends_differ(config: &Config, settings: &TapConfig) -> Result<(), SetupError> {
        // What is wrong with the stack's own addresses is the stack's to say.
        let own: Vec<HostAddress> = config.section("stack").parsed_list("addresses", "").unwrap_or_default();
        let is_own = |host: &HostAddress| own.iter().any(|own| own.address == host.address);
        match settings.host_addresses.iter().find(|host| is_own(host)) {
            Some(both) => Err(config.section(TapQueue::TABLE).reject(
                "host_addresses",
                format!(
                    "addresses that are not the library OS's own; {} is in stack.addresses too",
                    both.address
                ),
            )),
            None => Ok(()),
        }
    }

    impl DeviceQueue for TapQueue {
        type Runtime = Tap;

        const TABLE: &str = "tap";

        fn open(config: &Config, queues: Option<usize>) -> Result<Vec<Self>, SetupError> {
            let mut settings = TapConfig::from_config(config)?;
            check_ends_differ(config, &settings)?;
            settings.steering = super::steering(config, queues)?;
            settings.queues = queues.unwrap_or(settings.queues);
            Self::open(&settings)
        }

        fn device(&self) -> &str {
            self.name()
        }

        fn capabilities(&self) -> Option<Capabilities> {
            Some(self.capabilities())
        }

        fn serve(self, arena: &Arena) -> Result<Tap, SetupError> {
            Ok(Tap::new(self, arena))
        }
    }
}

#[cfg(feature = "packet")]
mod packet {
    use libos::{Arena, Capabilities, Config, SetupError};
    use runtime_linux::packet::{Packet, PacketConfig, PacketSocket};

    use super::DeviceQueue;

    impl DeviceQueue for PacketSocket {
        type Runtime = Packet;

        const TABLE: &str = "packet";

        fn open(config: &Config, queues: Option<usize>) -> Result<Vec<Self>, SetupError> {
            let mut settings = PacketConfig::from_config(config)?;
            settings.steering = super::steering(config, queues)?;
            settings.queues = queues.unwrap_or(settings.queues);
            Self::open(&settings)
        }

        fn device(&self) -> &str {
            self.interface()
        }

        fn capabilities(&self) -> Option<Capabilities> {
            Some(self.capabilities())
        }

        fn serve(self, arena: &Arena) -> Result<Packet, SetupError> {
            Ok(Packet::new(self, arena))
        }
    }
}

#[cfg(feature = "xdp")]
mod xdp {
    use libos::{Arena, Capabilities, Config, SetupError};
    use runtime_linux::xdp::{Xdp, XdpConfig, XdpQueue};

    use super::DeviceQueue;

    impl DeviceQueue for XdpQueue {
        type Runtime = Xdp;

        const TABLE: &str = "xdp";

        fn open(config: &Config, queues: Option<usize>) -> Result<Vec<Self>, SetupError> {
            let mut settings = XdpConfig::from_config(config)?;
            settings.queues = queues.unwrap_or(settings.queues);
            Self::open(&settings)
        }

        fn device(&self) -> &str {
            self.interface()
        }

        /// The kernel says what it takes when the queue is bound.
        fn capabilities(&self) -> Option<Capabilities> {
            None
        }

        fn serve(self, arena: &Arena) -> Result<Xdp, SetupError> {
            Xdp::new(self, arena)
        }
    }
}

#[cfg(feature = "dpdk")]
mod dpdk {
    use catnip::steering::CoreShare;
    use libos::memory::ArenaConfig;
    use libos::{Arena, Capabilities, Config, LibOs, SetupError};
    use runtime_dpdk::{Dpdk, DpdkConfig, DpdkPort, DpdkQueue, Spreading};

    use super::DeviceQueue;
    use crate::cores::CoresConfig;
    use crate::open;

    /// What the device is to be told, so that flows arrive at their cores.
    fn spreading(config: &Config, queues: usize) -> Result<Spreading, SetupError> {
        let cores = CoresConfig::from_config(config)?;
        let table = CoreShare::table(cores.count).map(|core| (core % queues) as u16);
        Ok(Spreading { key: cores.hash_key.0, queues: table.collect() })
    }

    impl DeviceQueue for DpdkQueue {
        type Runtime = Dpdk;

        const TABLE: &str = "dpdk";

        fn open(config: &Config, queues: Option<usize>) -> Result<Vec<Self>, SetupError> {
            let mut settings = DpdkConfig::from_config(config)?;
            let region_bytes = ArenaConfig::from_config(config)?.region_bytes;
            let Some(queues) = queues else {
                return Ok(DpdkPort::open(&settings, region_bytes)?.into_queues());
            };
            settings.queues = queues;
            settings.spreading = Some(spreading(config, queues)?);
            Ok(DpdkPort::open(&settings, region_bytes.saturating_mul(queues))?.into_queues())
        }

        fn device(&self) -> &str {
            self.name()
        }

        fn capabilities(&self) -> Option<Capabilities> {
            Some(self.capabilities())
        }

        fn library_os(&self, config: &Config) -> Result<LibOs, SetupError> {
            let arena = self.arena(&ArenaConfig::from_config(config)?)?;
            open::empty(LibOs::builder().arena(arena), config)
        }

        fn serve(self, arena: &Arena) -> Result<Dpdk, SetupError> {
            Dpdk::new(self, arena)
        }
    }
}

#[cfg(feature = "vhost")]
mod vhost {
    use libos::{Arena, Capabilities, Config, LibOs, SetupError};
    use runtime_vhost::{Vhost, VhostConfig, VhostQueue};

    use super::DeviceQueue;
    use crate::open::{self, network};

    impl DeviceQueue for VhostQueue {
        type Runtime = Vhost;

        const TABLE: &str = "vhost";

        fn open(config: &Config, queues: Option<usize>) -> Result<Vec<Self>, SetupError> {
            let mut settings = VhostConfig::from_config(config)?;
            settings.queues = queues.unwrap_or(settings.queues);
            Self::open(&settings)
        }

        fn device(&self) -> &str {
            Self::TABLE
        }

        fn capabilities(&self) -> Option<Capabilities> {
            Some(self.capabilities())
        }

        fn library_os(&self, config: &Config) -> Result<LibOs, SetupError> {
            open::empty(network::vhost_builder(config)?, config)
        }

        fn serve(self, arena: &Arena) -> Result<Vhost, SetupError> {
            Vhost::new(self, arena)
        }
    }
}
