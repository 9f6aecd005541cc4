//! How a device is to be: socket, role, rings, and which values are refused.

use std::path::{Path, PathBuf};
use std::time::Duration;

use libos::{Config, SetupError};

use crate::ring::{MAX_RING_SIZE, MIN_RING_SIZE, RingKind};
use libos::mac::{Mac, stable_mac};

/// Smallest MTU: what every IPv4 host must take (RFC 791, section 3.2). IPv6 needs 1280.
pub const MIN_MTU: usize = 68;
/// Largest MTU: a frame of 65,535 bytes less the Ethernet header.
pub const MAX_MTU: usize = 65_521;
/// Most queue pairs of one device.
pub const MAX_QUEUES: usize = 64;
/// Longest path of a socket, in bytes (`sun_path` less the closing zero).
pub const MAX_SOCKET_BYTES: usize = 107;

/// The configuration's table.
const TABLE: &str = "vhost";
const DAY_MS: u64 = 86_400_000;
const SOCKET_RULE: &str = "the path of a Unix socket, 1 to 107 bytes";
const SIZE_RULE: &str = "a power of two from 16 to 4096";

/// Which end of the link a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VhostRole {
    /// The driver: it shares its memory, so what it sends is not copied on its side, nor what it receives.
    Front,
    /// The device: it maps the front end's memory, and copies between that and its own.
    Back,
}

/// How a device is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VhostConfig {
    /// The Unix socket over which the two ends agree, at most [`MAX_SOCKET_BYTES`] long.
    pub socket: PathBuf,
    /// Which end this is. The two need different ones.
    pub role: VhostRole,
    /// Make the socket and wait for the other end there, instead of connecting to it.
    pub server: bool,
    /// Queue pairs, 1 to [`MAX_QUEUES`]: one for each thread with a library OS.
    pub queues: usize,
    /// What rings are used when the other end knows them too: those of a back end that offers packed rings, and a
    /// front end that accepts them, are packed.
    pub ring: RingKind,
    /// Descriptors of each ring that a front end makes: a power of two.
    pub queue_size: u16,
    /// The Ethernet address. Without one it is derived from the socket's path and the role: the same one every time.
    pub mac: Option<[u8; 6]>,
    /// Largest IP packet, in bytes: [`MIN_MTU`] to [`MAX_MTU`]. The two ends need the same.
    pub mtu: usize,
    /// Leave checksums and the cutting of large TCP sends to the other end, and take both unfinished from it.
    pub offload: bool,
    /// Of a front end: share all registered memory of the process that another one can map, and not the queues' own alone. What
    /// is not shared is copied to be sent.
    pub share_registered: bool,
    /// Of a back end: take memory that the front end could take back while it is in use, which would end the process.
    /// Other programs than Catnip often share such memory.
    pub trust_peer: bool,
    /// Of a back end that is the server: when the front end leaves, wait for the next one instead of failing.
    pub reconnect: bool,
    /// How long to wait for the other end at the start.
    pub wait_for_peer: Duration,
}

