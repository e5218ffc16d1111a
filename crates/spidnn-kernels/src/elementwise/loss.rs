//! Losses of samples and their gradients.
//!
//! Keras' rules: probabilities are kept within 1e-7 of 0 and 1 (where they are cut off, the gradient is zero);
//! categorical probabilities are divided by their sum first, sparse ones after the cut; label smoothing moves a
//! target `t` of `n` classes to `t (1 - s) + s / n` (binary: `n` = 2; sparse kinds have none).

use core::cell::Cell;

use super::softmax::{largest, softmax_row_cycles};
use super::{area, element, op};
use crate::call::{Loss as Call, NONE};
use crate::dtcm::{BadCall, Bounds, below, cells, times, words};
use crate::functions::{self, cycles as cost};
use crate::num::{self, abs, add, div, from_i64, is_nan, less, load, max, min, mul, neg, store_result, sub};
use crate::{Kernel, Loss};

const EPSILON: f32 = 1e-7;
const ALMOST_ONE: f32 = 1.0 - 1e-7;

fn kind(number: u32) -> Result<Loss, BadCall> {
    Loss::from_number(number).ok_or(BadCall::value("kind", number))
}

fn cut(p: f32) -> f32 {
    min(max(p, EPSILON), ALMOST_ONE)
}

/// Whether [`cut`] leaves `p` alone, so that a gradient passes.
fn inside(p: f32) -> bool {
    !less(p, EPSILON) && !less(ALMOST_ONE, p)
}

/// The class that a target names, if it is one of `classes`.
fn class_of(target: f32, classes: usize) -> Option<usize> {
    if is_nan(target) || less(target, 0.0) || !less(target, 1e9) {
        return None;
    }
    // Keras casts to an integer: towards zero.
    let class = num::to_fixed(target, 0) as usize;
    (class < classes).then_some(class)
}

