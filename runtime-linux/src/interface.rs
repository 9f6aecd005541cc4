//! Interfaces of the kernel: their names, what is known of one, and whether it is still there.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libos::config::Section;
use libos::{Error, Instant, SetupError};

use crate::netlink::{Link, Netlink};
use crate::system::socket;
use libos::mac::Mac;

/// Longest name of a network interface, in bytes (`IFNAMSIZ` less the closing zero).
pub const MAX_NAME_BYTES: usize = 15;

/// Smallest MTU: what every IPv4 host must take (RFC 791, section 3.2). IPv6 needs 1280.
pub const MIN_MTU: usize = 68;
/// Largest MTU: a frame of 65,535 bytes less the Ethernet header.
pub const MAX_MTU: usize = 65_521;

/// What [`is_interface_name`] takes, in words.
pub(crate) const NAME_RULE: &str = "1 to 15 visible ASCII characters without / : %, and not . or ..";

/// Between two looks at whether the interface is there, while nothing arrives, in nanoseconds.
const LOOK_EVERY_NS: u64 = 10_000_000;
/// The same while the library OS sleeps.
const LOOK_ASLEEP_EVERY_NS: u64 = 1_000_000_000;

/// What the kernel takes as a name, less `%`, which it would replace by a number.
pub(crate) fn is_interface_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"/:%".contains(&byte))
}

/// What the configuration says of an interface that exists already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InterfaceKeys {
    pub interface: String,
    pub mac: Option<[u8; 6]>,
    pub mtu: Option<usize>,
}

impl InterfaceKeys {
    /// Reads the keys `interface`, `mac` and `mtu`. [`Self::require_name`] follows.
    pub fn read(section: &mut Section<'_>) -> Result<Self, SetupError> {
        let interface = section.string("interface", "")?;
        let mac: Option<Mac> = section.parsed("mac", Mac::RULE)?;
        // 0, like no entry at all, is the interface's own.
        let mtu = section.usize("mtu", 0..=MAX_MTU, 0)?;
        if mtu > 0 && mtu < MIN_MTU {
            return Err(section.reject("mtu", format!("0 or {MIN_MTU} to {MAX_MTU}")));
        }
        Ok(Self { interface, mac: mac.map(|mac| mac.0), mtu: (mtu > 0).then_some(mtu) })
    }

    /// Refuses a table without an interface, once all of it was read: who misspelt the key is told that first.
    pub fn require_name(interface: &str, section: &Section<'_>) -> Result<(), SetupError> {
        if is_interface_name(interface) { Ok(()) } else { Err(section.reject("interface", NAME_RULE)) }
    }
}

/// An interface that exists already and that frames are to go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub link: Link,
    /// The library OS's Ethernet address on the link.
    pub hardware_address: [u8; 6],
    /// Largest IP packet, in bytes.
    pub mtu: usize,
}

impl Attachment {
    /// Looks the interface up; `mac` and `mtu` are the interface's own unless others are wished for. `table` is the
    /// configuration's, for messages.
    pub fn find(
        table: &str,
        interface: &str,
        mac: Option<[u8; 6]>,
        mtu: Option<usize>,
    ) -> Result<Self, SetupError> {
        let failed = |call, reason| SetupError::Device { device: interface.to_owned(), call, reason };
        let mut netlink = Netlink::open().map_err(|error| failed("socket(AF_NETLINK)", error.to_string()))?;
        let link = netlink.link(interface).map_err(|error| {
            let reason = match error.raw_os_error() {
                Some(libc::ENODEV) => {
                    format!("there is no such interface in this network namespace; set {table}.interface")
                }
                _ => error.to_string(),
            };
            failed("RTM_GETLINK", reason)
        })?;
        if !link.up {
            return Err(failed(
                "RTM_GETLINK",
                format!("the interface is down: `ip link set {interface} up`"),
            ));
        }
        let refused = |key: &str, value: String, allowed: String| SetupError::Config {
            source: "builder".into(),
            key: format!("{table}.{key}"),
            value,
            allowed,
        };
        let hardware_address = mac.unwrap_or(link.hardware_address);
        if !libos::mac::is_station(hardware_address) {
            let value = Mac(hardware_address).to_string();
            return Err(refused(
                "mac",
                value,
                format!("one for {interface}, which has none of its own: {}", Mac::RULE),
            ));
        }
        let most = usize::try_from(link.mtu).unwrap_or(usize::MAX);
        let mtu = mtu.unwrap_or(most);
        if mtu > most {
            return Err(refused("mtu", mtu.to_string(), format!("at most the {most} bytes of {interface}")));
        }
        Ok(Self { link, hardware_address, mtu })
    }
}

