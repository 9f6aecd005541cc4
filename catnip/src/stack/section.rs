//! The configuration's tables `[stack]`, `[neighbor]`, `[udp]` and `[tcp]`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use libos::config::Section;
use libos::runtime::Capabilities;
use libos::{Config, SetupError};

use super::StackConfig;
use crate::network::{ConflictDetection, FragmentConfig, NeighborConfig};
use crate::tcp::congestion::Algorithm;
use crate::tcp::{EcnMode, Keepalive, MIN_SEGMENT_BYTES, TcpConfig, TcpOptions};
use crate::udp::UdpConfig;
use crate::wire::vlan::VlanId;

const ADDRESSES: &str = "addresses with their prefix lengths, such as 192.0.2.1/24 or 2001:db8::1/64";
const ROUTES: &str = "networks and the routers to them, such as 198.51.100.0/24 via 192.0.2.254";

const SECRET: &str = "32 hexadecimal digits";

/// 128 bits.
struct Secret(u128);

impl FromStr for Secret {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u128::from_str_radix(text, 16).ok().filter(|_| digits).map(Self).ok_or(())
    }
}

/// A day: no timeout of the protocols is longer.
const DAY_MS: u64 = 24 * 3_600_000;
/// No queue or buffer of one socket holds more.
const MAX_QUEUE_BYTES: usize = 1 << 30;
/// What waits ahead of gaps in all connections together lies in the region, which is no larger.
const MAX_OUT_OF_ORDER_BYTES: usize = 1 << 40;
/// Entries of the largest table.
const MAX_ENTRIES: usize = 1 << 24;

