//! Makes `tables.rs`: interpolation in the Chebyshev points of each segment, in doubles. The test fails when
//! the file is not what this makes; `UPDATE_TABLES=1 cargo test -p spidnn-kernels tables` writes it.

use std::fmt::Write;

/// Coefficients of the polynomial of degree 4 through the five Chebyshev points of `start .. start + width`.
fn fit(f: &dyn Fn(f64) -> f64, start: f64, width: f64, fraction_bits: u32) -> [i64; 5] {
    let nodes: Vec<f64> =
        (0..5).map(|k| 0.5 - 0.5 * libm::cos(std::f64::consts::PI * (f64::from(k) + 0.5) / 5.0)).collect();
    let mut differences: Vec<f64> = nodes.iter().map(|t| f(start + t * width)).collect();
    for level in 1..5 {
        for i in (level..5).rev() {
            differences[i] = (differences[i] - differences[i - 1]) / (nodes[i] - nodes[i - level]);
        }
    }
    // Newton's form to powers of t.
    let mut c = [0.0; 5];
    for i in (0..5).rev() {
        for j in (1..5).rev() {
            c[j] = c[j - 1] - nodes[i] * c[j];
        }
        c[0] = differences[i] - nodes[i] * c[0];
    }
    let mut power = fraction_bits as i32 - 1;
    c.map(|x| {
        power += 1;
        libm::round(x * libm::ldexp(1.0, power)) as i64
    })
}

fn table(out: &mut String, doc: &str, name: &str, segments: &[(f64, f64)], bits: u32, f: &dyn Fn(f64) -> f64) {
    let export = format!("#[cfg_attr(target_arch = \"arm\", unsafe(export_name = \"spidnn_table_{name}\"))]");
    writeln!(out, "\n/// {doc}\n{export}\npub(super) static {name}: [[i32; 5]; {}] = [", segments.len()).unwrap();
    for &(start, width) in segments {
        let c = fit(f, start, width, bits);
        writeln!(out, "    [{}, {}, {}, {}, {}],", c[0], c[1], c[2], c[3], c[4]).unwrap();
    }
    out.push_str("];\n");
}

fn generate() -> String {
    let mut out = String::from("//! Made by `generate.rs`: coefficients of [`super::segments`], and powers of two.\n");
    let uniform: Vec<_> = (0..16).map(|i| (f64::from(i) / 16.0, 1.0 / 16.0)).collect();
    let growing: Vec<_> = (0..64)
        .map(|i| {
            let power = f64::from(1 << (i / 16));
            (power * (1.0 + f64::from(i % 16) / 16.0) - 1.0, power / 16.0)
        })
        .collect();
    // A ratio that is 1 at 0: the points of a fit never fall there exactly, but come near.
    let ratio = |g: fn(f64) -> f64, x: f64| if x.abs() < 1e-12 { 1.0 } else { g(x) / x };
    table(&mut out, "1 / (1 + u)", "RECIPROCAL", &uniform, 30, &|u| 1.0 / (1.0 + u));
    table(&mut out, "1 / sqrt(1 + u)", "RECIPROCAL_SQRT", &uniform, 30, &|u| 1.0 / libm::sqrt(1.0 + u));
    table(&mut out, "ln(1 + f) / f, f = u - 1/4", "LN_RATIO", &uniform, 30, &|u| ratio(libm::log1p, u - 0.25));
    table(&mut out, "ln(1 + u) / u", "LN_1P_RATIO", &uniform, 30, &|u| ratio(libm::log1p, u));
    table(&mut out, "(1 - exp(-u)) / u", "EXP_M1_RATIO", &uniform, 30, &|u| ratio(libm::expm1, -u));
    // Up to 9.03125: see `tanh`.
    table(&mut out, "tanh(a) / a", "TANH_RATIO", &growing[..53], 30, &|a| ratio(libm::tanh, a));
    table(&mut out, "erfcx(a / sqrt 2) / 2", "HALF_ERFCX", &growing, 31, &|a| {
        0.5 * libm::erfc(a * std::f64::consts::FRAC_1_SQRT_2) * libm::exp(a * a / 2.0)
    });
    out.push_str("\n/// 2^(i / 16), 30 fraction bits\n");
    out.push_str("#[cfg_attr(target_arch = \"arm\", unsafe(export_name = \"spidnn_table_POWERS\"))]\n");
    out.push_str("pub(super) static POWERS: [i32; 16] = [\n");
    for i in 0..16 {
        writeln!(out, "    {},", libm::round(libm::exp2(f64::from(i) / 16.0) * 1073741824.0) as i64).unwrap();
    }
    out.push_str("];\n");
    out
}

#[test]
fn tables_are_what_the_generator_makes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/functions/tables.rs");
    let made = generate();
    if std::env::var_os("UPDATE_TABLES").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    assert!(std::fs::read_to_string(path).unwrap() == made, "tables.rs is not what generate.rs makes");
}
