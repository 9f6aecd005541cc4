//! The configuration's table `[tap]`.

use libos::{Config, SetupError};

use super::config::{HostAddress, MAX_QUEUES, TapConfig};
use crate::interface::{MAX_MTU, MIN_MTU, NAME_RULE, is_interface_name};
use libos::mac::Mac;

/// The table's name.
const TABLE: &str = "tap";

impl TapConfig {
    /// Reads the table `[tap]`; what is not set has the default of [`TapConfig::default`].
    ///
    /// # Errors
    /// [`SetupError::Config`] for the first value that is wrong and for a key that is not known.
    pub fn from_config(config: &Config) -> Result<Self, SetupError> {
        let default = Self::default();
        let mut section = config.section(TABLE);
        let name = section.string("name", &default.name)?;
        if !is_interface_name(&name) {
            return Err(section.reject("name", NAME_RULE));
        }
        let mac: Option<Mac> = section.parsed("mac", Mac::RULE)?;
        let read = Self {
            name,
            mac: mac.map(|mac| mac.0),
            mtu: section.usize("mtu", MIN_MTU..=MAX_MTU, default.mtu)?,
            queues: section.usize("queues", 1..=MAX_QUEUES, default.queues)?,
            offload: section.bool("offload", default.offload)?,
            udp_segmentation: section.bool("udp_segmentation", default.udp_segmentation)?,
            napi: section.bool("napi", default.napi)?,
            up: section.bool("up", default.up)?,
            host_addresses: section.parsed_list("host_addresses", HostAddress::RULE)?,
            steering: None,
        };
        section.finish()?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<TapConfig, SetupError> {
        TapConfig::from_config(&Config::from_toml_str("t.toml", text)?)
    }

    #[test]
    fn without_a_table_everything_has_its_default() {
        assert_eq!(read(""), Ok(TapConfig::default()));
    }

    #[test]
    fn the_documented_file_says_the_defaults() {
        assert_eq!(read(include_str!("../../../docs/catnip.toml")), Ok(TapConfig::default()));
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
            [tap]
            name = "tap7"
            mac = "02:00:5e:10:0:ff"
            mtu = 9000
            queues = 2
            offload = false
            udp_segmentation = true
            napi = true
            up = false
            host_addresses = ["10.1.0.1/24", "fd00::1/64"]
        "#;
        let expected = TapConfig {
            name: "tap7".into(),
            mac: Some([2, 0, 0x5e, 0x10, 0, 0xff]),
            mtu: 9000,
            queues: 2,
            offload: false,
            udp_segmentation: true,
            napi: true,
            up: false,
            host_addresses: vec!["10.1.0.1/24".parse().unwrap(), "fd00::1/64".parse().unwrap()],
            steering: None,
        };
        assert_eq!(read(text), Ok(expected));
    }

    #[test]
    fn a_wrong_value_is_named_with_file_key_and_what_is_allowed() {
        for (line, allowed) in [
            (r#"name = "a name""#, NAME_RULE),
            (r#"mac = "01:00:00:00:00:01""#, Mac::RULE),
            (r#"mac = "00:00:00:00:00:00""#, Mac::RULE),
            (r#"mac = "02:00:00:00:00""#, Mac::RULE),
            (r#"mac = "02:00:00:00:00:01:02""#, Mac::RULE),
            (r#"mac = "02:00:00:00:00:+1""#, Mac::RULE),
            ("mtu = 67", "an integer from 68 to 65521"),
            ("queues = 0", "an integer from 1 to 256"),
            (r#"offload = "on""#, "true or false"),
            (r#"host_addresses = ["10.1.0.1"]"#, HostAddress::RULE),
        ] {
            let error = read(&format!("[tap]\n{line}")).unwrap_err().to_string();
            let key = line.split(' ').next().unwrap();
            assert!(error.starts_with(&format!("t.toml: tap.{key} = ")), "{error}");
            assert!(error.ends_with(allowed), "{error}");
        }
        assert!(read("[tap]\nmtv = 1500").unwrap_err().to_string().contains("tap.mtv"));
    }
}