/// Has the interface take frames for our address and for groups, or for everybody, as long as the packet socket is open.
pub(crate) fn widen_filter(fd: BorrowedFd<'_>, attachment: Attachment, everybody: bool) -> io::Result<()> {
    let join = |kind: c_int, address: [u8; 6]| {
        let [a, b, c, d, e, f] = address;
        let request = libc::packet_mreq {
            mr_ifindex: attachment.link.index.cast_signed(),
            mr_type: kind as u16,
            mr_alen: 6,
            mr_address: [a, b, c, d, e, f, 0, 0],
        };
        socket::set_option(fd, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)
    };
    if everybody {
        return join(libc::PACKET_MR_PROMISC, [0; 6]);
    }
    if attachment.hardware_address != attachment.link.hardware_address {
        join(libc::PACKET_MR_UNICAST, attachment.hardware_address)?;
    }
    join(libc::PACKET_MR_ALLMULTI, [0; 6])
}

/// A packet socket that receives nothing, and is there for the interface's filter alone.
pub(crate) fn open_filter(attachment: Attachment) -> io::Result<OwnedFd> {
    let fd = socket::open(libc::AF_PACKET, libc::SOCK_RAW)?;
    widen_filter(fd.as_fd(), attachment, false)?;
    Ok(fd)
}

/// Notices that an interface was deleted. Sockets that are bound to it say so once at best, and not to those who only
/// look at shared memory.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    looked_at: Option<Instant>,
}

impl Watch {
    /// To be called when nothing arrived; looks every 10 ms.
    ///
    /// # Errors
    /// [`Error::DeviceFailed`] once the interface is gone.
    #[inline]
    pub fn look(&mut self, now: Instant, fd: BorrowedFd<'_>, index: u32) -> Result<(), Error> {
        if self.looked_at.is_some_and(|at| now.nanos_since(at) < LOOK_EVERY_NS) {
            return Ok(());
        }
        self.looked_at = Some(now);
        look(fd, index)
    }

    /// When to look again though nothing wakes the library OS.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.looked_at.map(|at| at + std::time::Duration::from_nanos(LOOK_ASLEEP_EVERY_NS))
    }
}

/// Fails when there is no interface of this number in the socket's network namespace.
#[cold]
#[inline(never)]
pub(crate) fn look(fd: BorrowedFd<'_>, index: u32) -> Result<(), Error> {
    // What a socket says once, that the link went down, makes it readable until it was heard.
    let _ = socket::take_error(fd);
    match socket::interface_name(fd, index) {
        Err(error) if is_gone(&error) => Err(Error::DeviceFailed),
        _ => Ok(()),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO))
}

/// What the tables of interfaces have in common, for their tests.
#[cfg(test)]
pub(crate) mod testing {
    use libos::{Config, SetupError};

    /// Each line in the table `table` beside a good interface is refused, in one line that names the file and the key.
    pub fn wrong_values_are_named<T>(
        table: &str,
        read: fn(&Config) -> Result<T, SetupError>,
        lines: &[(&str, &str)],
    ) {
        let said = |text: &str| {
            read(&Config::from_toml_str("t.toml", text).unwrap()).map(drop).unwrap_err().to_string()
        };
        let common = [
            (r#"interface = "a/b""#, "interface"),
            (r#"mac = "01:00:00:00:00:01""#, "mac"),
            ("mtu = 67", "mtu"),
            ("mtu = 65522", "mtu"),
            ("queues = 0", "queues"),
            ("ring = 1", "ring"),
        ];
        for (line, key) in common.iter().chain(lines) {
            let name = if *key == "interface" { "" } else { "interface = \"eth0\"\n" };
            let error = said(&format!("[{table}]\n{name}{line}"));
            assert!(error.starts_with(&format!("t.toml: {table}.{key} = ")), "{error}");
        }
        assert!(said("").contains(&format!("{table}.interface")), "no interface");
    }

    /// Each configuration of a program's is refused with its key.
    pub fn refused_with_its_key<T: std::fmt::Debug>(
        validate: fn(&T) -> Result<(), SetupError>,
        configs: impl IntoIterator<Item = (T, &'static str)>,
    ) {
        for (config, key) in configs {
            match validate(&config) {
                Err(SetupError::Config { key: found, .. }) => assert_eq!(found, key, "{config:?}"),
                other => panic!("{config:?} gave {other:?}"),
            }
        }
    }
}
