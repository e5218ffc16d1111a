//! Softmax of rows, and its gradient.

use core::cell::Cell;

use super::{area, compiled, loop_of, op};
use crate::Kernel;
use crate::call::{Softmax, SoftmaxGrad};
use crate::dtcm::{BadCall, Bounds, cells, part, times, words};
use crate::functions::{self, cycles as cost};
use crate::num::{add, div, load, max, mul, store_result, sub};

/// Largest of a row; a NaN if there is one.
pub(super) fn largest(row: &[Cell<u32>]) -> f32 {
    row.iter().fold(f32::NEG_INFINITY, |m, x| max(m, load(x)))
}

/// `out = softmax(x)` of one row.
pub(super) fn softmax_row(x: &[Cell<u32>], out: &[Cell<u32>]) {
    let top = largest(x);
    for (x, out) in x.iter().zip(out) {
        store_result(out, sub(load(x), top));
    }
    functions::exp_cells(out);
    let sum = out.iter().fold(0.0, |s, e| add(s, load(e)));
    for out in out {
        store_result(out, div(load(out), sum));
    }
}

/// Cycles of [`softmax_row`].
pub(super) fn softmax_row_cycles(cols: u64) -> u64 {
    60 + compiled(cols, 4, op::COMPARE + 2 * op::ADD + op::DIV) + loop_of(cols, cost::EXP)
}

impl Kernel for Softmax {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        let bounds = Bounds { words: dtcm_words };
        let count = times(self.rows, self.cols);
        bounds.span("out", self.out, count)?.apart_or_same(&bounds.span("x", self.x, count)?)
    }

    fn run(&self, dtcm: &mut [u32]) {
        let (rows, cols) = (self.rows as usize, self.cols as usize);
        if rows == 0 || cols == 0 {
            return;
        }
        let dtcm = cells(dtcm);
        let (x, out) = (words(dtcm, self.x, rows * cols), words(dtcm, self.out, rows * cols));
        for r in 0..rows {
            softmax_row(part(x, r * cols, cols), part(out, r * cols, cols));
        }
    }

    fn cycles(&self) -> u64 {
        if self.rows == 0 || self.cols == 0 {
            return op::ENTRY;
        }
        op::ENTRY + u64::from(self.rows) * softmax_row_cycles(u64::from(self.cols))
    }
}

impl Kernel for SoftmaxGrad {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        let bounds = Bounds { words: dtcm_words };
        let count = times(self.rows, self.cols);
        let dx = bounds.span("dx", self.dx, count)?;
        dx.apart_or_same(&bounds.span("y", self.y, count)?)?;
        dx.apart_or_same(&bounds.span("dy", self.dy, count)?)
    }

    fn run(&self, dtcm: &mut [u32]) {
        let (rows, cols) = (self.rows as usize, self.cols as usize);
        if rows == 0 || cols == 0 {
            return;
        }
        let dtcm = cells(dtcm);
        let matrix = |address| words(dtcm, address, rows * cols).chunks_exact(cols);
        for ((y, dy), dx) in matrix(self.y).zip(matrix(self.dy)).zip(matrix(self.dx)) {
            let dot = y.iter().zip(dy).fold(0.0, |s, (y, dy)| add(s, mul(load(dy), load(y))));
            for ((y, dy), dx) in y.iter().zip(dy).zip(dx) {
                store_result(dx, mul(load(y), sub(load(dy), dot)));
            }
        }
    }

    fn cycles(&self) -> u64 {
        let elements = compiled(area(self.rows, self.cols), 4, 2 * (op::MUL + op::ADD) + op::NUMBER);
        if self.rows == 0 || self.cols == 0 { op::ENTRY } else { op::ENTRY + 45 + u64::from(self.rows) * 30 + elements }
    }
}
