//! DPDK's environment (EAL): initialised once in a process, for all of its ports.

use std::cell::OnceCell;
use std::ffi::{CString, c_char, c_int};
use std::sync::OnceLock;
use std::{fs, mem};

use libos::SetupError;

use crate::config::DpdkConfig;
use crate::failure::{check, failed};

/// MiB of DPDK's own memory beside what queues and regions take: rings, tables of the drivers, pools of unknown drivers.
const BASE_MEMORY_MIB: usize = 128;

/// Bytes of DPDK's memory that one descriptor takes at most, its share of the pools included.
const BYTES_PER_DESCRIPTOR: usize = 24 << 10;

/// Without hugepages, memory that is not used costs nothing: room for further ports.
const SMALL_PAGES_FACTOR: usize = 4;

/// Devices are told the addresses that the program uses.
const ADDRESSES_OF_OURS: &str = "--iova-mode=va";

static INITIALISED: OnceLock<Result<(), SetupError>> = OnceLock::new();

/// What arguments depend on beside the configuration.
struct Machine {
    /// The processors that this thread may run on.
    processors: Vec<usize>,
    /// Bytes of hugepages that nobody has taken.
    free_hugepage_bytes: usize,
}

/// Initialises EAL unless that was done; how it went, from the second time on. `heap_bytes` is what the program may make
/// a region of.
pub(crate) fn initialise(config: &DpdkConfig, heap_bytes: usize) -> Result<(), SetupError> {
    INITIALISED.get_or_init(|| run(config, heap_bytes)).clone()
}

fn run(config: &DpdkConfig, heap_bytes: usize) -> Result<(), SetupError> {
    let machine =
        Machine { processors: processors(), free_hugepage_bytes: free_hugepage_bytes().unwrap_or(0) };
    let arguments = arguments(config, heap_bytes, &machine);
    let in_c = |text: &String| CString::new(text.as_str());
    let texts: Vec<CString> = arguments
        .iter()
        .map(in_c)
        .collect::<Result<_, _>>()
        .map_err(|_| failed("EAL", "rte_eal_init", "an argument has a zero byte"))?;
    // EAL keeps the pointers, and reorders them.
    let mut pointers: Vec<*mut c_char> = texts.into_iter().map(CString::into_raw).collect();
    let count = c_int::try_from(pointers.len()).unwrap_or(c_int::MAX);
    // SAFETY: `count` texts that end with zeros, and live as long as the process.
    let result = unsafe { dpdk_sys::rte_eal_init(count, pointers.as_mut_ptr()) };
    mem::forget(pointers);
    check("EAL", "rte_eal_init", result).map(drop).map_err(|error| match error {
        SetupError::Device { device, call, reason } => SetupError::Device {
            device,
            call,
            reason: format!("{reason} (arguments: {})", arguments[1..].join(" ")),
        },
        other => other,
    })
}

/// Our arguments, as far as the user's don't say otherwise, and the user's behind them.
fn arguments(config: &DpdkConfig, heap_bytes: usize, machine: &Machine) -> Vec<String> {
    let given = &config.eal_args;
    let mentions = |options: &[&str]| {
        given.iter().any(|argument| {
            options.iter().any(|option| {
                let short = option.len() == 2 && argument.starts_with(option);
                short || argument.split('=').next() == Some(option)
            })
        })
    };
    let mut arguments = vec!["catnip".to_owned()];
    if !mentions(&["--log-level"]) {
        arguments.push("--log-level=warning".into());
    }
    if !mentions(&["--no-telemetry", "--telemetry"]) {
        arguments.push("--no-telemetry".into());
    }
    if !mentions(&["-l", "-c", "-s", "-S", "--lcores"]) {
        // One logical core that goes where its thread may go: EAL would else bind the thread to one processor,
        // and start one more thread for each of the others.
        let processors: Vec<String> = machine.processors.iter().map(usize::to_string).collect();
        arguments.push(format!("--lcores=0@({})", processors.join(",")));
    }
    if !mentions(&["--no-huge", "--in-memory", "-m", "--socket-mem", "--huge-dir", "--legacy-mem"]) {
        arguments.extend(memory_arguments(config, heap_bytes, machine));
    }
    if !mentions(&["-a", "--allow", "-w", "-b", "--block", "--no-pci"]) {
        // Taking over every device that DPDK can have is nothing a program should do unasked.
        match pci_address(&config.device) {
            Some(_) => arguments.extend(["-a".into(), config.device.clone()]),
            None => {
                arguments.push("--no-pci".into());
                if !mentions(&["--iova-mode"]) && !arguments.iter().any(|known| known == ADDRESSES_OF_OURS) {
                    // Root's EAL would take physical addresses where it sees them, which no virtual device has a use for.
                    arguments.push(ADDRESSES_OF_OURS.into());
                }
            }
        }
    }
    arguments.extend(given.iter().cloned());
    arguments
}

