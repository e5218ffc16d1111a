//! One axis of a sliding window: which inputs belong to which outputs.

/// A window along one axis. Output `o` and tap `k` meet input `i` where `o * stride + k * dilation - pad = i * up`.
#[derive(Debug, Clone, Copy)]
pub struct Axis {
    /// Inputs.
    pub input: u32,
    /// Taps.
    pub kernel: u32,
    /// Step of the outputs.
    pub stride: u32,
    /// Step of the taps.
    pub dilation: u32,
    /// Inputs missing in front.
    pub pad: i32,
    /// Step of the inputs (transposed convolutions).
    pub up: u32,
}

impl Axis {
    fn at(&self, o: u32, k: u32) -> i64 {
        i64::from(o) * i64::from(self.stride) + i64::from(k) * i64::from(self.dilation) - i64::from(self.pad)
    }

    /// The input that output `o` meets at tap `k`, be it inside the picture or not.
    pub fn unbounded(&self, o: u32, k: u32) -> Option<i64> {
        let t = self.at(o, k);
        if self.up == 1 {
            return Some(t);
        }
        let up = i64::from(self.up);
        (t.rem_euclid(up) == 0).then(|| t.div_euclid(up))
    }

    /// The input that output `o` meets at tap `k`.
    pub fn input_of(&self, o: u32, k: u32) -> Option<u32> {
        self.unbounded(o, k).and_then(|i| u32::try_from(i).ok()).filter(|&i| i < self.input)
    }

    /// Smallest and largest input that outputs `first..end` meet, if any.
    pub fn needed(&self, first: u32, end: u32) -> Option<(u32, u32)> {
        let mut range: Option<(u32, u32)> = None;
        if first >= end || self.input == 0 {
            return None;
        }
        // Outputs of one residue modulo `up` step through the inputs by `stride`.
        for o in first..end.min(first.saturating_add(self.up)) {
            let turns = i64::from((end - 1 - o) / self.up);
            for k in 0..self.kernel {
                let Some(base) = self.unbounded(o, k) else { continue };
                let stride = i64::from(self.stride);
                // The turns whose input is inside.
                let from = if base < 0 { (-base + stride - 1) / stride } else { 0 };
                let room = i64::from(self.input) - 1 - base;
                if room < 0 {
                    continue;
                }
                let to = turns.min(room / stride);
                if from <= to {
                    let (low, high) = ((base + from * stride) as u32, (base + to * stride) as u32);
                    range = Some(range.map_or((low, high), |(l, h)| (l.min(low), h.max(high))));
                }
            }
        }
        range
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn needed_is_the_range_of_what_is_met(
            input in 0u32..12, kernel in 0u32..5, stride in 1u32..4, dilation in 1u32..4, pad in -3i32..6, up in 1u32..4,
            first in 0u32..6, count in 0u32..9,
        ) {
            let axis = Axis { input, kernel, stride, dilation, pad, up };
            let met = (first..first + count).flat_map(|o| (0..kernel).filter_map(move |k| axis.input_of(o, k)));
            let expected = met.fold(None, |r: Option<(u32, u32)>, i| Some(r.map_or((i, i), |(l, h)| (l.min(i), h.max(i)))));
            prop_assert_eq!(axis.needed(first, first + count), expected);
        }
    }
}
