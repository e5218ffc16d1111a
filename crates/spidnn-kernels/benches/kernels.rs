//! Host speed of the block kernels, as multiply-accumulates (elements for alignment) a second.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use spidnn_kernels::KernelCall;
use spidnn_kernels::call::{Conv, ConvWgrad, Gemm, Prep2d};

/// Small mantissas and usual exponents everywhere; or numbers around 1 (subnormals would slow the host down).
fn dtcm(numbers: bool) -> Vec<u32> {
    let words = (0..16_384u32).map(|i| i.wrapping_mul(2_654_435_761) >> 26);
    if numbers { words.map(|w| (w as f32 - 31.7).to_bits()).collect() } else { words.collect() }
}

fn run(c: &mut Criterion, group: &str, cases: &[(&str, u64, KernelCall)]) {
    let mut g = c.benchmark_group(group);
    for (name, work, call) in cases {
        call.check(16_384).expect("a call that fits");
        g.throughput(Throughput::Elements(*work));
        let mut dtcm = dtcm(group == "prep");
        g.bench_function(BenchmarkId::from_parameter(name), |b| b.iter(|| black_box(call).run(black_box(&mut dtcm))));
    }
    g.finish();
}

fn gemm(m: u32, k: u32, n: u32, accumulate: u32) -> (u64, KernelCall) {
    let c = Gemm {
        a: 0,
        a_stride: k,
        b: 4 * 8192,
        b_stride: n,
        c: 4 * 12_000,
        c_stride: n,
        a_exps: 4 * 15_800,
        b_exps: 4 * 16_300,
        m,
        k,
        n,
        accumulate,
    };
    (u64::from(m) * u64::from(k) * u64::from(n), c.into())
}

fn conv(input: (u32, u32), kernel: (u32, u32), rows: u32, out: u32, pad: i32) -> (u64, KernelCall) {
    let ((size, ci), (k, co)) = (input, kernel);
    let c = Conv {
        x: 0,
        x_exp: 4 * 16_000,
        iy0: (4 - pad).max(0),
        in_h: size,
        in_w: size,
        in_c: ci,
        w: 4 * 9000,
        w_stride: co,
        w_exps: 4 * 16_001,
        kh: k,
        kw: k,
        ci_group: ci,
        co_group: co,
        co0: 0,
        co_tile: co,
        y: 4 * 12_000,
        oy0: 4,
        rows,
        out_h: out,
        out_w: out,
        stride_y: 1,
        stride_x: 1,
        dilation_y: 1,
        dilation_x: 1,
        pad_y: pad,
        pad_x: pad,
        up_y: 1,
        up_x: 1,
        accumulate: 0,
    };
    (u64::from(rows * out * k * k * ci * co), c.into())
}

fn wgrad(input: (u32, u32), kernel: (u32, u32), rows: u32, out: u32, pad: i32) -> (u64, KernelCall) {
    let ((size, ci), (k, co)) = (input, kernel);
    let c = ConvWgrad {
        x: 0,
        x_exp: 4 * 16_000,
        iy0: (4 - pad).max(0),
        in_h: size,
        in_w: size,
        in_c: ci,
        ci0: 0,
        ci_tile: ci,
        dy: 4 * 9000,
        dy_exp: 4 * 16_001,
        co_tile: co,
        oy0: 4,
        rows,
        out_h: out,
        out_w: out,
        dw: 4 * 12_000,
        kh: k,
        kw: k,
        stride_y: 1,
        stride_x: 1,
        dilation_y: 1,
        dilation_x: 1,
        pad_y: pad,
        pad_x: pad,
    };
    (u64::from(rows * out * k * k * ci * co), c.into())
}

fn all(c: &mut Criterion) {
    let named = |name: &'static str, (work, call): (u64, KernelCall)| (name, work, call);
    run(
        c,
        "gemm",
        &[
            named("dense_512x512_batch_16_core_30_columns_of_256_terms", gemm(16, 256, 14, 0)),
            named("lenet_400x8_batch_10", gemm(10, 400, 8, 0)),
            named("lenet_120x5_batch_10", gemm(10, 120, 5, 0)),
            named("lenet_84x1_batch_10", gemm(10, 84, 1, 0)),
            named("lenet_weights_gradient_400x8_of_10", gemm(400, 10, 8, 1)),
        ],
    );
    run(
        c,
        "conv",
        &[
            named("lenet_1_28x28x1_6_rows_2", conv((28, 1), (5, 6), 2, 28, 2)),
            named("lenet_1_28x28x1_6_rows_4", conv((28, 1), (5, 6), 4, 28, 2)),
            named("lenet_2_14x14x6_16_rows_1", conv((14, 6), (5, 16), 1, 10, 0)),
            named("lenet_2_14x14x6_16_rows_4", conv((14, 6), (5, 16), 4, 10, 0)),
            named("lenet_2_backward_10x10x16_6_rows_2", conv((10, 16), (5, 6), 2, 14, 4)),
        ],
    );
    run(
        c,
        "weights_gradient",
        &[
            named("lenet_1_rows_4", wgrad((28, 1), (5, 6), 4, 28, 2)),
            named("lenet_2_rows_4", wgrad((14, 6), (5, 16), 4, 10, 0)),
        ],
    );
    let prep = |axis, rows: u32, cols: u32| {
        let c = Prep2d {
            src: 0,
            rows,
            cols,
            src_stride: cols,
            dst: 4 * 8192,
            dst_row_stride: cols,
            dst_col_stride: 1,
            exps: 4 * 16_380,
            axis,
        };
        (u64::from(rows * cols), KernelCall::from(c))
    };
    run(c, "prep", &[named("whole_10x400", prep(0, 10, 400)), named("columns_25x4", prep(2, 25, 4))]);
}

criterion_group!(benches, all);
criterion_main!(benches);
