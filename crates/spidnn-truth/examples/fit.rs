use spidnn_kernels::call::*;
use spidnn_kernels::{Activation, KernelCall, Loss as L};
use spidnn_truth::cases::*;
use spidnn_truth::{Bench, Verdict};
fn main() {
    let mut bench = Bench::rest();
    let mut go = |c: &KernelCall, m: &mut Vec<u32>| match bench.run(c, m) {
        Verdict::Done { run_cycles, .. } => run_cycles,
        v => panic!("{v:?}"),
    };
    for a in 0..15 {
        let kind = Activation::from_number(a).unwrap();
        let mut m = Memory::new(3, Data::Usual);
        let (dy, saved, out) = (m.take(400), m.take(400), m.take(400));
        let mut case = m.with(ActGrad { dy, saved, out, count: 400, activation: a, alpha_bits: 0.3f32.to_bits() });
        let g = go(&case.call, &mut case.memory);
        let mut b = bias_act(Memory::new(3, Data::Usual), 1, 400, a, false, 0);
        let f = go(&b.call, &mut b.memory);
        println!(
            "act {kind:?}: forward {:.1} by cost {:.3}; gradient {:.1} by cost {:.3}",
            f as f64 / 400.0,
            f as f64 / b.call.cycles() as f64,
            g as f64 / 400.0,
            g as f64 / case.call.cycles() as f64
        );
    }
    for kind in [
        L::MeanSquaredError,
        L::MeanAbsoluteError,
        L::BinaryCrossentropy,
        L::CategoricalCrossentropy,
        L::SparseCategoricalCrossentropy,
    ] {
        for (logits, fused, with_grad, smoothing) in [
            (0, 0, true, 0f32),
            (0, 1, true, 0.),
            (1, 0, true, 0.),
            (1, 0, false, 0.),
            (0, 0, false, 0.),
            (0, 1, true, 0.1),
        ] {
            for (rows, cols) in [(8, 10), (8, 1), (1, 40)] {
                let mut m = Memory::new(3, Data::Usual);
                let n = rows * cols;
                let pred = if logits == 1 { m.take(n) } else { m.probabilities(n) };
                let target =
                    if kind == L::SparseCategoricalCrossentropy { m.classes(rows, cols) } else { m.probabilities(n) };
                let (weight, loss, grad) = (m.positive(rows), m.take(rows), m.take(n));
                let mut c = m.with(Loss {
                    kind: kind as u32,
                    pred,
                    target,
                    weight,
                    loss,
                    grad: if with_grad { grad } else { NONE },
                    rows,
                    cols,
                    from_logits: logits,
                    fused,
                    smoothing_bits: smoothing.to_bits(),
                });
                let g = go(&c.call, &mut c.memory);
                print!(" {rows}x{cols}: {g} {:.3}", g as f64 / c.call.cycles() as f64);
            }
            println!(" loss {kind:?} logits {logits} fused {fused} grad {with_grad} smoothing {smoothing}");
        }
    }
}
