//! Dropout by a counter-based hash: the decision for an element depends on its place alone.

use super::{compiled, op};
use crate::Kernel;
use crate::call::Dropout;
use crate::dtcm::{BadCall, Bounds, cells, words};
use crate::num::{div, is_nan, less, load, store, sub, to_fixed};

/// A bijection of 32-bit words that spreads every bit: multiply and xor-shift, twice (constants of `lowbias32` by C. Wellons, public domain).
fn mix(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7FEB_352D);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846C_A68B);
    x ^ (x >> 16)
}

/// What all elements of a sample share.
fn sample_key(seed_lo: u32, seed_hi: u32, stream: u32, sample: u32) -> (u32, u32) {
    let a = mix(seed_lo ^ 0x9E37_79B9);
    let b = mix(seed_hi ^ a.rotate_left(7));
    let c = mix(stream.wrapping_add(b));
    let d = mix(sample.wrapping_add(c.rotate_left(13)));
    // Two words, so that samples are not shifted copies of each other.
    (d, mix(d ^ b ^ 0x85EB_CA6B) | 1)
}

/// The random word of an element.
fn draw((offset, stride): (u32, u32), element: u32) -> u32 {
    mix(element.wrapping_mul(stride).wrapping_add(offset))
}

impl Kernel for Dropout {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        let rate = f32::from_bits(self.rate_bits);
        if is_nan(rate) || less(rate, 0.0) || less(1.0, rate) {
            return Err(BadCall::value("rate_bits", self.rate_bits));
        }
        let bounds = Bounds { words: dtcm_words };
        let count = self.count;
        bounds.span("out", self.out, count)?.apart_or_same(&bounds.span("x", self.x, count)?)
    }

    fn run(&self, dtcm: &mut [u32]) {
        let dtcm = cells(dtcm);
        let rate = f32::from_bits(self.rate_bits);
        // Dropped if the random word is below rate * 2^32.
        let threshold = to_fixed(rate, 32) as u64;
        let keep = sub(1.0, rate);
        let key = sample_key(self.seed_lo, self.seed_hi, self.stream, self.sample);
        let count = self.count as usize;
        for (i, (x, out)) in words(dtcm, self.x, count).iter().zip(words(dtcm, self.out, count)).enumerate() {
            let kept = u64::from(draw(key, self.first.wrapping_add(i as u32))) >= threshold;
            store(out, if kept { div(load(x), keep) } else { 0.0 });
        }
    }

    fn cycles(&self) -> u64 {
        // Only kept elements are divided; three quarters, say.
        op::ENTRY + 300 + compiled(self.count.into(), 2, op::DIV * 3 / 4 + op::NUMBER + 30)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(seed: u32, stream: u32, sample: u32, first: u32, count: u32, rate: f32) -> Vec<bool> {
        let mut dtcm: Vec<u32> = vec![1f32.to_bits(); count as usize];
        let call = Dropout {
            x: 0,
            out: 0,
            count,
            rate_bits: rate.to_bits(),
            seed_lo: seed,
            seed_hi: 7,
            stream,
            sample,
            first,
        };
        call.check(dtcm.len()).unwrap();
        call.run(&mut dtcm);
        dtcm.iter()
            .map(|&w| {
                let y = f32::from_bits(w);
                assert!(y == 0.0 || y == 1.0 / (1.0 - rate));
                y != 0.0
            })
            .collect()
    }

    #[test]
    fn decisions_depend_on_the_place_alone() {
        let whole = kept(1, 2, 3, 0, 1000, 0.4);
        assert_eq!(kept(1, 2, 3, 300, 200, 0.4), whole[300..500]);
    }

    #[test]
    fn rates_and_independence() {
        let n = 16_384;
        let fraction = |v: &[bool]| v.iter().filter(|k| **k).count() as f64 / v.len() as f64;
        for rate in [0.1f32, 0.25, 0.5, 0.9] {
            let expected = 1.0 - f64::from(rate);
            let sigma = (expected * f64::from(rate) / n as f64).sqrt();
            for (seed, stream, sample) in
                [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (99, 5, 480), (u32::MAX, 1, 59_999)]
            {
                let f = fraction(&kept(seed, stream, sample, 0, n, rate));
                assert!((f - expected).abs() < 4.5 * sigma, "{rate} {seed} {stream} {sample}: {f}");
            }
        }
        // Neighbours in each coordinate, and elements some way apart, agree half of the time.
        let base = kept(5, 6, 7, 0, n, 0.5);
        let mut others: Vec<Vec<bool>> = [(6, 6, 7), (5, 7, 7), (5, 6, 8), (5, 6, 9), (7, 6, 5)]
            .iter()
            .map(|&(a, b, c)| kept(a, b, c, 0, n, 0.5))
            .collect();
        others.extend([1, 2, 3, 16, 64, 84].map(|first| kept(5, 6, 7, first, n, 0.5)));
        let sigma = 0.5 / (n as f64).sqrt();
        for (i, other) in others.iter().enumerate() {
            let agree = base.iter().zip(other).filter(|(a, b)| a == b).count() as f64 / n as f64;
            assert!((agree - 0.5).abs() < 4.5 * sigma, "pair {i}: {agree}");
        }
        // The same element over many samples.
        let column: Vec<bool> = (0..4096).map(|sample| kept(3, 1, sample, 17, 1, 0.5)[0]).collect();
        assert!((fraction(&column) - 0.5).abs() < 4.5 * 0.5 / 64.0);
    }
}
