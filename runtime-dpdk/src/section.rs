//! The configuration's table `[dpdk]`.

use libos::{Config, SetupError};

use crate::config::{
    DpdkConfig, MAX_DESCRIPTORS, MAX_MTU, MAX_QUEUES, MIN_DESCRIPTORS, MIN_MTU, MemoryPolicy,
};
use libos::mac::Mac;

/// The table's name.
const TABLE: &str = "dpdk";

/// Values of `memory`, and what each means.
const MEMORY_POLICIES: [(&str, MemoryPolicy); 4] = [
    ("auto", MemoryPolicy::Auto),
    ("dma", MemoryPolicy::Dma),
    ("runtime-heap", MemoryPolicy::RuntimeHeap),
    ("copy", MemoryPolicy::Copy),
];

/// Longest time to wait for a link.
const HOUR_MS: u64 = 3_600_000;

/// Most MiB of DPDK's own memory.
const MAX_MEMORY_MIB: usize = 1 << 20;

/// More ports than any build of DPDK has.
const MAX_PORT: u16 = 1023;

impl DpdkConfig {
    /// Reads the table `[dpdk]`; what is not set has the default of [`DpdkConfig::default`].
    ///
    /// # Errors
    /// [`SetupError::Config`] for the first value that is wrong and for a key that is not known.
    pub fn from_config(config: &Config) -> Result<Self, SetupError> {
        let default = Self::default();
        let mut section = config.section(TABLE);
        let words = MEMORY_POLICIES.map(|(word, _)| word);
        let mac: Option<Mac> = section.parsed("mac", Mac::RULE)?;
        let mtu = section.usize("mtu", 0..=MAX_MTU, default.mtu)?;
        if (1..MIN_MTU).contains(&mtu) {
            return Err(section.reject("mtu", format!("0, or an integer from {MIN_MTU} to {MAX_MTU}")));
        }
        let descriptors = MIN_DESCRIPTORS..=MAX_DESCRIPTORS;
        let memory = section.choice("memory", &words, words[0])?;
        let memory = MEMORY_POLICIES.into_iter().find(|(word, _)| *word == memory);
        let read = Self {
            device: section.string("device", &default.device)?,
            port: section.integer("port", 0..=MAX_PORT, default.port)?,
            eal_args: section.strings("eal_args")?,
            memory_mib: section.usize("memory_mib", 0..=MAX_MEMORY_MIB, default.memory_mib)?,
            queues: section.usize("queues", 1..=MAX_QUEUES, default.queues)?,
            rx_descriptors: section.usize("rx_descriptors", descriptors.clone(), default.rx_descriptors)?,
            tx_descriptors: section.usize("tx_descriptors", descriptors, default.tx_descriptors)?,
            mtu,
            mac: mac.map(|mac| mac.0),
            offload: section.bool("offload", default.offload)?,
            memory: memory.map_or(default.memory, |(_, policy)| policy),
            link_wait: section.duration_ms("link_wait_ms", 0..=HOUR_MS, 10_000)?,
            spreading: default.spreading,
        };
        section.finish()?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(text: &str) -> Result<DpdkConfig, SetupError> {
        DpdkConfig::from_config(&Config::from_toml_str("t.toml", text)?)
    }

    #[test]
    fn without_a_table_and_in_the_documented_file_everything_has_its_default() {
        assert_eq!(read(""), Ok(DpdkConfig::default()));
        assert_eq!(read(include_str!("../../docs/catnip.toml")), Ok(DpdkConfig::default()));
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
            [dpdk]
            device = "net_tap0,iface=dtap0"
            port = 2
            eal_args = ["--log-level=debug"]
            memory_mib = 512
            queues = 4
            rx_descriptors = 512
            tx_descriptors = 256
            mtu = 9000
            mac = "02:00:5e:10:0:ff"
            offload = false
            memory = "runtime-heap"
            link_wait_ms = 250
        "#;
        let expected = DpdkConfig {
            device: "net_tap0,iface=dtap0".into(),
            port: 2,
            eal_args: vec!["--log-level=debug".into()],
            memory_mib: 512,
            queues: 4,
            rx_descriptors: 512,
            tx_descriptors: 256,
            mtu: 9000,
            mac: Some([2, 0, 0x5e, 0x10, 0, 0xff]),
            offload: false,
            memory: MemoryPolicy::RuntimeHeap,
            link_wait: Duration::from_millis(250),
            spreading: None,
        };
        assert_eq!(read(text), Ok(expected));
    }

    #[test]
    fn a_wrong_value_is_named_with_file_key_and_what_is_allowed() {
        for (line, allowed) in [
            (r#"mac = "01:00:00:00:00:01""#, Mac::RULE),
            ("mtu = 67", "0, or an integer from 68 to 16128"),
            ("queues = 0", "an integer from 1 to 128"),
            (r#"memory = "zero""#, "one of auto, dma, runtime-heap, copy"),
            (r#"offload = "on""#, "true or false"),
            ("rx_descriptors = 1", "an integer from 64 to 32768"),
        ] {
            let error = read(&format!("[dpdk]\n{line}")).unwrap_err().to_string();
            let key = line.split(' ').next().unwrap();
            assert!(error.starts_with(&format!("t.toml: dpdk.{key} = ")), "{error}");
            assert!(error.ends_with(allowed), "{error}");
        }
        assert!(read("[dpdk]\nmtv = 1500").unwrap_err().to_string().contains("dpdk.mtv"));
    }
}