impl Kernel for Call {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        let kind = kind(self.kind)?;
        below("from_logits", self.from_logits, 2)?;
        below("fused", self.fused, 2)?;
        if is_nan(f32::from_bits(self.smoothing_bits)) {
            return Err(BadCall::value("smoothing_bits", self.smoothing_bits));
        }
        let bounds = Bounds { words: dtcm_words };
        let (rows, count) = (self.rows, times(self.rows, self.cols));
        if self.rows > 0 && self.cols == 0 {
            return Err(BadCall::value("cols", 0));
        }
        let sparse = kind == Loss::SparseCategoricalCrossentropy;
        let pred = bounds.span("pred", self.pred, count)?;
        let target = bounds.span("target", self.target, if sparse { rows } else { count })?;
        let loss = bounds.span("loss", self.loss, rows)?;
        loss.apart_from(&[pred, target])?;
        if self.grad != NONE {
            let weight = bounds.span("weight", self.weight, rows)?;
            bounds.span("grad", self.grad, count)?.apart_from(&[pred, target, weight, loss])?;
            loss.apart_from(&[weight])?;
        }
        Ok(())
    }

    fn run(&self, dtcm: &mut [u32]) {
        let Ok(kind) = kind(self.kind) else { panic!("unchecked call") };
        let dtcm = cells(dtcm);
        let (rows, cols) = (self.rows as usize, self.cols as usize);
        let pred = words(dtcm, self.pred, rows * cols);
        let sparse = kind == Loss::SparseCategoricalCrossentropy;
        let target = words(dtcm, self.target, if sparse { rows } else { rows * cols });
        let loss = words(dtcm, self.loss, rows);
        let gradient = if self.grad == NONE { None } else { Some(words(dtcm, self.grad, rows * cols)) };
        for r in 0..rows {
            let sample = Sample {
                pred: &pred[r * cols..][..cols],
                target: if sparse { &target[r..=r] } else { &target[r * cols..][..cols] },
                grad: gradient.map(|g| &g[r * cols..][..cols]),
                weight: if gradient.is_some() { load(&words(dtcm, self.weight, rows)[r]) } else { 0.0 },
                smoothing: f32::from_bits(self.smoothing_bits),
                from_logits: self.from_logits == 1,
                fused: self.fused == 1,
            };
            let value = match kind {
                Loss::MeanSquaredError => sample.mean_squared(),
                Loss::MeanAbsoluteError => sample.mean_absolute(),
                Loss::BinaryCrossentropy => sample.binary(),
                Loss::CategoricalCrossentropy | Loss::SparseCategoricalCrossentropy => sample.categorical(sparse),
            };
            store_result(&loss[r], value);
        }
    }

    fn cycles(&self) -> u64 {
        let Ok(kind) = kind(self.kind) else { return 0 };
        let (rows, cols, count) = (u64::from(self.rows), u64::from(self.cols), area(self.rows, self.cols));
        let with_grad = u64::from(self.grad != NONE);
        op::ENTRY
            + rows * (30 + op::DIV)
            + match kind {
                Loss::MeanSquaredError => element(count, 2 * op::ADD + op::MUL + with_grad * op::MUL, 2, with_grad),
                Loss::MeanAbsoluteError => element(count, 2 * op::ADD + with_grad * op::COMPARE, 2, with_grad),
                Loss::BinaryCrossentropy if self.from_logits == 1 => element(
                    count,
                    cost::SOFTPLUS + op::MUL + 2 * op::ADD + with_grad * (cost::SIGMOID + op::ADD + op::MUL),
                    2,
                    with_grad,
                ),
                Loss::BinaryCrossentropy => {
                    let slope = if self.fused == 1 { op::ADD + op::MUL } else { 2 * op::ADD + 2 * op::MUL + op::DIV };
                    element(count, 2 * cost::LN + 4 * op::ADD + 2 * op::MUL + with_grad * slope, 2, with_grad)
                }
                Loss::CategoricalCrossentropy | Loss::SparseCategoricalCrossentropy if self.from_logits == 1 => {
                    rows * (softmax_row_cycles(cols) + cost::LN)
                        + element(count, 2 * op::ADD + op::MUL + with_grad * op::MUL, 2, with_grad)
                }
                Loss::SparseCategoricalCrossentropy => {
                    rows * cost::LN
                        + element(count, op::ADD + 2 * op::COMPARE + with_grad * (op::MUL + op::DIV), 1, with_grad)
                }
                Loss::CategoricalCrossentropy => {
                    let slope =
                        if self.fused == 1 { op::ADD + op::MUL } else { 2 * op::DIV + 2 * op::ADD + 2 * op::MUL };
                    element(count, op::ADD + op::DIV + cost::LN + op::MUL + op::ADD + with_grad * slope, 2, with_grad)
                }
            }
    }
}

/// One sample's row.
struct Sample<'a> {
    pred: &'a [Cell<u32>],
    target: &'a [Cell<u32>],
    grad: Option<&'a [Cell<u32>]>,
    weight: f32,
    smoothing: f32,
    from_logits: bool,
    fused: bool,
}

