//! Elementary functions, softmax and an Adam step on the host.
use std::cell::Cell;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use spidnn_kernels::call::{NONE, OptimizerStep, Softmax};
use spidnn_kernels::{Kernel, Optimizer, functions, optimizer};

const COUNT: usize = 4096;

type OverCells = fn(&[Cell<u32>]);
type Scalar = fn(f32) -> f32;

fn bench(c: &mut Criterion) {
    let values: Vec<u32> = (0..COUNT).map(|i| ((i as f32 - 2048.0) / 512.0).to_bits()).collect();
    let mut group = c.benchmark_group("function");
    group.throughput(Throughput::Elements(COUNT as u64));
    for (name, function) in [
        ("tanh", functions::tanh_cells as OverCells),
        ("exp", functions::exp_cells),
        ("sigmoid", functions::sigmoid_cells),
    ] {
        let cells: Vec<Cell<u32>> = values.iter().map(|&v| Cell::new(v)).collect();
        group.bench_function(name, |b| {
            b.iter(|| {
                cells.iter().zip(&values).for_each(|(c, v)| c.set(*v));
                function(black_box(&cells));
            });
        });
    }
    let scalars: [(&str, Scalar); 7] = [
        ("scalar tanh", functions::tanh),
        ("scalar exp", functions::exp),
        ("scalar sigmoid", functions::sigmoid),
        ("scalar ln", functions::ln),
        ("scalar softplus", functions::softplus),
        ("scalar gelu", functions::gelu),
        ("scalar rsqrt", functions::reciprocal_sqrt),
    ];
    for (name, function) in scalars {
        group.bench_function(name, |b| {
            b.iter(|| values.iter().fold(0u32, |s, &v| s ^ black_box(function)(f32::from_bits(v)).to_bits()));
        });
    }
    group.finish();

    let mut group = c.benchmark_group("kernel");
    let mut dtcm = vec![0u32; 16_384];
    group.throughput(Throughput::Elements(4000));
    group.bench_function("softmax of 400 rows of 10", |b| {
        dtcm[..COUNT].copy_from_slice(&values);
        let call = Softmax { x: 0, out: 4 * 4096, rows: 400, cols: 10 };
        call.check(dtcm.len()).expect("the call fits");
        b.iter(|| call.run(black_box(&mut dtcm)));
    });
    group.throughput(Throughput::Elements(3000));
    group.bench_function("adam", |b| {
        dtcm.fill(0.01f32.to_bits());
        dtcm[12_000..12_016].copy_from_slice(&optimizer::Scalars::default().words(5));
        let call = OptimizerStep {
            kind: Optimizer::Adam as u32,
            w: 0,
            g: 12_000,
            m: 24_000,
            v: 36_000,
            x: NONE,
            count: 3000,
            scalars: 48_000,
            decay: 0,
        };
        call.check(dtcm.len()).expect("the call fits");
        b.iter(|| call.run(black_box(&mut dtcm)));
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
