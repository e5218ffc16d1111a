use super::*;

/// Distance of `y` from the true value in units of the last place of the true value's binade.
fn ulps(y: f32, truth: f64) -> f64 {
    if f64::from(y) == truth {
        return 0.0;
    }
    let exponent = if truth == 0.0 { -149 } else { (libm::ilogb(truth) - 23).max(-149) };
    if !y.is_finite() || truth.abs() > f64::from(f32::MAX) {
        // Overflow must come where rounding says.
        return if f64::from(y) == f64::from(truth as f32) { 0.0 } else { 1e9 };
    }
    (f64::from(y) - truth).abs() / libm::ldexp(1.0, exponent)
}

/// Every `step`-th bit pattern (both signs unless `positive`), NaNs checked apart.
fn sweep(name: &str, f: fn(f32) -> f32, truth: fn(f64) -> f64, positive: bool, allowed_ulps: f64) {
    let mut worst = (0.0, 0.0);
    let step = 4_999;
    let mut bits = 0u32;
    while bits < 0x7F80_0000 {
        for sign in [0, 0x8000_0000] {
            if sign != 0 && positive {
                continue;
            }
            let x = f32::from_bits(bits | sign);
            let error = ulps(f(x), truth(f64::from(x)));
            if error > worst.0 {
                worst = (error, x);
            }
        }
        // Denser where functions bend.
        bits += if (0x3A00_0000..0x4300_0000).contains(&bits) { step / 20 } else { step };
    }
    println!("{name}: {:.3} ulp at {:e}", worst.0, worst.1);
    assert!(worst.0 <= allowed_ulps, "{name}: {} ulp at {:e}", worst.0, worst.1);
    assert!(f(f32::NAN).is_nan(), "{name} of NaN");
}

#[test]
fn functions_are_close_to_the_true_values() {
    sweep("exp", exp, libm::exp, false, 1.0);
    sweep("tanh", tanh, libm::tanh, false, 1.0);
    sweep("sigmoid", sigmoid, true_sigmoid, false, 1.5);
    sweep("ln", ln, libm::log, true, 1.0);
    sweep("reciprocal", reciprocal, |x| 1.0 / x, false, 0.51);
    sweep("reciprocal_sqrt", reciprocal_sqrt, |x| 1.0 / libm::sqrt(x), true, 1.0);
    sweep("softplus", softplus, |x| libm::fmax(x, 0.0) + libm::log1p(libm::exp(-libm::fabs(x))), false, 1.0);
    sweep("silu", silu, |x| if x < -700.0 { 0.0 } else { x / (1.0 + libm::exp(-x)) }, false, 1.0);
    sweep("normal", normal, |x| 0.5 * libm::erfc(-x * core::f64::consts::FRAC_1_SQRT_2), false, 1.5);
    sweep("gelu", gelu, |x| 0.5 * x * libm::erfc(-x * core::f64::consts::FRAC_1_SQRT_2), false, 1.5);
    sweep(
        "gelu_tanh",
        gelu_tanh,
        |x| {
            let u = 2.0 * libm::sqrt(2.0 / core::f64::consts::PI) * (x + 0.044715 * x * x * x);
            if u < -700.0 { 0.0 } else { x / (1.0 + libm::exp(-u)) }
        },
        false,
        1.0,
    );
    sweep("exp_m1_negative", exp_m1_negative, |x| if x > 0.0 { 0.0 } else { libm::expm1(x) }, false, 1.0);
    sweep("softsign", softsign, |x| x / (1.0 + libm::fabs(x)), false, 1.5);
}

/// The largest error of all numbers whose bits are in `bits`.
fn worst(f: fn(f32) -> f32, truth: fn(f64) -> f64, bits: std::ops::Range<u32>) -> (f64, f32) {
    bits.map(f32::from_bits).fold((0.0, 0.0), |worst, x| {
        let error = ulps(f(x), truth(f64::from(x)));
        if error > worst.0 { (error, x) } else { worst }
    })
}

/// 1 / (1 + e^-x)
fn true_sigmoid(x: f64) -> f64 {
    if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) }
}