impl VhostConfig {
    /// A device with one queue pair, packed rings of 256 descriptors, offloads and an MTU of 1500. A back end makes
    /// the socket, a front end connects to it.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>, role: VhostRole) -> Self {
        Self {
            socket: socket.into(),
            role,
            server: role == VhostRole::Back,
            queues: 1,
            ring: RingKind::Packed,
            queue_size: 256,
            mac: None,
            mtu: 1500,
            offload: true,
            share_registered: true,
            trust_peer: false,
            reconnect: false,
            wait_for_peer: Duration::from_secs(60),
        }
    }

    /// Reads the table `[vhost]`; what is not set has the default of [`VhostConfig::default`].
    ///
    /// # Errors
    /// [`SetupError::Config`] for the first value that is wrong and for a key that is not known.
    pub fn from_config(config: &Config) -> Result<Self, SetupError> {
        let mut section = config.section(TABLE);
        let socket = section.string("socket", DEFAULT_SOCKET)?;
        if !is_socket_path(Path::new(&socket)) {
            return Err(section.reject("socket", SOCKET_RULE));
        }
        let role = match section.choice("role", &["back", "front"], "back")? {
            "front" => VhostRole::Front,
            _ => VhostRole::Back,
        };
        let default = Self::new(socket, role);
        let mac: Option<Mac> = section.parsed("mac", Mac::RULE)?;
        let size = usize::from(MIN_RING_SIZE)..=usize::from(MAX_RING_SIZE);
        let read = Self {
            server: section.bool("server", default.server)?,
            queues: section.usize("queues", 1..=MAX_QUEUES, default.queues)?,
            ring: match section.choice("ring", &["packed", "split"], "packed")? {
                "split" => RingKind::Split,
                _ => RingKind::Packed,
            },
            queue_size: section.usize("queue_size", size, usize::from(default.queue_size))? as u16,
            mac: mac.map(|mac| mac.0),
            mtu: section.usize("mtu", MIN_MTU..=MAX_MTU, default.mtu)?,
            offload: section.bool("offload", default.offload)?,
            share_registered: section.bool("share_registered", default.share_registered)?,
            trust_peer: section.bool("trust_peer", default.trust_peer)?,
            reconnect: section.bool("reconnect", default.reconnect)?,
            wait_for_peer: section.duration_ms("wait_for_peer_ms", 0..=DAY_MS, 60_000)?,
            ..default
        };
        if !read.queue_size.is_power_of_two() {
            return Err(section.reject("queue_size", SIZE_RULE));
        }
        section.finish()?;
        Ok(read)
    }

    pub(crate) fn is_front(&self) -> bool {
        self.role == VhostRole::Front
    }

    /// The name by which messages and metrics speak of the device.
    pub(crate) fn name(&self) -> String {
        self.socket.display().to_string()
    }

    /// The Ethernet address that the device has.
    #[must_use]
    pub fn hardware_address(&self) -> [u8; 6] {
        self.mac.unwrap_or_else(|| self.stable_mac())
    }

    /// Another one for each end of the link.
    fn stable_mac(&self) -> [u8; 6] {
        let end = match self.role {
            VhostRole::Front => b"f",
            VhostRole::Back => b"b",
        };
        stable_mac(&[self.socket.as_os_str().as_encoded_bytes(), end].concat())
    }

    /// Refuses what no device takes.
    pub(crate) fn validate(&self) -> Result<(), SetupError> {
        let refuse = |key: &str, value: String, allowed: &str| {
            Err(SetupError::Config {
                source: "builder".to_owned(),
                key: format!("{TABLE}.{key}"),
                value,
                allowed: allowed.to_owned(),
            })
        };
        if !is_socket_path(&self.socket) {
            return refuse("socket", self.name(), SOCKET_RULE);
        }
        if !(1..=MAX_QUEUES).contains(&self.queues) {
            return refuse("queues", self.queues.to_string(), "an integer from 1 to 64");
        }
        let size = self.queue_size;
        if !size.is_power_of_two() || !(MIN_RING_SIZE..=MAX_RING_SIZE).contains(&size) {
            return refuse("queue_size", size.to_string(), SIZE_RULE);
        }
        if !(MIN_MTU..=MAX_MTU).contains(&self.mtu) {
            return refuse("mtu", self.mtu.to_string(), "an integer from 68 to 65521");
        }
        if let Some(mac) = self.mac
            && !libos::mac::is_station(mac)
        {
            return refuse("mac", Mac(mac).to_string(), Mac::RULE);
        }
        Ok(())
    }
}

const DEFAULT_SOCKET: &str = "/tmp/catnip.sock";

impl Default for VhostConfig {
    /// A back end at `/tmp/catnip.sock`; see [`VhostConfig::new`].
    fn default() -> Self {
        Self::new(DEFAULT_SOCKET, VhostRole::Back)
    }
}