fn memory_arguments(config: &DpdkConfig, heap_bytes: usize, machine: &Machine) -> Vec<String> {
    let descriptors = config.queues * (config.rx_descriptors + config.tx_descriptors);
    let needed = (descriptors * BYTES_PER_DESCRIPTOR + heap_bytes).div_ceil(1 << 20) + BASE_MEMORY_MIB;
    let mib = if config.memory_mib == 0 { needed } else { config.memory_mib };
    if machine.free_hugepage_bytes >> 20 >= mib {
        return vec!["--in-memory".into(), "--single-file-segments".into(), "-m".into(), mib.to_string()];
    }
    let mib = if config.memory_mib == 0 { mib * SMALL_PAGES_FACTOR } else { mib };
    // Without hugepages there are no physical addresses to be had.
    let fixed = ["--no-huge", "--no-shconf", "--single-file-segments", ADDRESSES_OF_OURS, "-m"];
    fixed.into_iter().map(str::to_owned).chain([mib.to_string()]).collect()
}

/// The address when the device is on the PCI bus: `bb:dd.f` or `dddd:bb:dd.f`, perhaps with arguments.
pub(crate) fn pci_address(device: &str) -> Option<&str> {
    let address = device.split(',').next()?;
    let (bus, function) = address.rsplit_once('.')?;
    let hexadecimal = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let parts: Vec<&str> = bus.split(':').collect();
    let fits = (2..=3).contains(&parts.len()) && parts.iter().all(|part| hexadecimal(part));
    (fits && hexadecimal(function)).then_some(address)
}

fn processors() -> Vec<usize> {
    // SAFETY: a set of bits, for which zeros are a value.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes at most the given size.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    let most = if result == 0 { libc::CPU_SETSIZE as usize } else { 0 };
    // SAFETY: the index is below the set's size.
    let found: Vec<usize> = (0..most).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect();
    if found.is_empty() { vec![0] } else { found }
}

/// Sums up what the kernel says of each size of hugepages.
fn free_hugepage_bytes() -> Option<usize> {
    let folders = fs::read_dir("/sys/kernel/mm/hugepages").ok()?;
    let free = folders.filter_map(|folder| {
        let folder = folder.ok()?;
        let name = folder.file_name();
        let kib: usize = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let pages = fs::read_to_string(folder.path().join("free_hugepages")).ok()?;
        Some(pages.trim().parse::<usize>().ok()? * kib * 1024)
    });
    Some(free.sum())
}

/// A thread that has an id of DPDK's, by which pools keep a cache for it.
struct Registered;

impl Drop for Registered {
    fn drop(&mut self) {
        // SAFETY: this thread was registered.
        unsafe { dpdk_sys::rte_thread_unregister() };
    }
}

thread_local! {
    static REGISTERED: OnceCell<Option<Registered>> = const { OnceCell::new() };
}

/// Registers the calling thread with EAL, unless it is the one that initialised it. When there are too many threads, this
/// one takes from pools without a cache, which is slower, and right.
pub(crate) fn register_thread() {
    REGISTERED.with(|registered| {
        registered.get_or_init(|| {
            // SAFETY: EAL is initialised before any port is opened.
            let has_id = unsafe { dpdk_sys::rte_lcore_id() } != u32::MAX;
            // SAFETY: as above.
            (!has_id && unsafe { dpdk_sys::rte_thread_register() } == 0).then_some(Registered)
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(config: &DpdkConfig, free_hugepage_mib: usize) -> String {
        let machine = Machine { processors: vec![0, 2], free_hugepage_bytes: free_hugepage_mib << 20 };
        arguments(config, 256 << 20, &machine).join(" ")
    }

    #[test]
    fn defaults_fit_the_machine_and_the_device() {
        let tap = DpdkConfig { device: "net_tap0".into(), ..DpdkConfig::default() };
        let common = "catnip --log-level=warning --no-telemetry --lcores=0@(0,2)";
        assert_eq!(
            line(&tap, 0),
            format!("{common} --no-huge --no-shconf --single-file-segments --iova-mode=va -m 1728 --no-pci")
        );
        assert_eq!(
            line(&tap, 1024),
            format!("{common} --in-memory --single-file-segments -m 432 --no-pci --iova-mode=va")
        );
        let pci = DpdkConfig { device: "0000:00:04.0".into(), memory_mib: 99, ..DpdkConfig::default() };
        assert!(line(&pci, 0).ends_with("-m 99 -a 0000:00:04.0"));
        assert!(line(&pci, 1024).ends_with("-m 99 -a 0000:00:04.0"), "the bus says which addresses");
    }

    #[test]
    fn what_the_user_says_replaces_what_we_would() {
        let given = ["-l", "1", "-m512", "--log-level=debug", "--telemetry", "-a0000:00:04.0", "--x=1"];
        let eal_args = given.map(str::to_owned).to_vec();
        let config = DpdkConfig { eal_args, ..DpdkConfig::default() };
        assert_eq!(line(&config, 0), format!("catnip {}", given.join(" ")));
    }

    #[test]
    fn pci_addresses_are_told_from_virtual_devices() {
        for (device, address) in [
            ("0000:3b:00.0", Some("0000:3b:00.0")),
            ("3b:00.1,dv_flow_en=0", Some("3b:00.1")),
            ("net_tap0,iface=a.b", None),
            ("net_memif", None),
            ("", None),
            ("::.", None),
        ] {
            assert_eq!(pci_address(device), address, "{device}");
        }
    }
}
