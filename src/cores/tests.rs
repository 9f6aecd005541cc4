use std::sync::atomic::{AtomicUsize, Ordering};

use libos::{Domain, SocketKind};

use super::*;

fn config(text: &str) -> Config {
    Config::from_toml_str("t.toml", text).unwrap()
}

#[test]
fn every_core_has_a_library_os_of_its_own() {
    let config = Config::new().set("cores.count", 3).set("cores.pin", false);
    let mut cores = open_cores(&config, |libos, core| {
        libos.socket(Domain::Ipv4, SocketKind::Stream).unwrap();
        (core, libos.metrics().unwrap().get("libos.descriptors_open").unwrap().value())
    })
    .unwrap();
    cores.sort_unstable();
    assert_eq!(cores, [(0, 1), (1, 1), (2, 1)]);
}

#[test]
fn threads_are_bound_to_their_processors_in_turn() {
    let allowed = libos::affinity::allowed_cpus();
    let seats = |text: &str| Cores::open(&config(text)).unwrap().into_seats();
    let cpus = |text: &str| seats(text).iter().map(CoreSeat::cpu).collect::<Vec<_>>();
    assert_eq!(cpus("[cores]\ncount = 2\npin = false"), [None, None]);
    assert_eq!(cpus("[cores]\ncount = 3\ncpus = [5, 3]"), [Some(5), Some(3), Some(5)]);
    let all: Vec<_> = allowed.iter().copied().map(Some).collect();
    assert_eq!(cpus("[cores]\ncount = 0"), all, "as many as there are");
    let bound = open_cores(&config("[cores]\ncount = 2"), |_, _| libos::affinity::allowed_cpus()).unwrap();
    assert_eq!(bound, [vec![allowed[0]], vec![allowed[1 % allowed.len()]]]);
}

#[test]
fn when_one_core_cannot_be_opened_none_runs() {
    let ran = AtomicUsize::new(0);
    let text = format!("[cores]\ncount = 2\ncpus = [{}, 1023]", libos::affinity::allowed_cpus()[0]);
    let failed = open_cores(&config(&text), |_, _| ran.fetch_add(1, Ordering::Relaxed)).unwrap_err();
    assert!(failed.to_string().starts_with("processor 1023: sched_setaffinity: "), "{failed}");
    assert_eq!(ran.into_inner(), 0);
}

#[test]
fn mistakes_are_said_in_one_line() {
    for (text, line) in [
        ("[cores]\ncount = 64", "t.toml: cores.count = 64: allowed is an integer from 0 to 63"),
        ("[cores]\nhash_key = \"6d\"", "t.toml: cores.hash_key = \"6d\": allowed is 80 hexadecimal digits"),
        (
            "[cores]\ncpus = [9999]",
            "t.toml: cores.cpus = [9999]: allowed is a list of integers from 0 to 1023",
        ),
        ("[cores]\npins = true", "t.toml: cores.pins = true: allowed is the keys count, cpus, hash_key"),
    ] {
        let said = Cores::open(&config(text)).unwrap_err().to_string();
        assert!(said.starts_with(line), "{said}");
    }
}

#[cfg(feature = "tap")]
#[test]
fn more_queues_than_cores_are_refused() {
    let text = "[runtime]\nkind = \"tap\"\n[tap]\nqueues = 3\n[cores]\ncount = 2";
    let said = Cores::open(&config(text)).unwrap_err().to_string();
    assert_eq!(said, "t.toml: tap.queues = 3: allowed is at most as many as cores: cores.count is 2");
}

#[test]
#[should_panic(expected = "on purpose")]
fn a_panic_on_a_core_is_the_callers() {
    let config = Config::new().set("cores.count", 2).set("cores.pin", false);
    let _ = open_cores(&config, |_, core| assert!(core == 0, "on purpose"));
}
