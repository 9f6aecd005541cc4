//! Putting a library OS together as a configuration describes it.

use std::time::Duration;

use libos::{Config, LibOs, LibOsBuilder, MemoryQueues, Module, SetupError};

#[cfg(any(feature = "tap", feature = "packet", feature = "xdp", feature = "dpdk", feature = "vhost"))]
use crate::device;

/// The tables that every library OS reads; modules and runtimes have theirs.
const TABLES: [&str; 5] = ["runtime", "libos", "memory", "memory_queue", "cores"];

/// Longest time that a program waits for its addresses.
const HOUR_MS: u64 = 3_600_000;

/// Values of `runtime.kind`; the first is the default.
const KINDS: &[&str] = &[
    #[cfg(feature = "catnip")]
    "loopback",
    #[cfg(feature = "tap")]
    "tap",
    #[cfg(feature = "packet")]
    "packet",
    #[cfg(feature = "xdp")]
    "xdp",
    #[cfg(feature = "dpdk")]
    "dpdk",
    #[cfg(feature = "vhost")]
    "vhost",
    "none",
];

/// Builds the library OS that `config` describes, with all its modules installed: in-memory queues, and the
/// stack on the device that `kind` in the table `[runtime]` names.
///
/// | `runtime.kind` | device | further tables |
/// |---|---|---|
/// | `"loopback"` (default) | none: sockets reach each other at 127.0.0.1, ::1 and the stack's addresses | `[stack]`, `[neighbor]`, `[udp]`, `[tcp]` |
/// | `"tap"` | a TAP interface of Linux | `[tap]` and those above |
/// | `"packet"` | any interface of Linux, through packet sockets | `[packet]` and those of the stack |
/// | `"xdp"` | queues of an interface of Linux, through XDP sockets | `[xdp]` and those of the stack |
/// | `"dpdk"` (feature `dpdk`) | a port of DPDK | `[dpdk]` and those of the stack |
/// | `"vhost"` | memory shared with another process | `[vhost]` and those of the stack |
/// | `"none"` | no stack at all | |
///
/// When `cpus` in `[cores]` names processors, the calling thread is bound to the first of them.
///
/// With `wait_for_addresses_ms` in `[runtime]`, it returns once the addresses that the stack gets or probes by
/// itself can be used.
///
/// Every key is described in `docs/catnip.toml`. Tables of devices that are not used are allowed.
///
/// # Errors
/// [`SetupError`]: a mistake in the configuration, what the machine does not provide, or no address in time.
pub fn open(config: &Config) -> Result<LibOs, SetupError> {
    check_tables(config)?;
    let (kind, wait) = kind_and_wait(config)?;
    #[cfg(feature = "catnip")]
    let cores = crate::cores::CoresConfig::from_config(config)?;
    #[cfg(feature = "catnip")]
    if cores.count != 1 {
        let section = config.section("cores");
        return Err(
            section.reject("count", "1: several cores are opened with `open_cores` or `demi_ext_core_init`")
        );
    }
    let libos = open_kind(config, kind, wait)?;
    // Last, so that threads which serve the device's control side are not bound with this one.
    #[cfg(feature = "catnip")]
    if let Some(cpu) = cores.cpu_of_lone_thread() {
        libos::affinity::pin_to(cpu)?;
    }
    Ok(libos)
}

/// Builds the library OS with its modules, on the device of that kind.
#[cfg_attr(
    not(any(feature = "tap", feature = "packet", feature = "xdp", feature = "dpdk", feature = "vhost")),
    allow(unused_variables, reason = "only devices are waited for")
)]
fn open_kind(config: &Config, kind: &str, wait: Duration) -> Result<LibOs, SetupError> {
    match kind {
        #[cfg(feature = "catnip")]
        "loopback" => {
            let libos = empty(LibOs::builder(), config)?;
            network::install(&libos, config, network::loopback()?)?;
            Ok(libos)
        }
        #[cfg(feature = "tap")]
        "tap" => device::open::<runtime_linux::tap::TapQueue>(config, wait),
        #[cfg(feature = "packet")]
        "packet" => device::open::<runtime_linux::packet::PacketSocket>(config, wait),
        #[cfg(feature = "xdp")]
        "xdp" => device::open::<runtime_linux::xdp::XdpQueue>(config, wait),
        #[cfg(feature = "dpdk")]
        "dpdk" => device::open::<runtime_dpdk::DpdkQueue>(config, wait),
        #[cfg(feature = "vhost")]
        "vhost" => {
            let libos = empty(network::vhost_builder(config)?, config)?;
            device::install_all(&libos, config, "vhost", network::vhost(&libos, config)?)?;
            network::wait_for_addresses(&libos, wait)?;
            Ok(libos)
        }
        _ => empty(LibOs::builder(), config),
    }
}