impl Sample<'_> {
    fn cols(&self) -> f32 {
        from_i64(self.pred.len() as i64)
    }

    fn put(&self, i: usize, value: f32) {
        if let Some(grad) = self.grad {
            store_result(&grad[i], value);
        }
    }

    fn mean_squared(&self) -> f32 {
        let factor = div(mul(2.0, self.weight), self.cols());
        let mut sum = 0.0;
        for i in 0..self.pred.len() {
            let d = sub(load(&self.pred[i]), load(&self.target[i]));
            sum = add(sum, mul(d, d));
            self.put(i, mul(d, factor));
        }
        div(sum, self.cols())
    }

    fn mean_absolute(&self) -> f32 {
        let factor = div(self.weight, self.cols());
        let mut sum = 0.0;
        for i in 0..self.pred.len() {
            let d = sub(load(&self.pred[i]), load(&self.target[i]));
            sum = add(sum, abs(d));
            let slope = if less(0.0, d) {
                factor
            } else if less(d, 0.0) {
                neg(factor)
            } else {
                // 0, or NaN.
                mul(d, 0.0)
            };
            self.put(i, slope);
        }
        div(sum, self.cols())
    }

    fn binary(&self) -> f32 {
        let factor = div(self.weight, self.cols());
        let (keep, base) = (sub(1.0, self.smoothing), mul(0.5, self.smoothing));
        let mut sum = 0.0;
        for i in 0..self.pred.len() {
            let t = add(mul(load(&self.target[i]), keep), base);
            let p = load(&self.pred[i]);
            if self.from_logits {
                // max(z, 0) - z t + ln(1 + exp(-|z|)): the softplus of z, less z t.
                sum = add(sum, sub(functions::softplus(p), mul(p, t)));
                if self.grad.is_some() {
                    self.put(i, mul(sub(functions::sigmoid(p), t), factor));
                }
                continue;
            }
            let q = cut(p);
            let rest = sub(1.0, q);
            sum = sub(sum, add(mul(t, functions::ln(q)), mul(sub(1.0, t), functions::ln(rest))));
            if self.grad.is_some() {
                self.put(
                    i,
                    if self.fused {
                        mul(sub(p, t), factor)
                    } else if inside(p) {
                        mul(div(sub(q, t), mul(q, rest)), factor)
                    } else {
                        0.0
                    },
                );
            }
        }
        div(sum, self.cols())
    }

    /// The target of class `i`: `class` for sparse kinds.
    fn target_of(&self, class: Option<usize>, i: usize) -> f32 {
        match class {
            Some(class) => {
                if class == i {
                    1.0
                } else {
                    0.0
                }
            }
            None => {
                let t = load(&self.target[i]);
                if self.smoothing == 0.0 {
                    t
                } else {
                    add(mul(t, sub(1.0, self.smoothing)), div(self.smoothing, self.cols()))
                }
            }
        }
    }

    fn categorical(&self, sparse: bool) -> f32 {
        let n = self.pred.len();
        let class = if sparse {
            let Some(class) = class_of(load(&self.target[0]), n) else {
                (0..n).for_each(|i| self.put(i, num::NAN));
                return num::NAN;
            };
            Some(class)
        } else {
            None
        };
        if self.from_logits {
            return self.categorical_logits(class);
        }
        // What reaches the logarithm, and the sums on the way there.
        let raw = |i: usize| if sparse { cut(load(&self.pred[i])) } else { load(&self.pred[i]) };
        let sum = (0..n).fold(0.0, |s, i| add(s, raw(i)));
        let share = |i: usize| div(raw(i), sum);
        let mut loss = 0.0;
        if let Some(class) = class {
            loss = neg(functions::ln(share(class)));
        } else {
            for i in 0..n {
                loss = sub(loss, mul(self.target_of(class, i), functions::ln(cut(share(i)))));
            }
        }
        if self.grad.is_none() {
            return loss;
        }
        if self.fused {
            for i in 0..n {
                self.put(i, mul(sub(load(&self.pred[i]), self.target_of(class, i)), self.weight));
            }
            return loss;
        }
        if sparse {
            for i in 0..n {
                let p = load(&self.pred[i]);
                let slope = if inside(p) { div(sub(share(i), self.target_of(class, i)), p) } else { 0.0 };
                self.put(i, mul(slope, self.weight));
            }
            return loss;
        }
        // d loss / d share, zero where the share was cut; then through the division by the sum.
        let slope = |i: usize| {
            let q = share(i);
            if inside(q) { neg(div(self.target_of(class, i), q)) } else { 0.0 }
        };
        let dot = (0..n).fold(0.0, |s, i| add(s, mul(slope(i), share(i))));
        for i in 0..n {
            self.put(i, mul(div(sub(slope(i), dot), sum), self.weight));
        }
        loss
    }

    fn categorical_logits(&self, class: Option<usize>) -> f32 {
        let n = self.pred.len();
        let top = largest(self.pred);
        let power = |i: usize| functions::exp(sub(load(&self.pred[i]), top));
        let sum = (0..n).fold(0.0, |s, i| add(s, power(i)));
        let log_sum = functions::ln(sum);
        let mut loss = 0.0;
        for i in 0..n {
            let t = self.target_of(class, i);
            // A class that is not the target's takes no part, even with an infinite logit.
            if class.is_none() || class == Some(i) {
                loss = add(loss, mul(t, sub(log_sum, sub(load(&self.pred[i]), top))));
            }
            if self.grad.is_some() {
                self.put(i, mul(sub(div(power(i), sum), t), self.weight));
            }
        }
        loss
    }
}