#[test]
fn errors_of_all_numbers_of_a_range() {
    let check = |name: &str, f, truth, from: f32, to: f32, allowed: f64| {
        let (error, x) = worst(f, truth, from.to_bits()..to.to_bits());
        println!("{name} of {from} .. {to}: {error:.3} ulp at {x:e}");
        assert!(error <= allowed, "{name}: {error} ulp at {x:e}");
    };
    // Both parities of the exponent, and where one way to a value gives over to another.
    check("reciprocal_sqrt", reciprocal_sqrt, |x| 1.0 / x.sqrt(), 0.5, 2.0, 0.6);
    check("sigmoid", sigmoid, true_sigmoid, -2.0, -4.5, 1.5);
    check("sigmoid", sigmoid, true_sigmoid, -17.0, -18.0, 1.0);
    check("sigmoid", sigmoid, true_sigmoid, 15.5, 17.5, 0.7);
}

/// Takes six minutes: `cargo test --release -p spidnn-kernels every_number -- --ignored --nocapture`.
#[test]
#[ignore = "takes six minutes"]
fn every_number() {
    let check = |name: &str, f, truth: fn(f64) -> f64, sign: u32| {
        let (error, x) = worst(f, truth, sign..sign + 0x7F80_0000);
        println!("{name}, sign {}: {error:.3} ulp at {x:e}", sign >> 31);
        assert!(error <= 2.0, "{name}: {error} ulp at {x:e}");
    };
    for sign in [0, 0x8000_0000] {
        check("sigmoid", sigmoid, true_sigmoid, sign);
        check("exp", exp, f64::exp, sign);
        check("tanh", tanh, f64::tanh, sign);
    }
    check("reciprocal_sqrt", reciprocal_sqrt, |x| 1.0 / x.sqrt(), 0);
}

#[test]
fn ends_of_the_range() {
    assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    assert_eq!(exp(f32::INFINITY), f32::INFINITY);
    assert_eq!(exp(0.0), 1.0);
    assert_eq!(tanh(f32::INFINITY), 1.0);
    assert_eq!(tanh(f32::NEG_INFINITY), -1.0);
    assert_eq!(sigmoid(f32::NEG_INFINITY), 0.0);
    assert_eq!(sigmoid(f32::INFINITY), 1.0);
    assert_eq!(sigmoid(0.0), 0.5);
    assert_eq!(softplus(f32::INFINITY), f32::INFINITY);
    assert_eq!(gelu(f32::INFINITY), f32::INFINITY);
    assert!(gelu(f32::NEG_INFINITY).is_nan());
    assert_eq!(ln(1.0), 0.0);
    assert_eq!(ln(0.0), f32::NEG_INFINITY);
    assert_eq!(reciprocal_sqrt(f32::INFINITY), 0.0);
    assert_eq!(exp_m1_negative(f32::NEG_INFINITY), -1.0);
    for bits in (0..0x7F80_0000u32).step_by(10_007) {
        let x = f32::from_bits(bits);
        assert!(tanh(x) <= 1.0);
        assert_eq!(tanh(-x), -tanh(x));
    }
}

#[test]
fn vector_code_gives_the_same_bits() {
    let mut state = 12_345u32;
    for (cells, scalar) in
        [(exp_cells as fn(&[Cell<u32>]), exp as fn(f32) -> f32), (tanh_cells, tanh), (sigmoid_cells, sigmoid)]
    {
        for round in 0..2_000 {
            let words: Vec<Cell<u32>> = (0..(round % 67))
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    // Half of them any bits, half of them of ordinary size.
                    Cell::new(if round % 2 == 0 { state } else { (state & 0x87FF_FFFF) | 0x3C00_0000 })
                })
                .collect();
            let expected: Vec<u32> = words
                .iter()
                .map(|w| {
                    let y = scalar(num::load(w));
                    if y.is_nan() { num::NAN.to_bits() } else { y.to_bits() }
                })
                .collect();
            cells(&words);
            let found: Vec<u32> = words.iter().map(Cell::get).collect();
            assert_eq!(found, expected);
        }
    }
}
