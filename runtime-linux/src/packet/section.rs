//! The configuration's table `[packet]`.

use libos::{Config, SetupError};

use super::config::{MAX_QUEUES, MAX_RING_KIB, PacketConfig, is_ring_size, ring_rule};
use crate::interface::InterfaceKeys;

impl PacketConfig {
    /// Reads the table `[packet]`; what is not set has the default of [`PacketConfig::default`].
    ///
    /// # Errors
    /// [`SetupError::Config`] for the first value that is wrong, for a key that is not known, and when no interface is
    /// named.
    pub fn from_config(config: &Config) -> Result<Self, SetupError> {
        let default = Self::default();
        let mut section = config.section("packet");
        let InterfaceKeys { interface, mac, mtu } = InterfaceKeys::read(&mut section)?;
        let ring_kib = section.usize("ring_kib", 0..=MAX_RING_KIB, default.ring_kib)?;
        if !is_ring_size(ring_kib) {
            return Err(section.reject("ring_kib", ring_rule()));
        }
        let read = Self {
            interface,
            mac,
            mtu,
            queues: section.usize("queues", 1..=MAX_QUEUES, default.queues)?,
            offload: section.bool("offload", default.offload)?,
            promiscuous: section.bool("promiscuous", default.promiscuous)?,
            ring_kib,
            steering: None,
        };
        section.finish()?;
        InterfaceKeys::require_name(&read.interface, &config.section("packet"))?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interface::testing::{refused_with_its_key, wrong_values_are_named};

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
        wrong_values_are_named(
            "packet",
            PacketConfig::from_config,
            &[("ring_kib = 511", "ring_kib"), ("offload = 1", "offload")],
        );
    }

    #[test]
    fn bad_values_from_a_program_are_refused_with_their_key() {
        let good = || PacketConfig { interface: "eth0".into(), ..PacketConfig::default() };
        refused_with_its_key(
            PacketConfig::validate,
            [
                (PacketConfig::default(), "packet.interface"),
                (PacketConfig { queues: 257, ..good() }, "packet.queues"),
                (PacketConfig { ring_kib: 1, ..good() }, "packet.ring_kib"),
                (PacketConfig { mac: Some([0; 6]), ..good() }, "packet.mac"),
            ],
        );
        assert_eq!(good().validate(), Ok(()));
    }
}