/// Rejects tables that nothing reads.
pub(crate) fn check_tables(config: &Config) -> Result<(), SetupError> {
    config.check_sections(&tables())
}

/// What the table `[runtime]` says: the device, and how long to wait for addresses.
pub(crate) fn kind_and_wait(config: &Config) -> Result<(&'static str, Duration), SetupError> {
    let mut section = config.section("runtime");
    let kind = section.choice("kind", KINDS, KINDS[0]).map_err(or_not_built)?;
    let wait = section.duration_ms("wait_for_addresses_ms", 0..=HOUR_MS, 0)?;
    section.finish()?;
    Ok((kind, wait))
}

/// Says of a device that this build leaves out how to have it.
fn or_not_built(error: SetupError) -> SetupError {
    const ALL: [&str; 7] = ["loopback", "tap", "packet", "xdp", "dpdk", "vhost", "none"];
    match error {
        SetupError::Config { source, key, value, mut allowed } => {
            if let Some(kind) = ALL.iter().find(|kind| value.trim_matches('"') == **kind) {
                allowed += &format!("; {kind} when built with the cargo feature {kind}");
            }
            SetupError::Config { source, key, value, allowed }
        }
        error => error,
    }
}

fn tables() -> Vec<&'static str> {
    let mut tables = TABLES.to_vec();
    #[cfg(feature = "catnip")]
    tables.extend(catnip::StackConfig::TABLES);
    #[cfg(feature = "tap")]
    tables.push("tap");
    #[cfg(feature = "packet")]
    tables.push("packet");
    #[cfg(feature = "xdp")]
    tables.push("xdp");
    // Also where it is not built in: one file serves both.
    tables.push("dpdk");
    #[cfg(feature = "vhost")]
    tables.push("vhost");
    tables
}

/// Builds a library OS that has the queues which need no device, and nothing else.
pub(crate) fn empty(builder: LibOsBuilder, config: &Config) -> Result<LibOs, SetupError> {
    let libos = builder.config(config).build()?;
    install(&libos, MemoryQueues::from_config(config)?)?;
    Ok(libos)
}

/// Installs a module into a library OS that nobody else uses yet.
fn install(libos: &LibOs, module: impl Module + 'static) -> Result<(), SetupError> {
    libos.install(module).map(drop).map_err(|error| SetupError::Device {
        device: "library OS".to_owned(),
        call: "install",
        reason: error.to_string(),
    })
}

#[cfg(feature = "catnip")]
pub(crate) mod network {
    use std::time::Duration;

    use catnip::{Stack, StackConfig, StackModule};
    use libos::{Config, LibOs, Runtime, SetupError};
    use rand::TryRng;
    use rand::rngs::SysRng;

    use super::KINDS;
    use crate::loopback::Loopback;

    /// Between two looks at whether addresses can be used.
    const LOOK_EVERY: Duration = Duration::from_millis(2);

    /// Puts a stack on the device.
    pub fn install(
        libos: &LibOs,
        config: &Config,
        runtime: impl Runtime + 'static,
    ) -> Result<(), SetupError> {
        install_part(libos, config, runtime, |_| {})
    }

    /// As [`install`], with what no configuration says.
    pub fn install_part(
        libos: &LibOs,
        config: &Config,
        runtime: impl Runtime + 'static,
        complete: impl FnOnce(&mut StackConfig),
    ) -> Result<(), SetupError> {
        let mut settings = StackConfig::from_config(config, runtime.capabilities())?;
        settings.check().map_err(|error| placed(config, error))?;
        complete(&mut settings);
        let stack = Stack::new(&settings, libos.device_arena().clone(), seed()?, libos.now())?;
        super::install(libos, StackModule::new(stack, runtime))
    }

