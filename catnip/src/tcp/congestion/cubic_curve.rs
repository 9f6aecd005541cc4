//! CUBIC's curve in integers (RFC 9438 §4.2): W(t) = C * (t - K)^3 + origin.
//!
//! Time is counted in ticks of 2^20 ns, about a millisecond, so that a product is shifted and never divided.

/// Nanoseconds of a tick, as a power of two.
const TICK_SHIFT: u32 = 20;

/// C = 0.4 segments per second cubed, in 2^-64 segments per tick cubed: 0.4 * (2^20 / 10^9)^3 * 2^64.
const C_SCALED: u128 = 8_507_059_173;

/// Longest distance from the plateau that is told apart: 549 s. A window has reached its limit long before.
const MAX_DISTANCE_TICKS: u64 = 1 << 19;

/// Ticks in so many nanoseconds.
pub(super) const fn ticks(nanos: u64) -> u64 {
    nanos >> TICK_SHIFT
}

/// C * `distance_ticks`^3 segments, in bytes.
fn rise_bytes(distance_ticks: u64, mss_bytes: u32) -> u64 {
    let distance = distance_ticks.min(MAX_DISTANCE_TICKS);
    let cube = u128::from(distance * distance * distance);
    // At most 2^57 * 2^32 * 2^33.
    let bytes = (cube * u128::from(mss_bytes) * C_SCALED) >> 64;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// W_cubic after `elapsed_ticks` of an epoch whose plateau of `origin_bytes` is at `k_ticks` (RFC 9438 §4.2,
/// figure 1), in bytes.
pub(super) fn window_bytes(origin_bytes: u32, k_ticks: u64, elapsed_ticks: u64, mss_bytes: u32) -> u32 {
    let origin = u64::from(origin_bytes);
    let window = if elapsed_ticks < k_ticks {
        origin.saturating_sub(rise_bytes(k_ticks - elapsed_ticks, mss_bytes))
    } else {
        origin.saturating_add(rise_bytes(elapsed_ticks - k_ticks, mss_bytes))
    };
    u32::try_from(window).unwrap_or(u32::MAX)
}

/// K: ticks that the curve takes over `gap_bytes`, from the window that an epoch starts with to its plateau
/// (RFC 9438 §4.2, figure 2).
pub(super) fn k_ticks(gap_bytes: u32, mss_bytes: u32) -> u64 {
    let cube = (u128::from(gap_bytes) << 64) / (u128::from(mss_bytes.max(1)) * C_SCALED);
    // 2^96 / 2^32.99 fits.
    cube_root(u64::try_from(cube).unwrap_or(u64::MAX))
}

/// The largest integer whose cube is not above `value`.
fn cube_root(value: u64) -> u64 {
    let mut root: u64 = 0;
    // The cube root of 2^64 has 22 bits.
    for bit in (0..22).rev() {
        let candidate = root | 1 << bit;
        if candidate.checked_mul(candidate * candidate).is_some_and(|cube| cube <= value) {
            root = candidate;
        }
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TICK_S: f64 = 1.048_576e-3;

    /// RFC 9438, figure 1, in floating point.
    fn model_bytes(origin: f64, k_s: f64, t_s: f64, mss: f64) -> f64 {
        0.4 * (t_s - k_s).powi(3) * mss + origin
    }

    #[test]
    fn the_cube_root_is_exact_at_cubes_and_beside_them() {
        for root in [0_u64, 1, 2, 3, 10, 1_000, 1 << 20, 2_642_245] {
            let cube = root * root * root;
            assert_eq!(cube_root(cube), root);
            assert_eq!(cube_root(cube + 1), if root == 0 { 1 } else { root });
            assert_eq!(cube_root(cube.saturating_sub(1)), root.saturating_sub(1));
        }
        assert_eq!(cube_root(u64::MAX), 2_642_245);
    }

    #[test]
    fn the_plateau_is_reached_after_k_seconds() {
        // 100 segments below it: K = cbrt(100 / 0.4) = 6.2996 s.
        let k = k_ticks(100 * 1_000, 1_000);
        assert!((k as f64 * TICK_S - 6.2996).abs() < 2.0 * TICK_S, "{k}");
        assert_eq!(window_bytes(300_000, k, k, 1_000), 300_000);
    }

    proptest! {
        #[test]
        fn the_curve_is_that_of_the_floating_point_model(
            origin in 1_000_u32..1 << 30,
            mss in 36_u32..65_536,
            k in 0_u64..200_000,
            elapsed in 0_u64..400_000,
        ) {
            let expected = model_bytes(f64::from(origin), k as f64 * TICK_S, elapsed as f64 * TICK_S, f64::from(mss))
                .clamp(0.0, f64::from(u32::MAX));
            let window = f64::from(window_bytes(origin, k, elapsed, mss));
            prop_assert!((window - expected).abs() <= 2.0 + expected * 1e-6, "{window} for {expected}");
        }

        #[test]
        fn k_is_that_of_the_floating_point_model(gap in 0_u32..1 << 30, mss in 36_u32..65_536) {
            let expected_s = (f64::from(gap) / f64::from(mss) / 0.4).cbrt();
            let k_s = k_ticks(gap, mss) as f64 * TICK_S;
            prop_assert!(k_s <= expected_s + 1e-6 && expected_s - k_s <= TICK_S + 1e-6, "{k_s} for {expected_s}");
        }

        #[test]
        fn no_input_does_harm(origin: u32, k: u64, elapsed: u64, gap: u32, mss: u32) {
            window_bytes(origin, k, elapsed, mss);
            k_ticks(gap, mss);
        }
    }
}
