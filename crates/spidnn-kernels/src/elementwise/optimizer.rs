//! Optimizer steps: the rules are in [`crate::optimizer`].

use core::cell::Cell;

use super::{compiled, op};
use crate::call::{NONE, OptimizerStep};
use crate::dtcm::{BadCall, Bounds, Span, below, cells, word, words};
use crate::num::{add, div, load, mul, sqrt, store_result, sub};
use crate::optimizer as s;
use crate::{Kernel, Optimizer};

fn optimizer(number: u32) -> Result<Optimizer, BadCall> {
    Optimizer::from_number(number).filter(|kind| kind.is_built()).ok_or(BadCall::value("kind", number))
}

impl Kernel for OptimizerStep {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        let kind = optimizer(self.kind)?;
        below("decay", self.decay, 2)?;
        let bounds = Bounds { words: dtcm_words };
        let count = self.count;
        let state = |field: &'static str, address: u32, needed: bool, allowed: bool| -> Result<Span, BadCall> {
            if address == NONE && !needed || !allowed {
                return bounds.span(field, address, 0);
            }
            bounds.span(field, address, count)
        };
        let (adam, rms) = (kind == Optimizer::Adam, kind == Optimizer::RmsProp);
        let spans = [
            bounds.span("w", self.w, count)?,
            bounds.span("g", self.g, count)?,
            state("m", self.m, adam || kind == Optimizer::SgdNesterov, true)?,
            state("v", self.v, adam || rms, adam || rms)?,
            state("x", self.x, false, rms)?,
            bounds.span("scalars", self.scalars, s::WORDS as u32)?,
        ];
        for (i, span) in spans.iter().enumerate() {
            span.apart_from(&spans[i + 1..])?;
        }
        Ok(())
    }

    fn run(&self, dtcm: &mut [u32]) {
        let Ok(kind) = optimizer(self.kind) else { panic!("unchecked call") };
        let dtcm = cells(dtcm);
        let count = self.count as usize;
        let scalars: [f32; s::WORDS] = {
            let block = words(dtcm, self.scalars, s::WORDS);
            core::array::from_fn(|i| load(word(block, i)))
        };
        let optional = |address| if address == NONE { None } else { Some(words(dtcm, address, count)) };
        let (w, g) = (words(dtcm, self.w, count), words(dtcm, self.g, count));
        if self.decay == 1 {
            for w in w {
                let value = load(w);
                store_result(w, sub(value, mul(value, scalars[s::DECAY])));
            }
        }
        match kind {
            Optimizer::Sgd | Optimizer::SgdNesterov => {
                sgd(w, g, optional(self.m), &scalars, kind == Optimizer::SgdNesterov);
            }
            Optimizer::RmsProp if !kind.is_built() => {}
            Optimizer::RmsProp => {
                rms_prop(w, g, optional(self.m), words(dtcm, self.v, count), optional(self.x), &scalars);
            }
            Optimizer::Adam => adam(w, g, words(dtcm, self.m, count), words(dtcm, self.v, count), &scalars),
        }
    }

    fn cycles(&self) -> u64 {
        let Ok(kind) = optimizer(self.kind) else { return 0 };
        let count = u64::from(self.count);
        let has = |address| u64::from(address != NONE);
        // Operations, and their cycles.
        let (operations, cycles) = match kind {
            Optimizer::Sgd => {
                let pairs = 1 + has(self.m);
                (1 + 2 * pairs, pairs * (op::MUL + op::ADD))
            }
            Optimizer::SgdNesterov => (6, 3 * op::MUL + 3 * op::ADD),
            Optimizer::RmsProp => (
                9 + 2 * has(self.m) + 2 * has(self.x),
                4 * op::MUL
                    + 3 * op::ADD
                    + op::SQRT
                    + op::DIV
                    + has(self.m) * (op::MUL + op::ADD)
                    + has(self.x) * (3 * op::MUL + 2 * op::ADD),
            ),
            Optimizer::Adam => (10, 4 * op::MUL + 6 * op::ADD + op::SQRT + op::DIV),
        };
        let decay = if self.decay == 1 { compiled(count, 2, op::MUL + op::ADD) } else { 0 };
        op::ENTRY + 300 + compiled(count, operations, cycles) + decay
    }
}

fn sgd(w: &[Cell<u32>], g: &[Cell<u32>], m: Option<&[Cell<u32>]>, scalars: &[f32; s::WORDS], nesterov: bool) {
    let (rate, momentum) = (scalars[s::LEARNING_RATE], scalars[s::MOMENTUM]);
    for i in 0..w.len() {
        let (w, step) = (word(w, i), mul(rate, load(word(g, i))));
        let Some(m) = m else {
            store_result(w, sub(load(w), step));
            continue;
        };
        let m = word(m, i);
        let velocity = sub(mul(momentum, load(m)), step);
        let change = if nesterov { sub(mul(momentum, velocity), step) } else { velocity };
        store_result(m, velocity);
        store_result(w, add(load(w), change));
    }
}

fn rms_prop(
    w: &[Cell<u32>],
    g: &[Cell<u32>],
    m: Option<&[Cell<u32>]>,
    v: &[Cell<u32>],
    x: Option<&[Cell<u32>]>,
    scalars: &[f32; s::WORDS],
) {
    let (rho, rest, epsilon) = (scalars[s::RHO], scalars[s::ONE_MINUS_RHO], scalars[s::EPSILON]);
    for i in 0..w.len() {
        let gradient = load(&g[i]);
        let velocity = add(mul(rho, load(&v[i])), mul(rest, mul(gradient, gradient)));
        store_result(&v[i], velocity);
        let spread = match x {
            Some(x) => {
                let average = add(mul(rho, load(&x[i])), mul(rest, gradient));
                store_result(&x[i], average);
                sub(velocity, mul(average, average))
            }
            None => velocity,
        };
        let mut change = div(mul(scalars[s::LEARNING_RATE], gradient), sqrt(add(spread, epsilon)));
        if let Some(m) = m {
            change = add(mul(scalars[s::MOMENTUM], load(&m[i])), change);
            store_result(&m[i], change);
        }
        store_result(&w[i], sub(load(&w[i]), change));
    }
}

fn adam(w: &[Cell<u32>], g: &[Cell<u32>], m: &[Cell<u32>], v: &[Cell<u32>], scalars: &[f32; s::WORDS]) {
    let (rest_1, rest_2) = (scalars[s::ONE_MINUS_BETA_1], scalars[s::ONE_MINUS_BETA_2]);
    let (alpha, epsilon) = (scalars[s::ALPHA], scalars[s::EPSILON]);
    for i in 0..w.len() {
        let (w, m, v) = (word(w, i), word(m, i), word(v, i));
        let gradient = load(word(g, i));
        let (mean, square) = (load(m), load(v));
        let mean = add(mean, mul(sub(gradient, mean), rest_1));
        let square = add(square, mul(sub(mul(gradient, gradient), square), rest_2));
        store_result(m, mean);
        store_result(v, square);
        store_result(w, sub(load(w), div(mul(mean, alpha), add(sqrt(square), epsilon))));
    }
}
