//! The configuration's table `[xdp]`.

use libos::{Config, SetupError};

use super::config::{MAX_QUEUE, MAX_RING_ENTRIES, Placement, RING_RULE, XdpConfig, is_ring_size};
use crate::interface::InterfaceKeys;

/// Longest time that the kernel is asked to poll at once, in microseconds.
const MAX_BUSY_POLL_US: usize = 1_000_000;

impl XdpConfig {
    /// Reads the table `[xdp]`; what is not set has the default of [`XdpConfig::default`].
    ///
    /// # Errors
    /// [`SetupError::Config`] for the first value that is wrong, for a key that is not known, and when no interface is
    /// named.
    pub fn from_config(config: &Config) -> Result<Self, SetupError> {
        let default = Self::default();
        let mut section = config.section("xdp");
        let InterfaceKeys { interface, mac, mtu } = InterfaceKeys::read(&mut section)?;
        let queue = section.usize("queue", 0..=MAX_QUEUE - 1, default.queue)?;
        let placement = match section.choice("mode", &["auto", "native", "generic"], "auto")? {
            "native" => Placement::Native,
            "generic" => Placement::Generic,
            _ => Placement::Auto,
        };
        let mut ring = |key, default| {
            let entries = section.usize(key, 1..=MAX_RING_ENTRIES, default)?;
            if is_ring_size(entries) { Ok(entries) } else { Err(section.reject(key, RING_RULE)) }
        };
        let receive_ring = ring("receive_ring", default.receive_ring)?;
        let transmit_ring = ring("transmit_ring", default.transmit_ring)?;
        let read = Self {
            interface,
            queue,
            queues: section.usize("queues", 1..=MAX_QUEUE - queue, default.queues)?,
            mac,
            mtu,
            placement,
            zero_copy: section.bool("zero_copy", default.zero_copy)?,
            busy_poll_us: section.usize("busy_poll_us", 0..=MAX_BUSY_POLL_US, 0)? as u32,
            receive_ring,
            transmit_ring,
        };
        section.finish()?;
        InterfaceKeys::require_name(&read.interface, &config.section("xdp"))?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interface::testing::{refused_with_its_key, wrong_values_are_named};

    fn read(text: &str) -> Result<XdpConfig, SetupError> {
        XdpConfig::from_config(&Config::from_toml_str("t.toml", text)?)
    }

    #[test]
    fn the_documented_file_says_the_defaults() {
        let expected = XdpConfig { interface: "eth0".into(), ..XdpConfig::default() };
        assert_eq!(read(include_str!("../../../docs/catnip.toml")), Ok(expected));
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
            [xdp]
            interface = "veth1"
            queue = 2
            queues = 3
            mac = "02:00:00:00:00:07"
            mtu = 1400
            mode = "generic"
            zero_copy = false
            busy_poll_us = 20
            receive_ring = 64
            transmit_ring = 16384
        "#;
        let expected = XdpConfig {
            interface: "veth1".into(),
            queue: 2,
            queues: 3,
            mac: Some([2, 0, 0, 0, 0, 7]),
            mtu: Some(1400),
            placement: Placement::Generic,
            zero_copy: false,
            busy_poll_us: 20,
            receive_ring: 64,
            transmit_ring: 16_384,
        };
        assert_eq!(read(text), Ok(expected));
    }

    #[test]
    fn a_wrong_value_is_named_with_file_and_key() {
        wrong_values_are_named(
            "xdp",
            XdpConfig::from_config,
            &[
                ("queue = 1024", "queue"),
                ("queue = 1000\nqueues = 25", "queues"),
                (r#"mode = "offload""#, "mode"),
                ("receive_ring = 100", "receive_ring"),
                ("transmit_ring = 32", "transmit_ring"),
                ("transmit_ring = 32768", "transmit_ring"),
                ("zero_copy = 1", "zero_copy"),
            ],
        );
    }

    #[test]
    fn bad_values_from_a_program_are_refused_with_their_key() {
        let good = || XdpConfig { interface: "eth0".into(), ..XdpConfig::default() };
        refused_with_its_key(
            XdpConfig::validate,
            [
                (XdpConfig::default(), "xdp.interface"),
                (XdpConfig { queue: 1024, ..good() }, "xdp.queue"),
                (XdpConfig { queues: 0, ..good() }, "xdp.queues"),
                (XdpConfig { receive_ring: 65, ..good() }, "xdp.receive_ring"),
                (XdpConfig { transmit_ring: 0, ..good() }, "xdp.transmit_ring"),
                (XdpConfig { mac: Some([0; 6]), ..good() }, "xdp.mac"),
            ],
        );
        assert_eq!(good().validate(), Ok(()));
    }
}
