//! Congestion control over time: each algorithm on paths of all kinds, alone and beside itself, and our loss
//! recovery beside smoltcp's. `make congestion` runs everything and writes the tables of `docs/congestion.md`;
//! the tests here run a part of it and compare it with what the tables say.

mod matrix;
mod run;
mod table;

use catnip::tcp::EcnMode;

use self::matrix::{Share, Single};
use self::run::Path;
use crate::host::Kind;

/// How far a run may fall behind its line in the tables, in hundredths. Small changes to when something is sent
/// make other segments meet a full queue, so that no run repeats another to the hundredth.
const TOLERANCE_PERCENT: u64 = 8;

/// Compares a measured percentage with the table's.
#[track_caller]
fn assert_no_worse(what: &str, measured: u64, documented: u64) {
    let worse = documented.saturating_sub(measured);
    assert!(worse <= TOLERANCE_PERCENT, "{what}: {measured} % here, {documented} % in the table");
}

#[test]
fn each_algorithm_fills_its_path_as_the_table_says() {
    let table = table::documented();
    for single in Single::all().into_iter().filter(Single::is_quick) {
        let outcome = single.measure();
        let line = table.single(&single).unwrap_or_else(|| panic!("no line for {single:?}"));
        assert_no_worse(&format!("{single:?}"), outcome.utilisation_percent, line.utilisation_percent);
    }
}

#[test]
fn two_flows_share_a_path_as_the_table_says() {
    let table = table::documented();
    for share in Share::all().into_iter().filter(Share::is_quick) {
        let outcome = share.measure();
        let line = table.share(&share).unwrap_or_else(|| panic!("no line for {share:?}"));
        assert_no_worse(&format!("{share:?}"), outcome.fairness_percent, line.fairness_percent);
        assert_no_worse(&format!("{share:?}"), outcome.utilisation_percent, line.utilisation_percent);
    }
}

#[test]
fn dctcp_keeps_the_queue_at_the_marking_threshold_and_the_path_full() {
    let path = Path { mark_above_bytes: Some(30_000), ..Path::new(100, 2, 0, 800) };
    let outcome = run::measure(Kind::Catnip, catnip::tcp::congestion::Algorithm::Dctcp, &path, 1);
    assert!(outcome.utilisation_percent >= 90, "{outcome:?}");
    // 30 kB take 2.4 ms at this rate.
    assert!(outcome.queue_us < 3_500, "{outcome:?}");
    assert_eq!(outcome.dropped_frames, 0, "{outcome:?}");
}

#[test]
fn classic_reactions_to_marks_avoid_all_loss() {
    use catnip::tcp::congestion::Algorithm;
    for algorithm in [Algorithm::Cubic, Algorithm::NewReno] {
        let path = Path { mark_above_bytes: Some(100_000), ecn: EcnMode::On, ..Path::new(20, 20, 0, 800) };
        let outcome = run::measure(Kind::Catnip, algorithm, &path, 1);
        assert!(outcome.utilisation_percent >= 85, "{algorithm:?}: {outcome:?}");
        assert_eq!(outcome.dropped_frames, 0, "{algorithm:?}: {outcome:?}");
        assert!(outcome.marked_frames > 0, "{algorithm:?}: {outcome:?}");
    }
}

/// A path of 20 Mbit/s and 20 ms with a deep buffer, which marks above half of what it holds or does not mark.
fn marking(marks: bool) -> Path {
    Path { mark_above_bytes: marks.then_some(25_000), ecn: EcnMode::On, ..Path::new(20, 20, 0, 400) }
}

#[test]
fn marks_keep_the_queue_of_bbr_short_alone_and_shared_and_nothing_is_lost() {
    use catnip::tcp::congestion::Algorithm::Bbr;
    // Flows, and the longest queue: 25 kB take 10 ms at this rate.
    for (flows, most_us) in [(1, 3_000), (2, 15_000)] {
        let with = run::measure(Kind::Catnip, Bbr, &marking(true), flows);
        let without = run::measure(Kind::Catnip, Bbr, &marking(false), flows);
        let both = format!("{flows} flows: with marks {with:?}, without {without:?}");
        assert!(with.marked_frames > 0 && with.dropped_frames == 0, "{both}");
        assert!(with.utilisation_percent >= 85, "{both}");
        assert!(with.fairness_percent >= 90, "{both}");
        assert!(with.queue_us < most_us && with.queue_us * 3 < without.queue_us * 2, "{both}");
    }
}

#[test]
fn bbr_beside_cubic_on_a_path_that_marks_leaves_it_a_part_and_no_standing_queue() {
    use catnip::tcp::congestion::Algorithm::{Bbr, Cubic};
    let (with, shares) = run::measure_each(Kind::Catnip, &[Bbr, Cubic], &marking(true));
    assert!(with.utilisation_percent >= 85 && with.dropped_frames == 0, "{with:?}");
    assert!(with.queue_us < 12_000, "{with:?}");
    // BBR's next probe raises again what a report took off its bounds.
    assert!(shares[1] >= 15, "{shares:?}: {with:?}");
}

#[test]
fn counted_marks_serve_every_algorithm() {
    use catnip::tcp::congestion::Algorithm;
    for algorithm in [Algorithm::Cubic, Algorithm::NewReno, Algorithm::Dctcp, Algorithm::Bbr] {
        let path = Path { ecn: EcnMode::Accurate, ..marking(true) };
        let outcome = run::measure(Kind::Catnip, algorithm, &path, 1);
        assert!(outcome.utilisation_percent >= 85, "{algorithm:?}: {outcome:?}");
        assert!(outcome.marked_frames > 0 && outcome.dropped_frames == 0, "{algorithm:?}: {outcome:?}");
        // 25 kB take 10 ms at this rate.
        assert!(outcome.queue_us < 12_000, "{algorithm:?}: {outcome:?}");
    }
}

/// Every path and algorithm of the matrix has its figures in the document. With `CONGESTION=write` in the environment
/// (`make congestion`), everything is run and the tables are written before, which takes minutes.
#[test]
fn the_document_has_a_figure_for_every_run() {
    if std::env::var("CONGESTION").is_ok_and(|wish| wish == "write") {
        write_the_tables();
    }
    let table = table::documented();
    for single in Single::all() {
        assert!(table.single(&single).is_some(), "{single:?}: run make congestion");
    }
    for share in Share::all() {
        assert!(table.share(&share).is_some(), "{share:?}: run make congestion");
    }
}

fn write_the_tables() {
    let singles: Vec<_> = Single::all().into_iter().map(|single| (single, single.measure())).collect();
    let shares: Vec<_> = Share::all().into_iter().map(|share| (share, share.measure())).collect();
    let losses: Vec<_> =
        matrix::LOSS_PPM.iter().map(|&loss_ppm| (loss_ppm, matrix::beside_smoltcp(loss_ppm))).collect();
    table::write(&singles, &shares, &losses);
}

#[test]
fn random_losses_cost_bbr_less_than_smoltcp_and_cubic_no_more_than_its_equation() {
    for loss_ppm in matrix::LOSS_PPM {
        let [cubic, bbr, smoltcp] = matrix::beside_smoltcp(loss_ppm);
        let all = format!("{loss_ppm} ppm: cubic {cubic:?}, bbr {bbr:?}, smoltcp {smoltcp:?}");
        assert!(bbr.kilobits_per_s >= smoltcp.kilobits_per_s, "{all}");
        assert!(cubic.kilobits_per_s * 100 >= matrix::expected_kilobits_per_s(loss_ppm) * 80, "{all}");
    }
}
