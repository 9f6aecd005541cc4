//! XDP sockets.

use catnip_os::libos::Config;

use crate::link::{self, Family};
use crate::{both, echo, idleness, namespace, pair, root};

const PORT: u16 = 5011;

fn config() -> Config {
    pair::config("xdp")
}

fn make(mtu: usize) {
    pair::make(mtu);
    pair::compute_checksums();
}

fn transfer_all(what: &str, config: &Config, mtu: usize) {
    make(mtu);
    let libos = link::open(config);
    both::transfer_all(&libos, what);
    assert_eq!(link::metric(&libos, "catnip.device.rx_unknown_buffers"), 0);
    let copied = link::metric(&libos, "catnip.device.rx_copied_bytes");
    assert_eq!(copied, link::metric(&libos, "catnip.device.rx_bytes"), "veth has no zero-copy mode");
}

#[test]
fn bulk_arrives_unchanged_both_ways_in_native_mode() {
    root::enter(|| {
        let config = config().set("xdp.mode", "native");
        transfer_all("XDP, native", &config, 1500);
    });
}

#[test]
fn bulk_arrives_unchanged_both_ways_in_generic_mode() {
    root::enter(|| {
        let config = config().set("xdp.mode", "generic");
        transfer_all("XDP, generic", &config, 1500);
    });
}

#[test]
fn bulk_arrives_unchanged_both_ways_in_frames_of_several_buffers() {
    root::enter(|| transfer_all("XDP, large frames", &config(), 9000));
}

#[test]
fn bulk_arrives_unchanged_both_ways_with_busy_polling() {
    root::enter(|| {
        let config = config().set("xdp.busy_poll_us", 20);
        transfer_all("XDP, busy polling", &config, 1500);
    });
}

#[test]
fn what_was_got_is_in_the_metrics() {
    root::enter(|| {
        make(1500);
        for (mode, native) in [("auto", 1), ("native", 1), ("generic", 0)] {
            let libos = link::open(&config().set("xdp.mode", mode));
            assert_eq!(link::metric(&libos, "catnip.device.native_mode"), native, "{mode}");
            assert_eq!(link::metric(&libos, "catnip.device.zero_copy"), 0, "{mode}");
        }
    });
}

#[test]
fn datagrams_come_back_unchanged() {
    root::enter(|| {
        make(1500);
        both::datagrams_come_back_unchanged(&link::open(&config()));
    });
}

#[test]
fn a_library_os_may_have_an_address_of_its_own() {
    root::enter(|| {
        make(1500);
        let libos = link::open(&config().set("xdp.mac", "02:00:00:00:00:42"));
        let address = Family::V4.catnip(PORT);
        echo::exchange(&libos, address, 1 << 20, "an address of its own");
    });
}

#[test]
fn a_wait_that_sleeps_is_woken_by_a_frame() {
    root::enter(|| {
        make(1500);
        both::a_wait_that_sleeps_is_woken_by_a_frame(&config());
    });
}

#[test]
fn idle_connections_cost_next_to_nothing_and_a_packet_one_wake_up() {
    root::enter(|| {
        make(1500);
        for idle in ["adaptive", "sleep"] {
            let libos = link::open(&config().set("libos.idle", idle));
            idleness::costs_next_to_nothing_and_a_packet_costs_one_wake_up(&libos, &format!("XDP, {idle}"));
        }
    });
}

#[test]
fn garbage_is_dropped_and_what_follows_arrives() {
    root::enter(|| {
        make(1500);
        both::garbage_is_dropped_and_what_follows_arrives(&link::open(&config()));
    });
}

#[test]
fn an_interface_that_goes_away_fails_what_waits() {
    root::enter(|| {
        for idle in ["sleep", "spin"] {
            make(1500);
            both::an_interface_that_goes_away_fails_what_waits(&config().set("libos.idle", idle));
        }
    });
}

#[test]
fn a_link_that_goes_down_and_comes_back_loses_only_what_was_sent_meanwhile() {
    root::enter(|| {
        make(1500);
        both::a_link_that_goes_down_and_comes_back_loses_only_what_was_sent_meanwhile(&config());
    });
}

#[test]
fn the_queue_can_be_bound_again_as_soon_as_it_is_free() {
    root::enter(|| {
        make(1500);
        for round in 0..5 {
            let libos = link::open(&config());
            echo::exchange(&libos, Family::V4.catnip(PORT), 1 << 16, &format!("round {round}"));
        }
    });
}

#[test]
fn what_cannot_be_opened_is_said_in_one_line() {
    root::enter(|| {
        let line = both::refusal(&config());
        assert!(line.starts_with("veth-ours: RTM_GETLINK: there is no such interface"), "{line}");
        make(1500);
        let line = both::refusal(&config().set("xdp.queue", 1));
        assert!(line.contains("bind: ") && line.contains("has no queue 1"), "{line}");
        let line = both::refusal(&config().set("xdp.mtu", 1501));
        assert!(line.contains("xdp.mtu = 1501: allowed is at most the 1500 bytes of veth-ours"), "{line}");
        let _holder = link::open(&config());
        let line = both::refusal(&config());
        assert!(line.contains("another XDP program is attached"), "{line}");
    });
}

#[test]
fn root_of_a_user_namespace_is_told_that_this_is_not_enough() {
    namespace::enter("-Urn", || {
        pair::make(1500);
        let line = catnip_os::open(&config()).map(drop).unwrap_err().to_string();
        assert!(line.contains("no permission") && line.contains("unshare -Urn"), "{line}");
    });
}
