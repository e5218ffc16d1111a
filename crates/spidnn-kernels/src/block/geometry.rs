//! One axis of a sliding window: which inputs belong to which outputs.

/// Bound of all positions along an axis.
const POSITION_MAX: u32 = 1 << 29;

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

/// Taps of one output that meet inputs inside the picture.
#[cfg(any(test, target_arch = "arm"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taps {
    /// The first.
    pub tap: u32,
    /// From one to the next.
    pub tap_step: u32,
    /// The first one's input.
    pub input: i32,
    /// From one to the next.
    pub input_step: i32,
    /// How many.
    pub count: u32,
}

impl Axis {
    /// Whether positions of outputs below `end` stay far from overflow: what the other functions need.
    pub fn is_small(&self, end: u32) -> bool {
        let reach = |count: u32, step: u32| u64::from(count) * u64::from(step);
        let most = reach(end, self.stride).saturating_add(reach(self.kernel, self.dilation));
        most.saturating_add(self.pad.unsigned_abs().into()) <= u64::from(POSITION_MAX) && self.input <= POSITION_MAX
    }

    /// The input that output `o` meets at tap `k`, be it inside the picture or not.
    pub fn unbounded(&self, o: u32, k: u32) -> Option<i32> {
        let t = (o.wrapping_mul(self.stride).wrapping_add(k.wrapping_mul(self.dilation)) as i32).wrapping_sub(self.pad);
        if self.up == 1 {
            return Some(t);
        }
        // Truncating division is exact where it is used.
        let up = self.up as i32;
        (t % up == 0).then(|| t / up)
    }

    /// The input that output `o` meets at tap `k`.
    pub fn input_of(&self, o: u32, k: u32) -> Option<u32> {
        self.unbounded(o, k).map(|i| i as u32).filter(|&i| i < self.input)
    }

    /// The taps of output `o` that meet an input inside: they lie at constant steps.
    #[cfg(any(test, target_arch = "arm"))]
    pub fn taps(&self, o: u32) -> Taps {
        let mut taps = Taps { tap: 0, tap_step: 1, input: 0, input_step: 1, count: 0 };
        if self.up == 1 && self.dilation == 1 {
            // The usual case without a division.
            let first = o.wrapping_mul(self.stride) as i32 - self.pad;
            let start = first.max(0);
            let end = first.saturating_add(self.kernel as i32).min(self.input as i32);
            if start < end {
                (taps.tap, taps.input, taps.count) = ((start - first) as u32, start, (end - start) as u32);
            }
            return taps;
        }
        for k in 0..self.kernel {
            let Some(input) = self.input_of(o, k) else { continue };
            match taps.count {
                0 => (taps.tap, taps.input) = (k, input as i32),
                1 => (taps.tap_step, taps.input_step) = (k - taps.tap, input as i32 - taps.input),
                _ => {}
            }
            taps.count += 1;
        }
        taps
    }

    /// The outputs of `first..end` whose input at tap `k` is inside, for `up` = 1: they lie side by side.
    #[cfg(any(test, target_arch = "arm"))]
    pub fn outputs(&self, k: u32, first: u32, end: u32) -> (u32, u32) {
        let offset = k.wrapping_mul(self.dilation) as i32 - self.pad;
        // Outputs whose place in front of `position` is too small.
        let below = |position: i32| match (position - offset).max(0) as u32 {
            distance if self.stride == 1 => distance,
            distance => distance.div_ceil(self.stride),
        };
        let (from, to) = (first.max(below(0)), end.min(below(self.input as i32)));
        if from < to { (from, to) } else { (first, first) }
    }

    /// Smallest and largest input that outputs `first..end` meet, if any.
    pub fn needed(&self, first: u32, end: u32) -> Option<(u32, u32)> {
        let mut range: Option<(u32, u32)> = None;
        if first >= end || self.input == 0 {
            return None;
        }
        // Outputs of one residue modulo `up` step through the inputs by `stride`.
        for o in first..end.min(first.saturating_add(self.up)) {
            let turns = ((end - 1 - o) / self.up) as i32;
            for k in 0..self.kernel {
                let Some(base) = self.unbounded(o, k) else { continue };
                let stride = self.stride as i32;
                // The turns whose input is inside.
                let from = if base < 0 { (-base + stride - 1) / stride } else { 0 };
                let room = self.input as i32 - 1 - base;
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
            for o in first..first + count {
                let taps = axis.taps(o);
                let found: Vec<_> = (0..taps.count)
                    .map(|i| (taps.tap + i * taps.tap_step, taps.input + i as i32 * taps.input_step))
                    .collect();
                let expected: Vec<_> = (0..kernel).filter_map(|k| Some((k, axis.input_of(o, k)? as i32))).collect();
                prop_assert_eq!(found, expected);
            }
            for k in 0..kernel {
                let axis = Axis { up: 1, ..axis };
                let (from, to) = axis.outputs(k, first, first + count);
                let expected: Vec<u32> = (first..first + count).filter(|&o| axis.input_of(o, k).is_some()).collect();
                prop_assert_eq!((from..to).collect::<Vec<_>>(), expected);
            }
        }
    }
}
