//! Sums, products and moves of whole vectors.

use super::{compiled, loop_of, op};
use crate::Kernel;
use crate::call::{Clip, ColumnSum, CountNonFinite, Lerp, Map2, NONE, Norms, Scale, ScaleShift, SumParts};
#[cfg(target_arch = "arm")]
use crate::dtcm::part;
use crate::dtcm::{BadCall, Bounds, below, cells, times, words};
use crate::num::{abs, add, div, is_nan, less, load, max, min, mul, neg, sqrt, store, sub};

impl Kernel for Map2 {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        below("op", self.op, 5)?;
        let bounds = Bounds { words: dtcm_words };
        let count = self.count;
        let out = bounds.span("out", self.out, count)?;
        out.apart_or_same(&bounds.span("a", self.a, count)?)?;
        out.apart_or_same(&bounds.span("b", self.b, count)?)
    }

    fn run(&self, dtcm: &mut [u32]) {
        let dtcm = cells(dtcm);
        let count = self.count as usize;
        let (a, b, out) = (words(dtcm, self.a, count), words(dtcm, self.b, count), words(dtcm, self.out, count));
        #[cfg(target_arch = "arm")]
        {
            use crate::arm::{functions as f, zip};
            let operations: [crate::arm::Function; 5] = [f::add, f::sub, f::mul, f::max, f::min];
            zip(operations[self.op as usize % 5], a, b, out);
        }
        #[cfg(not(target_arch = "arm"))]
        fn over(
            a: &[core::cell::Cell<u32>],
            b: &[core::cell::Cell<u32>],
            out: &[core::cell::Cell<u32>],
            f: impl Fn(f32, f32) -> f32,
        ) {
            for ((a, b), out) in a.iter().zip(b).zip(out) {
                store(out, f(load(a), load(b)));
            }
        }
        #[cfg(not(target_arch = "arm"))]
        match self.op {
            0 => over(a, b, out, add),
            1 => over(a, b, out, sub),
            2 => over(a, b, out, mul),
            3 => over(a, b, out, max),
            _ => over(a, b, out, min),
        }
    }

    fn cycles(&self) -> u64 {
        let operation = match self.op {
            0 => op::ADD,
            1 => op::ADD + 1,
            2 => op::MUL,
            _ => op::COMPARE,
        };
        op::ENTRY + loop_of(self.count.into(), operation)
    }
}

impl Kernel for ScaleShift {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        let bounds = Bounds { words: dtcm_words };
        let count = times(self.rows, self.cols);
        let out = bounds.span("out", self.out, count)?;
        out.apart_or_same(&bounds.span("x", self.x, count)?)?;
        for (field, address) in [("scale", self.scale), ("shift", self.shift)] {
            if address != NONE && count > 0 {
                out.apart_from(&[bounds.span(field, address, self.cols)?])?;
            }
        }
        Ok(())
    }

    fn run(&self, dtcm: &mut [u32]) {
        let (rows, cols) = (self.rows as usize, self.cols as usize);
        if rows == 0 || cols == 0 {
            return;
        }
        let dtcm = cells(dtcm);
        let (x, out) = (words(dtcm, self.x, rows * cols), words(dtcm, self.out, rows * cols));
        let optional = |address| if address == NONE { None } else { Some(words(dtcm, address, cols)) };
        let (scale, shift) = (optional(self.scale), optional(self.shift));
        #[cfg(target_arch = "arm")]
        for r in 0..rows {
            use crate::arm::{functions as f, zip};
            let (x, out) = (part(x, r * cols, cols), part(out, r * cols, cols));
            match (scale, shift) {
                (Some(scale), _) => zip(f::mul, x, scale, out),
                (None, Some(shift)) => zip(f::add, x, shift, out),
                (None, None) => zip(f::number, x, x, out),
            }
            if let (Some(_), Some(shift)) = (scale, shift) {
                zip(f::add, out, shift, out);
            }
        }
        #[cfg(not(target_arch = "arm"))]
        for (x, out) in x.chunks_exact(cols).zip(out.chunks_exact(cols)) {
            for c in 0..cols {
                let value = load(&x[c]);
                let value = scale.map_or(value, |s| mul(value, load(&s[c])));
                store(&out[c], shift.map_or(value, |s| add(value, load(&s[c]))));
            }
        }
    }

    fn cycles(&self) -> u64 {
        let cols = u64::from(self.cols);
        let row = match (self.scale != NONE, self.shift != NONE) {
            (true, true) => loop_of(cols, op::MUL) + loop_of(cols, op::ADD),
            (true, false) => loop_of(cols, op::MUL),
            (false, true) => loop_of(cols, op::ADD),
            (false, false) => loop_of(cols, op::NUMBER),
        };
        if cols == 0 { op::ENTRY } else { op::ENTRY + 38 + u64::from(self.rows) * row }
    }
}

