//! The configuration's table `[packet]`.

use libos::{Config, SetupError};

use super::config::{MAX_QUEUES, MAX_RING_KIB, PacketConfig, is_ring_size, ring_rule};
use crate::interface::{MAX_MTU, MIN_MTU, NAME_RULE, is_interface_name};
use libos::mac::Mac;

impl PacketConfig {
    /// Reads the table `[packet]`; what is not set has the default of [`PacketConfig::default`].
    ///
    /// # Errors
    /// [`SetupError::Config`] for the first value that is wrong, for a key that is not known, and when no interface is
    /// named.
    pub fn from_config(config: &Config) -> Result<Self, SetupError> {
        let default = Self::default();
        let mut section = config.section("packet");
        let interface = section.string("interface", &default.interface)?;
        if !is_interface_name(&interface) {
            return Err(section.reject("interface", NAME_RULE));
        }
        let mac: Option<Mac> = section.parsed("mac", Mac::RULE)?;
        // 0, like no entry at all, is the interface's own.
        let mtu = section.usize("mtu", 0..=MAX_MTU, 0)?;
        if mtu > 0 && mtu < MIN_MTU {
            return Err(section.reject("mtu", format!("0 or {MIN_MTU} to {MAX_MTU}")));
        }
        let ring_kib = section.usize("ring_kib", 0..=MAX_RING_KIB, default.ring_kib)?;
        if !is_ring_size(ring_kib) {
            return Err(section.reject("ring_kib", ring_rule()));
        }
        let read = Self {
            interface,
            mac: mac.map(|mac| mac.0),
            mtu: (mtu > 0).then_some(mtu),
            queues: section.usize("queues", 1..=MAX_QUEUES, default.queues)?,
            offload: section.bool("offload", default.offload)?,
            promiscuous: section.bool("promiscuous", default.promiscuous)?,
            ring_kib,
            steering: None,
        };
        section.finish()?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<PacketConfig, SetupError> {
        PacketConfig::from_config(&Config::from_toml_str("t.toml", text)?)
    }

    #[test]
    fn the_documented_file_says_the_defaults() {
        let expected = PacketConfig { interface: "eth0".into(), ..PacketConfig::default() };
        assert_eq!(read(include_str!("../../../docs/catnip.toml")), Ok(expected));
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
            [packet]
            interface = "veth1"
            mac = "02:00:00:00:00:07"
            mtu = 1400
            queues = 3
            offload = false
            promiscuous = true
            ring_kib = 1024
        "#;
        let expected = PacketConfig {
            interface: "veth1".into(),
            mac: Some([2, 0, 0, 0, 0, 7]),
            mtu: Some(1400),
            queues: 3,
            offload: false,
            promiscuous: true,
            ring_kib: 1024,
            steering: None,
        };
        assert_eq!(read(text), Ok(expected));
    }

    #[test]
    fn a_wrong_value_is_named_with_file_and_key() {
        for (line, key) in [
            (r#"interface = "a/b""#, "interface"),
            (r#"mac = "01:00:00:00:00:01""#, "mac"),
            ("mtu = 67", "mtu"),
            ("mtu = 65522", "mtu"),
            ("queues = 0", "queues"),
            ("ring_kib = 511", "ring_kib"),
            ("offload = 1", "offload"),
            ("ring = 1", "ring"),
        ] {
            let name = if key == "interface" { "" } else { "interface = \"eth0\"\n" };
            let error = read(&format!("[packet]\n{name}{line}")).unwrap_err().to_string();
            assert!(error.starts_with(&format!("t.toml: packet.{key} = ")), "{error}");
        }
        assert!(read("").unwrap_err().to_string().contains("packet.interface"));
    }

    #[test]
    fn bad_values_from_a_program_are_refused_with_their_key() {
        let good = || PacketConfig { interface: "eth0".into(), ..PacketConfig::default() };
        for (config, key) in [
            (PacketConfig::default(), "packet.interface"),
            (PacketConfig { queues: 257, ..good() }, "packet.queues"),
            (PacketConfig { ring_kib: 1, ..good() }, "packet.ring_kib"),
            (PacketConfig { mac: Some([0; 6]), ..good() }, "packet.mac"),
        ] {
            match config.validate() {
                Err(SetupError::Config { key: found, .. }) => assert_eq!(found, key, "{config:?}"),
                other => panic!("{config:?} gave {other:?}"),
            }
        }
        assert_eq!(good().validate(), Ok(()));
    }
}