fn is_socket_path(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    (1..=MAX_SOCKET_BYTES).contains(&bytes.len()) && !bytes.contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<VhostConfig, SetupError> {
        VhostConfig::from_config(&Config::from_toml_str("t.toml", text)?)
    }

    #[test]
    fn without_a_table_everything_has_its_default() {
        assert_eq!(read(""), Ok(VhostConfig::default()));
    }

    #[test]
    fn the_documented_file_says_the_defaults() {
        assert_eq!(read(include_str!("../../docs/catnip.toml")), Ok(VhostConfig::default()));
    }

    #[test]
    fn a_front_end_connects_unless_it_is_told_otherwise() {
        assert!(!read("[vhost]\nrole = \"front\"").unwrap().server);
        assert!(read("[vhost]\nrole = \"front\"\nserver = true").unwrap().server);
        assert!(!read("[vhost]\nserver = false").unwrap().server);
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
            [vhost]
            socket = "/run/link"
            role = "front"
            server = true
            queues = 3
            ring = "split"
            queue_size = 64
            mac = "02:00:5e:10:0:ff"
            mtu = 9000
            offload = false
            share_registered = false
            trust_peer = true
            reconnect = true
            wait_for_peer_ms = 5
        "#;
        let expected = VhostConfig {
            socket: "/run/link".into(),
            role: VhostRole::Front,
            server: true,
            queues: 3,
            ring: RingKind::Split,
            queue_size: 64,
            mac: Some([2, 0, 0x5e, 0x10, 0, 0xff]),
            mtu: 9000,
            offload: false,
            share_registered: false,
            trust_peer: true,
            reconnect: true,
            wait_for_peer: Duration::from_millis(5),
        };
        assert_eq!(read(text), Ok(expected));
    }

    #[test]
    fn a_wrong_value_is_named_with_file_key_and_what_is_allowed() {
        let long = format!(r#"socket = "/{}""#, "x".repeat(107));
        for (line, allowed) in [
            (r#"socket = """#, SOCKET_RULE),
            (long.as_str(), SOCKET_RULE),
            (r#"role = "both""#, "one of back, front"),
            (r#"ring = "round""#, "one of packed, split"),
            ("queue_size = 48", SIZE_RULE),
            ("queue_size = 8192", "an integer from 16 to 4096"),
            (r#"mac = "01:00:00:00:00:01""#, Mac::RULE),
            ("mtu = 67", "an integer from 68 to 65521"),
            ("queues = 0", "an integer from 1 to 64"),
        ] {
            let error = read(&format!("[vhost]\n{line}")).unwrap_err().to_string();
            let key = line.split(' ').next().unwrap();
            assert!(error.starts_with(&format!("t.toml: vhost.{key} = ")), "{error}");
            assert!(error.ends_with(allowed), "{error}");
        }
    }

    #[test]
    fn each_end_of_each_link_has_a_stable_address_of_its_own() {
        let mac = |path: &str, role| {
            VhostConfig { socket: path.into(), role, ..VhostConfig::default() }.hardware_address()
        };
        let front = mac("a", VhostRole::Front);
        assert_eq!(front, mac("a", VhostRole::Front));
        assert_ne!(front, mac("a", VhostRole::Back));
        assert_ne!(front, mac("b", VhostRole::Front));
    }

    #[test]
    fn a_wrong_value_from_the_program_is_refused_too() {
        let right = VhostConfig::default();
        assert_eq!(right.validate(), Ok(()));
        for wrong in [
            VhostConfig { socket: "".into(), ..right.clone() },
            VhostConfig { queues: 65, ..right.clone() },
            VhostConfig { queue_size: 100, ..right.clone() },
            VhostConfig { queue_size: 8, ..right.clone() },
            VhostConfig { mtu: 65_522, ..right.clone() },
            VhostConfig { mac: Some([1, 0, 0, 0, 0, 0]), ..right.clone() },
        ] {
            assert!(wrong.validate().is_err(), "{wrong:?}");
        }
    }
}