    /// A secret: sequence numbers, ports and hash keys follow from it.
    pub fn seed() -> Result<u64, SetupError> {
        SysRng.try_next_u64().map_err(|error| failed("system", "getrandom", error.to_string()))
    }

    /// Waits until the addresses that the stack gets or probes by itself can be used; not at all for no time.
    pub fn wait_for_addresses(libos: &LibOs, longest: Duration) -> Result<(), SetupError> {
        let failed = |reason: String| failed("network", "wait for addresses", reason);
        let awaits = || {
            let metrics = libos.metrics().map_err(|error| failed(error.to_string()))?;
            Ok(metrics.get("catnip.network.awaits_addresses").is_some_and(|metric| metric.value() > 0))
        };
        if longest.is_zero() {
            return Ok(());
        }
        let waiting = async {
            while awaits()? {
                libos.sleep(LOOK_EVERY).await;
            }
            Ok(())
        };
        match libos.block_on(libos.timeout(longest, waiting)) {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(failed(format!("none within {} ms", longest.as_millis()))),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    pub fn loopback() -> Result<Loopback, SetupError> {
        Loopback::new().map_err(|error| failed("loopback", "socketpair", error.to_string()))
    }

    /// The queues of a link to another process, once it is up.
    #[cfg(feature = "vhost")]
    pub fn vhost(libos: &LibOs, config: &Config) -> Result<Vec<runtime_vhost::Vhost>, SetupError> {
        use runtime_vhost::{Vhost, VhostConfig};
        Vhost::open(&VhostConfig::from_config(config)?, libos.device_arena())
    }

    /// Begins a library OS with memory that the other process can see, if it is to.
    #[cfg(feature = "vhost")]
    pub fn vhost_builder(config: &Config) -> Result<libos::LibOsBuilder, SetupError> {
        use runtime_vhost::{VhostConfig, VhostRole};
        Ok(match VhostConfig::from_config(config)?.role {
            VhostRole::Front => LibOs::builder().shared_memory(),
            VhostRole::Back => LibOs::builder(),
        })
    }

    /// The same error with the place where the key was set, for what only shows when values are seen together.
    fn placed(config: &Config, error: SetupError) -> SetupError {
        const KEYS: [&str; 6] = ["addresses", "dhcp", "gateway_v4", "gateway_v6", "routes", "vlan"];
        match error {
            SetupError::Config { key, allowed, .. } if KEYS.contains(&key.as_str()) => {
                config.section("stack").reject(&key, allowed)
            }
            SetupError::Config { key, value, allowed, .. } if key == StackConfig::DEVICE_MTU => {
                let kind = super::kind_and_wait(config).map_or(KINDS[0], |(kind, _)| kind);
                config.section(kind).reject("mtu", format!("{allowed}; the device has {value}"))
            }
            error => error,
        }
    }

    pub fn failed(device: &str, call: &'static str, reason: String) -> SetupError {
        SetupError::Device { device: device.to_owned(), call, reason }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use libos::{Domain, Error, Outcome, SocketKind};

    use super::*;

    fn said(text: &str) -> String {
        let config = Config::from_toml_str("t.toml", text).unwrap();
        open(&config).map(drop).map_or_else(|error| error.to_string(), |()| "opened".to_owned())
    }

    #[test]
    fn the_documented_file_opens() {
        assert_eq!(said(include_str!("../docs/catnip.toml")), "opened");
    }

    #[test]
    fn mistakes_are_said_in_one_line() {
        for (text, line) in [
            ("[runtime]\nkind = \"rdma\"", "t.toml: runtime.kind = \"rdma\": allowed is one of "),
            ("[runtime]\nkid = \"tap\"", "t.toml: runtime.kid = \"tap\": allowed is the keys kind"),
            ("[stac]\naddresses = []", "t.toml: [stac] = a table that nothing reads: allowed is [runtime], "),
            #[cfg(not(feature = "dpdk"))]
            (
                "[runtime]\nkind = \"dpdk\"",
                "t.toml: runtime.kind = \"dpdk\": allowed is one of loopback, tap, packet, \
                xdp, vhost, none; dpdk when built with the cargo feature dpdk",
            ),
            #[cfg(feature = "catnip")]
            (
                "[stack]\naddresses = [\"192.0.2.255/24\"]",
                "t.toml: stack.addresses = [\"192.0.2.255/24\"]: allowed is an \
                address that is not its network's broadcast address",
            ),
            #[cfg(feature = "tap")]
            (
                "[runtime]\nkind = \"tap\"\n[tap]\nhost_addresses = [\"10.1.0.1/24\", \"10.1.0.2/16\"]\n\
                [stack]\naddresses = [\"10.1.0.2/24\"]",
                "t.toml: tap.host_addresses = [\"10.1.0.1/24\", \"10.1.0.2/16\"]: allowed is addresses that are \
                not the library OS's own; 10.1.0.2 is in stack.addresses too",
            ),
            #[cfg(feature = "catnip")]
            (
                "[stack]\nvlan = 5",
                "t.toml: stack.vlan = 5: allowed is none: the device has no Ethernet frames",
            ),
            #[cfg(feature = "catnip")]
            (
                "[stack]\naddresses = [\"192.0.2.1/24\", \"192.0.2.1/25\"]",
                "t.toml: stack.addresses = [\"192.0.2.1/24\", \"192.0.2.1/25\"]: allowed is each address once",
            ),
        ] {
            assert!(said(text).starts_with(line), "{}", said(text));
        }
    }

    #[cfg(feature = "catnip")]
    #[test]
    fn several_cores_are_not_for_one_thread() {
        let line = said("[cores]\ncount = 2");
        let expected = "t.toml: cores.count = 2: allowed is 1: several cores are opened with `open_cores` or `demi_ext_core_init`";
        assert_eq!(line, expected);
    }

    #[cfg(feature = "catnip")]
    #[test]
    fn the_thread_is_bound_to_a_processor_that_is_named_and_to_no_other() {
        let allowed = libos::affinity::allowed_cpus();
        let last = *allowed.last().unwrap();
        let bound = |text: String| {
            let opened = std::thread::spawn(move || {
                let libos = open(&Config::from_toml_str("t.toml", &text).unwrap());
                libos.map(|_| libos::affinity::allowed_cpus()).map_err(|error| error.to_string())
            });
            opened.join().unwrap()
        };
        assert_eq!(bound(format!("[cores]\ncpus = [{last}]")), Ok(vec![last]));
        assert_eq!(bound(format!("[cores]\ncpus = [{last}]\npin = false")), Ok(allowed.clone()));
        assert_eq!(bound(String::new()), Ok(allowed));
        let refused = bound("[cores]\ncpus = [1023]".to_owned()).unwrap_err();
        assert!(refused.starts_with("processor 1023: sched_setaffinity: "), "{refused}");
    }

    #[test]
    fn without_a_stack_there_are_queues_and_no_sockets() {
        let libos = open(&Config::new().set("runtime.kind", "none")).unwrap();
        assert_eq!(libos.socket(Domain::Ipv4, SocketKind::Stream), Err(Error::NotSupported));
        libos.queue().unwrap();
    }

    #[cfg(feature = "catnip")]
    #[test]
    fn without_a_configuration_sockets_reach_each_other() {
        let libos = open(&Config::new()).unwrap();
        let receiver = libos.socket(Domain::Ipv4, SocketKind::Datagram).unwrap();
        let sender = libos.socket(Domain::Ipv4, SocketKind::Datagram).unwrap();
        libos.bind(receiver, "127.0.0.1:0".parse().unwrap()).unwrap();
        let name = libos.local_address(receiver).unwrap();
        let data = libos.arena().copy_from(b"hello").unwrap().freeze();
        let push = libos.pushto(sender, data, name).unwrap();
        let pop = libos.pop(receiver).unwrap();
        let wait = |token| libos.wait(token, Some(Duration::from_secs(5))).unwrap().outcome;
        assert!(matches!(wait(push), Outcome::Pushed));
        assert!(matches!(wait(pop), Outcome::Popped { data, from: Some(_) } if data.to_vec() == b"hello"));
    }
}