impl Kernel for Scale {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        let bounds = Bounds { words: dtcm_words };
        let count = self.count;
        bounds.span("out", self.out, count)?.apart_or_same(&bounds.span("x", self.x, count)?)
    }

    fn run(&self, dtcm: &mut [u32]) {
        let dtcm = cells(dtcm);
        let factor = f32::from_bits(self.factor_bits);
        let count = self.count as usize;
        let (x, out) = (words(dtcm, self.x, count), words(dtcm, self.out, count));
        #[cfg(target_arch = "arm")]
        {
            use crate::arm::{Zip, functions};
            let factor = [core::cell::Cell::new(factor.to_bits())];
            // SAFETY: the words are those of the slices.
            unsafe { Zip { b_step: 0, ..Zip::of(functions::mul, x, &factor, out) }.run(count) }
        }
        #[cfg(not(target_arch = "arm"))]
        for (x, out) in x.iter().zip(out) {
            store(out, mul(load(x), factor));
        }
    }

    fn cycles(&self) -> u64 {
        op::ENTRY + loop_of(self.count.into(), op::MUL)
    }
}

/// Whether this build has column sums of products and squares.
pub(crate) const STATISTICS: bool = cfg!(any(test, feature = "column-statistics"));

impl Kernel for ColumnSum {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        below("op", self.op, if STATISTICS { 4 } else { 1 })?;
        let bounds = Bounds { words: dtcm_words };
        let sum = bounds.span("sum", self.sum, self.cols)?;
        sum.apart_from(&[bounds.rows("x", self.x, self.rows, self.cols, self.row_stride)?])?;
        match self.op {
            1 => sum.apart_from(&[bounds.rows("y", self.y, self.rows, self.cols, self.row_stride)?]),
            2 => sum.apart_from(&[bounds.span("y", self.y, self.cols)?]),
            _ => Ok(()),
        }
    }

    fn run(&self, dtcm: &mut [u32]) {
        let dtcm = cells(dtcm);
        let (cols, stride) = (self.cols, self.row_stride);
        let row = |base: u32, r: u32| words(dtcm, base + 4 * r * stride, cols as usize);
        let sum = words(dtcm, self.sum, cols as usize);
        for r in 0..if cols == 0 { 0 } else { self.rows } {
            let x = row(self.x, r);
            let y = match self.op {
                1 => row(self.y, r),
                2 => words(dtcm, self.y, cols as usize),
                _ => x,
            };
            #[cfg(target_arch = "arm")]
            if self.op == 0 || !STATISTICS {
                crate::arm::zip(crate::arm::functions::add, sum, x, sum);
                continue;
            }
            for ((sum, x), y) in sum.iter().zip(x).zip(y) {
                let (x, y) = (load(x), load(y));
                let value = match self.op {
                    0 => x,
                    2 => {
                        let d = sub(x, y);
                        mul(d, d)
                    }
                    // 3: y is x.
                    _ => mul(x, y),
                };
                store(sum, add(load(sum), value));
            }
        }
    }

    fn cycles(&self) -> u64 {
        let cols = u64::from(self.cols);
        let row = match self.op {
            0 => loop_of(cols, op::ADD),
            2 => compiled(cols, 3, 2 * op::ADD + op::MUL + op::NUMBER),
            _ => compiled(cols, 3, op::ADD + op::MUL),
        };
        // The operation is looked at for each row.
        let around = if self.op == 0 { 20 } else { 45 };
        if cols == 0 { op::ENTRY } else { op::ENTRY + 10 + u64::from(self.rows) * (around + row) }
    }
}

impl Kernel for SumParts {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        let bounds = Bounds { words: dtcm_words };
        if self.count == 0 {
            return Ok(());
        }
        if self.parts == 0 {
            return Err(BadCall::value("parts", 0));
        }
        let dst = bounds.span("dst", self.dst, self.count)?;
        let src = bounds.rows("src", self.src, self.parts, self.count, self.stride)?;
        // The first part may be where the sum goes, if the others are elsewhere.
        let first = bounds.span("src", self.src, self.count)?;
        if first.same(&dst) && (self.parts == 1 || self.stride >= self.count) {
            return Ok(());
        }
        dst.apart_from(&[src])
    }

    fn run(&self, dtcm: &mut [u32]) {
        if self.count == 0 {
            return;
        }
        let dtcm = cells(dtcm);
        let part = |p: u32| words(dtcm, self.src + 4 * p * self.stride, self.count as usize);
        let dst = words(dtcm, self.dst, self.count as usize);
        #[cfg(target_arch = "arm")]
        for p in 0..self.parts {
            use crate::arm::{functions as f, zip};
            zip(if p == 0 { f::number } else { f::add }, if p == 0 { part(0) } else { dst }, part(p), dst);
        }
        #[cfg(not(target_arch = "arm"))]
        for (d, s) in dst.iter().zip(part(0)) {
            store(d, load(s));
        }
        #[cfg(not(target_arch = "arm"))]
        for p in 1..self.parts {
            for (d, s) in dst.iter().zip(part(p)) {
                store(d, add(load(d), load(s)));
            }
        }
    }

    fn cycles(&self) -> u64 {
        let count = u64::from(self.count);
        if count == 0 {
            return op::ENTRY;
        }
        op::ENTRY + loop_of(count, op::NUMBER) + u64::from(self.parts.saturating_sub(1)) * loop_of(count, op::ADD)
    }
}