impl StackConfig {
    /// The tables that [`StackConfig::from_config`] reads.
    pub const TABLES: [&'static str; 5] = ["stack", "fragment", "neighbor", "udp", "tcp"];

    /// Reads the tables; what is not set has the default of [`StackConfig::new`].
    ///
    /// # Errors
    /// [`SetupError::Config`] for the first value that is wrong and for a key that is not known.
    pub fn from_config(config: &Config, device: Capabilities) -> Result<Self, SetupError> {
        let default = Self::new(device);
        let mut section = config.section("stack");
        let read = Self {
            addresses: section.parsed_list("addresses", ADDRESSES)?,
            gateway_v4: section.parsed::<Ipv4Addr>("gateway_v4", "an IPv4 address")?,
            gateway_v6: section.parsed::<Ipv6Addr>("gateway_v6", "an IPv6 address")?,
            routes: section.parsed_list("routes", ROUTES)?,
            vlan: VlanId::new(section.integer("vlan", 0..=4094, 0)?),
            link_local: section.bool("link_local", default.link_local)?,
            dhcp: section.bool("dhcp", default.dhcp)?,
            router_discovery: section.bool("router_discovery", default.router_discovery)?,
            address_secret: section.parsed::<Secret>("address_secret", SECRET)?.map(|secret| secret.0),
            redirects: section.bool("redirects", default.redirects)?,
            conflict_detection: match section.choice(
                "conflict_detection",
                &["off", "defend", "probe"],
                "defend",
            )? {
                "off" => ConflictDetection::Off,
                "probe" => ConflictDetection::Probe,
                _ => ConflictDetection::Defend,
            },
            verify_checksums: section.bool("verify_checksums", default.verify_checksums)?,
            transmit_queue_frames: section.usize(
                "transmit_queue_frames",
                1..=MAX_ENTRIES,
                default.transmit_queue_frames,
            )?,
            loop_queue_packets: section.usize(
                "loop_queue_packets",
                0..=MAX_ENTRIES,
                default.loop_queue_packets,
            )?,
            icmp_errors_per_second: section.integer(
                "icmp_errors_per_second",
                0..=1_000_000,
                default.icmp_errors_per_second,
            )?,
            icmp_errors_burst: section.integer(
                "icmp_errors_burst",
                1..=1_000_000,
                default.icmp_errors_burst,
            )?,
            fragment: fragment(config)?,
            neighbor: neighbor(config)?,
            udp: udp(config)?,
            tcp: tcp(config)?,
            device,
            share: None,
        };
        section.finish()?;
        Ok(read)
    }
}

fn neighbor(config: &Config) -> Result<NeighborConfig, SetupError> {
    let default = NeighborConfig::default();
    let mut section = config.section("neighbor");
    let read = NeighborConfig {
        max_neighbors: section.usize("max_neighbors", 1..=MAX_ENTRIES, default.max_neighbors)?,
        max_pending_packets: section.usize("max_pending_packets", 1..=4096, default.max_pending_packets)?,
        retry: section.duration_ms("retry_ms", 1..=DAY_MS, millis(default.retry))?,
        max_requests: section.integer("max_requests", 1..=255, default.max_requests)?,
        failure_hold: section.duration_ms("failure_hold_ms", 0..=DAY_MS, millis(default.failure_hold))?,
        reachable: section.duration_ms("reachable_ms", 1..=DAY_MS, millis(default.reachable))?,
        probe_delay: section.duration_ms("probe_delay_ms", 0..=DAY_MS, millis(default.probe_delay))?,
    };
    section.finish()?;
    Ok(read)
}

fn fragment(config: &Config) -> Result<FragmentConfig, SetupError> {
    let default = FragmentConfig::default();
    let mut section = config.section("fragment");
    let read = FragmentConfig {
        timeout: section.duration_ms("timeout_ms", 1..=DAY_MS, millis(default.timeout))?,
        max_packets: section.usize("max_packets", 1..=MAX_ENTRIES, default.max_packets)?,
        max_source_packets: section.usize(
            "max_source_packets",
            1..=MAX_ENTRIES,
            default.max_source_packets,
        )?,
        max_bytes: section.usize("max_bytes", 0..=MAX_QUEUE_BYTES, default.max_bytes)?,
        max_source_bytes: section.usize("max_source_bytes", 0..=MAX_QUEUE_BYTES, default.max_source_bytes)?,
    };
    section.finish()?;
    Ok(read)
}

fn udp(config: &Config) -> Result<UdpConfig, SetupError> {
    let default = UdpConfig::default();
    let mut section = config.section("udp");
    let read = UdpConfig {
        max_sockets: section.usize("max_sockets", 1..=MAX_ENTRIES, default.max_sockets)?,
        receive_queue_datagrams: section.usize(
            "receive_queue_datagrams",
            1..=MAX_ENTRIES,
            default.receive_queue_datagrams,
        )?,
        receive_queue_bytes: section.usize(
            "receive_queue_bytes",
            1..=MAX_QUEUE_BYTES,
            default.receive_queue_bytes,
        )?,
        ephemeral_low: section.integer("ephemeral_low", 1..=u16::MAX, default.ephemeral_low)?,
        ephemeral_high: section.integer("ephemeral_high", 1..=u16::MAX, default.ephemeral_high)?,
        hop_limit: section.integer("hop_limit", 1..=255, default.hop_limit)?,
    };
    if read.ephemeral_low > read.ephemeral_high {
        return Err(
            section.reject("ephemeral_high", format!("{} or more: udp.ephemeral_low", read.ephemeral_low))
        );
    }
    section.finish()?;
    Ok(read)
}

fn tcp(config: &Config) -> Result<TcpConfig, SetupError> {
    let default = TcpConfig::default();
    let options = default.options;
    let mut section = config.section("tcp");
    let read = TcpConfig {
        options: TcpOptions {
            no_delay: section.bool("no_delay", options.no_delay)?,
            keep_alive: section.bool("keep_alive", options.keep_alive)?,
            keepalive: keepalive(&mut section, options.keepalive)?,
            send_buffer_bytes: section.usize(
                "send_buffer_bytes",
                1..=MAX_QUEUE_BYTES,
                options.send_buffer_bytes,
            )?,
            receive_buffer_bytes: section.usize(
                "receive_buffer_bytes",
                1..=MAX_QUEUE_BYTES,
                options.receive_buffer_bytes,
            )?,
            send_buffer_max_bytes: section.usize(
                "send_buffer_max_bytes",
                1..=MAX_QUEUE_BYTES,
                options.send_buffer_max_bytes,
            )?,
            receive_buffer_max_bytes: section.usize(
                "receive_buffer_max_bytes",
                1..=MAX_QUEUE_BYTES,
                options.receive_buffer_max_bytes,
            )?,
            hop_limit: section.integer("hop_limit", 1..=255, options.hop_limit)?,
            congestion: congestion(&mut section)?,
            linger: match section.integer("linger_ms", -1..=DAY_MS.cast_signed(), -1)? {
                // Only -1 is negative.
                none if none < 0 => None,
                millis => Some(Duration::from_millis(millis.cast_unsigned())),
            },
            max_segment_bytes: match section.integer("max_segment_bytes", 0..=u16::MAX, 0)? {
                0 => None,
                bytes if bytes >= MIN_SEGMENT_BYTES => Some(bytes),
                _ => {
                    let allowed = format!("0, or {MIN_SEGMENT_BYTES} to {}", u16::MAX);
                    return Err(section.reject("max_segment_bytes", allowed));
                }
            },
            cork: section.bool("cork", options.cork)?,
            quick_ack: section.bool("quick_ack", options.quick_ack)?,
            user_timeout: match section.integer("user_timeout_ms", 0..=DAY_MS, 0)? {
                0 => None,
                millis => Some(Duration::from_millis(millis)),
            },
            user_timeout_option: section.bool("user_timeout_option", options.user_timeout_option)?,
            fast_open_queue: section.usize("fast_open_queue", 0..=4096, options.fast_open_queue)?,
            fast_open_connect: section.bool("fast_open_connect", options.fast_open_connect)?,
            // Said for each socket.
            reuse: options.reuse,
            traffic_class: options.traffic_class,
        },
        max_connections: section.usize("max_connections", 1..=MAX_ENTRIES, default.max_connections)?,
        max_listeners: section.usize("max_listeners", 1..=MAX_ENTRIES, default.max_listeners)?,
        rto_min: section.duration_ms("rto_min_ms", 1..=DAY_MS, millis(default.rto_min))?,
        // RFC 6298, section 2.5: at least a minute.
        rto_max: section.duration_ms("rto_max_ms", 60_000..=DAY_MS, millis(default.rto_max))?,
        rto_initial: section.duration_ms("rto_initial_ms", 1..=DAY_MS, millis(default.rto_initial))?,
        max_retransmissions: section.integer("max_retransmissions", 1..=255, default.max_retransmissions)?,
        max_syn_retransmissions: section.integer(
            "max_syn_retransmissions",
            1..=255,
            default.max_syn_retransmissions,
        )?,
        max_syn_ack_retransmissions: section.integer(
            "max_syn_ack_retransmissions",
            1..=255,
            default.max_syn_ack_retransmissions,
        )?,
        // RFC 9293 section 3.8.6.3: less than half a second.
        delayed_ack: section.duration_ms("delayed_ack_ms", 0..=500, millis(default.delayed_ack))?,
        time_wait: section.duration_ms("time_wait_ms", 0..=DAY_MS, millis(default.time_wait))?,
        fin_wait_2: section.duration_ms("fin_wait_2_ms", 0..=DAY_MS, millis(default.fin_wait_2))?,
        timestamps: section.bool("timestamps", default.timestamps)?,
        window_scaling: section.bool("window_scaling", default.window_scaling)?,
        sack: section.bool("sack", default.sack)?,
        ecn: EcnMode::from_name(section.choice("ecn", &EcnMode::NAMES, default.ecn.name())?)
            .unwrap_or(default.ecn),
        path_mtu_search: section.bool("path_mtu_search", default.path_mtu_search)?,
        syn_cookies: section.bool("syn_cookies", default.syn_cookies)?,
        user_timeout_least: section.duration_ms(
            "user_timeout_least_ms",
            1..=DAY_MS,
            millis(default.user_timeout_least),
        )?,
        user_timeout_most: section.duration_ms(
            "user_timeout_most_ms",
            1..=DAY_MS,
            millis(default.user_timeout_most),
        )?,
        fast_open_keys: fast_open_keys(&mut section)?,
        fast_open_key_lifetime: section.duration_ms(
            "fast_open_key_lifetime_ms",
            1_000..=DAY_MS,
            millis(default.fast_open_key_lifetime),
        )?,
        fast_open_cache_entries: section.usize(
            "fast_open_cache_entries",
            0..=1 << 20,
            default.fast_open_cache_entries,
        )?,
        challenge_acks_per_second: section.integer(
            "challenge_acks_per_second",
            0..=1_000_000,
            default.challenge_acks_per_second,
        )?,
        resets_per_second: section.integer("resets_per_second", 0..=1_000_000, default.resets_per_second)?,
        max_out_of_order_bytes: section.usize(
            "max_out_of_order_bytes",
            0..=MAX_OUT_OF_ORDER_BYTES,
            default.max_out_of_order_bytes,
        )?,
        metrics_connections: section.usize("metrics_connections", 0..=4096, default.metrics_connections)?,
        clock_granularity: section
            .integer("clock_granularity_us", 1..=1_000_000, 1)
            .map(Duration::from_micros)?,
    };
    if read.rto_min > read.rto_max {
        return Err(section.reject("rto_max_ms", format!("{} or more: tcp.rto_min_ms", millis(read.rto_min))));
    }
    if read.user_timeout_least > read.user_timeout_most {
        let least = format!("{} or more: tcp.user_timeout_least_ms", millis(read.user_timeout_least));
        return Err(section.reject("user_timeout_most_ms", least));
    }
    section.finish()?;
    Ok(read)
}

fn keepalive(section: &mut Section<'_>, default: Keepalive) -> Result<Keepalive, SetupError> {
    Ok(Keepalive {
        idle_ms: section.integer("keepalive_idle_ms", 1..=DAY_MS as u32, default.idle_ms)?,
        interval_ms: section.integer("keepalive_interval_ms", 1..=DAY_MS as u32, default.interval_ms)?,
        probes: section.integer("keepalive_probes", 1..=255, default.probes)?,
    })
}

fn fast_open_keys(section: &mut Section<'_>) -> Result<Vec<u128>, SetupError> {
    let keys: Vec<Secret> = section.parsed_list("fast_open_keys", SECRET)?;
    if keys.len() > 2 {
        return Err(section.reject("fast_open_keys", "two keys at most".to_owned()));
    }
    Ok(keys.into_iter().map(|key| key.0).collect())
}

fn congestion(section: &mut Section<'_>) -> Result<Algorithm, SetupError> {
    let default = Algorithm::default();
    let name = section.choice("congestion", &Algorithm::NAMES, default.name())?;
    Ok(Algorithm::from_name(name).unwrap_or(default))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use libos::runtime::{Medium, TxChecksum};

    use super::*;

    const DEVICE: Capabilities = Capabilities {
        medium: Medium::Ethernet,
        hardware_address: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
        tx_checksum: TxChecksum::Software,
        tcp_segmentation_bytes: 0,
        max_segments: 16,
    };

    fn read(text: &str) -> Result<StackConfig, SetupError> {
        StackConfig::from_config(&Config::from_toml_str("t.toml", text)?, DEVICE)
    }

    #[test]
    fn without_tables_everything_has_its_default() {
        assert_eq!(read(""), Ok(StackConfig::new(DEVICE)));
    }

    #[test]
    fn the_documented_file_says_the_defaults() {
        assert_eq!(read(include_str!("../../../docs/catnip.toml")), Ok(StackConfig::new(DEVICE)));
    }

    #[test]
    fn every_table_is_read() {
        let text = r#"
            [stack]
            addresses = ["192.0.2.1/24", "2001:db8::1/64"]
            gateway_v4 = "192.0.2.254"
            gateway_v6 = "2001:db8::ff"
            routes = ["198.51.100.0/24 via 192.0.2.253"]
            verify_checksums = false
            [neighbor]
            retry_ms = 250
            [udp]
            ephemeral_low = 1024
            [tcp]
            no_delay = true
            rto_min_ms = 5
            congestion = "reno"
            ecn = "on"
            linger_ms = 0
            max_segment_bytes = 1000
            user_timeout_ms = 2500
            clock_granularity_us = 1000
        "#;
        let read = read(text).unwrap();
        assert_eq!(read.addresses, ["192.0.2.1/24", "2001:db8::1/64"].map(|text| text.parse().unwrap()));
        assert_eq!(read.gateway_v4, Some(Ipv4Addr::new(192, 0, 2, 254)));
        assert_eq!(read.gateway_v6, Some("2001:db8::ff".parse().unwrap()));
        assert_eq!(read.routes, ["198.51.100.0/24 via 192.0.2.253".parse().unwrap()]);
        assert!(!read.verify_checksums);
        assert_eq!(read.neighbor.retry, Duration::from_millis(250));
        assert_eq!(read.udp.ephemeral_low, 1024);
        assert!(read.tcp.options.no_delay);
        assert_eq!(read.tcp.ecn, EcnMode::On);
        assert_eq!(read.tcp.options.congestion, Algorithm::NewReno);
        assert_eq!(read.tcp.rto_min, Duration::from_millis(5));
        assert_eq!(read.tcp.options.linger, Some(Duration::ZERO));
        assert_eq!(read.tcp.options.max_segment_bytes, Some(1_000));
        assert_eq!(read.tcp.options.user_timeout, Some(Duration::from_millis(2_500)));
        assert_eq!(read.tcp.clock_granularity, Duration::from_millis(1));
        assert_eq!(read.check(), Ok(()));
    }

    #[test]
    fn mistakes_name_the_key_and_what_is_allowed() {
        for (text, line) in [
            (
                "[stack]\naddresses = [\"192.0.2.1\"]",
                "t.toml: stack.addresses = [\"192.0.2.1\"]: allowed is addresses",
            ),
            (
                "[stack]\ngateway_v4 = \"::1\"",
                "t.toml: stack.gateway_v4 = \"::1\": allowed is an IPv4 address",
            ),
            ("[udp]\nhop_limit = 256", "t.toml: udp.hop_limit = 256: allowed is an integer from 1 to 255"),
            ("[udp]\nephemeral_high = 7", "t.toml: udp.ephemeral_high = 7: allowed is 49152 or more"),
            ("[tcp]\nrto_max_ms = 7", "t.toml: tcp.rto_max_ms = 7: allowed is an integer from 60000 to"),
            (
                "[tcp]\nrto_min_ms = 90000\nrto_max_ms = 60000",
                "t.toml: tcp.rto_max_ms = 60000: allowed is 90000 or more",
            ),
            (
                "[tcp]\nmax_segment_bytes = 7",
                "t.toml: tcp.max_segment_bytes = 7: allowed is 0, or 36 to 65535",
            ),
            ("[tcp]\nrto_mim_ms = 7", "t.toml: tcp.rto_mim_ms = 7: allowed is the keys "),
            (
                "[tcp]\ncongestion = \"vegas\"",
                "t.toml: tcp.congestion = \"vegas\": allowed is one of cubic, reno, dctcp, bbr",
            ),
            ("[neighbor]\nretry_ms = 0", "t.toml: neighbor.retry_ms = 0: allowed is an integer from 1 to"),
        ] {
            let said = read(text).unwrap_err().to_string();
            assert!(said.starts_with(line), "{said}");
        }
    }
}