impl Kernel for Norms {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        let bounds = Bounds { words: dtcm_words };
        bounds.span("out", self.out, 2)?.apart_from(&[bounds.span("x", self.x, self.count)?])
    }

    fn run(&self, dtcm: &mut [u32]) {
        let dtcm = cells(dtcm);
        let out = words(dtcm, self.out, 2);
        let (mut squares, mut largest) = (load(&out[0]), load(&out[1]));
        for x in words(dtcm, self.x, self.count as usize) {
            let x = load(x);
            squares = add(squares, mul(x, x));
            largest = max(largest, abs(x));
        }
        store(&out[0], squares);
        store(&out[1], largest);
    }

    fn cycles(&self) -> u64 {
        // The last of the three needs no BL: what it finds stays where it is.
        op::ENTRY + 20 + compiled(self.count.into(), 2, op::MUL + op::ADD + op::COMPARE + 6)
    }
}

impl Kernel for Clip {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        if self.mode != 1 && self.mode != 2 {
            return Err(BadCall::value("mode", self.mode));
        }
        let limit = f32::from_bits(self.limit_bits);
        if is_nan(limit) || less(limit, 0.0) {
            return Err(BadCall::value("limit_bits", self.limit_bits));
        }
        let bounds = Bounds { words: dtcm_words };
        let x = bounds.span("x", self.x, self.count)?;
        if self.mode == 2 { x.apart_from(&[bounds.span("sum_squares", self.sum_squares, 1)?]) } else { Ok(()) }
    }

    fn run(&self, dtcm: &mut [u32]) {
        let dtcm = cells(dtcm);
        let limit = f32::from_bits(self.limit_bits);
        let x = words(dtcm, self.x, self.count as usize);
        if self.mode == 1 {
            for x in x {
                store(x, min(max(load(x), neg(limit)), limit));
            }
            return;
        }
        let norm = sqrt(load(&words(dtcm, self.sum_squares, 1)[0]));
        if less(limit, norm) || is_nan(norm) {
            let factor = div(limit, norm);
            for x in x {
                store(x, mul(load(x), factor));
            }
        }
    }

    fn cycles(&self) -> u64 {
        let count = u64::from(self.count);
        op::ENTRY
            + if self.mode == 1 {
                compiled(count, 2, 2 * op::COMPARE + op::NUMBER)
            } else {
                op::SQRT + op::DIV + compiled(count, 2, op::MUL + op::NUMBER)
            }
    }
}

impl Kernel for Lerp {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        let bounds = Bounds { words: dtcm_words };
        let count = self.count;
        let out = bounds.span("out", self.out, count)?;
        out.apart_or_same(&bounds.span("a", self.a, count)?)?;
        out.apart_or_same(&bounds.span("b", self.b, count)?)
    }

    fn run(&self, dtcm: &mut [u32]) {
        let dtcm = cells(dtcm);
        let count = self.count as usize;
        let momentum = f32::from_bits(self.momentum_bits);
        let rest = sub(1.0, momentum);
        let (a, b) = (words(dtcm, self.a, count), words(dtcm, self.b, count));
        for ((a, b), out) in a.iter().zip(b).zip(words(dtcm, self.out, count)) {
            store(out, add(mul(load(a), momentum), mul(load(b), rest)));
        }
    }

    fn cycles(&self) -> u64 {
        op::ENTRY + op::ADD + compiled(self.count.into(), 3, 2 * op::MUL + op::ADD + op::NUMBER)
    }
}

impl Kernel for CountNonFinite {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        let bounds = Bounds { words: dtcm_words };
        bounds.span("out", self.out, 1)?.apart_from(&[bounds.span("x", self.x, self.count)?])
    }

    fn run(&self, dtcm: &mut [u32]) {
        let dtcm = cells(dtcm);
        let found =
            words(dtcm, self.x, self.count as usize).iter().filter(|x| x.get() & 0x7F80_0000 == 0x7F80_0000).count();
        let out = &words(dtcm, self.out, 1)[0];
        out.set(out.get().saturating_add(found as u32));
    }

    fn cycles(&self) -> u64 {
        op::ENTRY + u64::from(self.count) * 12
    }
}
