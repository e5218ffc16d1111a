//! Every kernel on the instruction-level core gives the host's bits.

use spidnn_kernels::call::{BiasAct, Map2, NONE};
use spidnn_kernels::{Activation, KernelCall, Loss, Optimizer};
use spidnn_truth::cases::{self, Case, Data};
use spidnn_truth::{Bench, Verdict, formats, functions, layers};

fn compare(bench: &mut Bench, case: &Case) {
    let mut expected = case.memory.clone();
    let mut found = case.memory.clone();
    let accepted = case.call.check(expected.len()).is_ok();
    let verdict = bench.run(&case.call, &mut found);
    assert_eq!(matches!(verdict, Verdict::Done { .. }), accepted, "{verdict:?} {:?}", case.call);
    if accepted {
        case.call.run(&mut expected);
    }
    if let Some(word) = (0..expected.len()).find(|&i| expected[i] != found[i]) {
        let before = case.memory[word];
        panic!(
            "word {word} (byte {}): {:#x}, not {:#x} (before: {before:#x}): {:?}",
            4 * word,
            found[word],
            expected[word],
            case.call
        );
    }
}

#[test]
fn every_bit_of_random_calls_is_the_hosts() {
    let mut bench = Bench::train();
    for &kernel in cases::KERNELS {
        for seed in 0..60 {
            let data = if seed % 3 == 0 { Data::Usual } else { Data::Any };
            compare(&mut bench, &cases::random(kernel, seed, data, (seed % 5 == 0).into()));
        }
    }
}

#[test]
fn every_bit_of_the_formats_kernels_is_the_hosts() {
    let mut bench = Bench::formats();
    for &kernel in formats::KERNELS {
        for seed in 0..60 {
            compare(&mut bench, &formats::random(kernel, seed));
        }
    }
}

#[test]
fn every_bit_of_what_small_images_leave_out_is_the_hosts() {
    let mut bench = Bench::rest();
    for &kernel in cases::REST {
        for seed in 0..40 {
            let data = if seed % 3 == 0 { Data::Usual } else { Data::Any };
            compare(&mut bench, &cases::random_of_all(kernel, seed, data, (seed % 5 == 0).into()));
        }
    }
}

#[test]
fn wild_calls_are_accepted_and_refused_alike() {
    let mut bench = Bench::train();
    let mut random = spidnn_truth::Random::new(7);
    for round in 0..4000u32 {
        let kernel = cases::KERNELS[round as usize % cases::KERNELS.len()];
        let mut case = cases::random(kernel, round.into(), Data::Any, 0);
        let mut words = [0; spidnn_kernels::call::CALL_WORDS_MAX];
        let count = case.call.encode(&mut words);
        for _ in 0..random.between(1, 3) {
            let place = random.between(0, count as u32 - 1) as usize;
            let small = random.between(0, 9);
            let word = random.word();
            words[place] = random.one_of(&[small, word, 4 * small, word >> 16, word >> 20 & !3, u32::MAX]);
        }
        case.call = KernelCall::decode(kernel, &words[..count]).expect("the same number of words");
        // The images are built without the larger units.
        let activation = match case.call {
            KernelCall::BiasAct(k) => k.activation,
            KernelCall::ActGrad(k) => k.activation,
            _ => 0,
        };
        let unit = Activation::from_number(activation);
        if unit.is_some_and(|unit| !cases::ACTIVATIONS.contains(&unit)) {
            continue;
        }
        let is_left_out = match case.call {
            KernelCall::Loss(k) => k.kind == Loss::BinaryCrossentropy as u32,
            KernelCall::OptimizerStep(k) => k.kind == Optimizer::RmsProp as u32,
            _ => false,
        };
        if is_left_out {
            continue;
        }
        // What is accepted must also end in time.
        if case.call.check(case.memory.len()).is_ok() && case.call.cycles() > 3_000_000 {
            continue;
        }
        compare(&mut bench, &case);
    }
}

/// Measured cycles over those of the cost table.
fn ratio(bench: &mut Bench, cases: &[Case]) -> f64 {
    let (mut measured, mut cost) = (0, 0);
    for case in cases {
        let Verdict::Done { run_cycles, .. } = bench.run(&case.call, &mut case.memory.clone()) else {
            panic!("{:?} did not run", case.call)
        };
        (measured, cost) = (measured + run_cycles, cost + case.call.cycles());
    }
    measured as f64 / cost as f64
}

#[test]
fn the_cost_table_is_within_ten_percent() {
    let mut bench = Bench::train();
    for named in cases::named() {
        let found = ratio(&mut bench, &[named.case]);
        assert!((0.9..=1.1).contains(&found), "{}: measured {found:.3} of the cost table's", named.name);
    }
    let mut formats_bench = Bench::formats();
    for named in formats::named() {
        let found = ratio(&mut formats_bench, &[named.case]);
        assert!((0.9..=1.1).contains(&found), "{}: measured {found:.3} of the cost table's", named.name);
    }
}

/// A call that ran.
struct Ran {
    call: KernelCall,
    check_cycles: u64,
    run_cycles: u64,
}

/// Calls of one kernel, but those that it refuses.
fn cycles(bench: &mut Bench, calls: impl Iterator<Item = Case>) -> Vec<Ran> {
    let run = |case: Case| match bench.run(&case.call, &mut case.memory.clone()) {
        Verdict::Done { check_cycles, run_cycles } => Ran { call: case.call, check_cycles, run_cycles },
        verdict => panic!("{verdict:?}: {:?}", case.call),
    };
    calls.filter(|case| case.call.check(case.memory.len()).is_ok()).map(run).collect()
}

/// What the bench takes beside the check: the call is read, and the stage told.
const BENCH_CYCLES: u64 = 240;

/// Each call is within ten percent, and all of a kernel together within five.
#[test]
fn calls_of_layers_take_what_the_cost_table_says() {
    type Layer = fn(u32, u64) -> Case;
    let images: [(Bench, &[u32], Layer); 3] = [
        (Bench::train(), cases::KERNELS, layers::random),
        (Bench::rest(), cases::REST, layers::random_of_rest),
        (Bench::formats(), formats::KERNELS, layers::random),
    ];
    for (mut bench, kernels, layer) in images {
        for &kernel in kernels {
            let (mut measured, mut table) = (0, 0);
            for Ran { call, check_cycles, run_cycles } in cycles(&mut bench, (0..60).map(|seed| layer(kernel, seed))) {
                let by_table = call.cycles();
                let found = run_cycles as f64 / by_table as f64;
                assert!((0.9..=1.1).contains(&found), "{run_cycles} cycles, {by_table} by the cost table: {call:?}");
                (measured, table) = (measured + run_cycles, table + by_table);
                let (check_cycles, by_table) = (check_cycles - BENCH_CYCLES, call.check_cycles());
                let is_near = check_cycles.abs_diff(by_table) <= by_table / 10 + SLACK_CYCLES;
                assert!(is_near, "{check_cycles} cycles to check, {by_table} by the cost table: {call:?}");
            }
            let found = measured as f64 / table as f64;
            assert!((0.95..=1.05).contains(&found), "kernel {kernel}: measured {found:.3} of the cost table's");
        }
    }
}

/// Beyond ten percent so many cycles: ways out before anything is done, and what is around loops that have little to do.
const SLACK_CYCLES: u64 = 120;

/// Whether a few numbers are far from the mean that the cost table has: functions that are short for some, numbers that are dropped, norms below the limit.
fn depends_on_data(call: &KernelCall) -> bool {
    match call {
        KernelCall::BiasAct(k) => cases::LARGE_ACTIVATIONS.iter().any(|&activation| activation as u32 == k.activation),
        KernelCall::Clip(k) => k.mode == 2,
        KernelCall::Dropout(_) => true,
        _ => false,
    }
}

/// Small calls, of nothing, of windows outside of the picture.
#[test]
fn calls_of_any_size_are_near_the_cost_table() {
    type Any = fn(u32, u64) -> Case;
    let images: [(Bench, &[u32], Any); 3] = [
        (Bench::train(), cases::KERNELS, |kernel, seed| cases::random(kernel, seed, Data::Usual, 0)),
        (Bench::rest(), cases::REST, |kernel, seed| cases::random_of_all(kernel, seed, Data::Usual, 0)),
        (Bench::formats(), formats::KERNELS, |kernel, seed| formats::random(kernel, 2 * seed)),
    ];
    for (mut bench, kernels, any) in images {
        for &kernel in kernels {
            let calls = (0..60).map(|seed| any(kernel, seed)).filter(|case| !depends_on_data(&case.call));
            for Ran { call, run_cycles, .. } in cycles(&mut bench, calls) {
                let by_table = call.cycles();
                let bound = by_table / 10 + SLACK_CYCLES;
                let is_near = run_cycles.abs_diff(by_table) <= bound;
                assert!(is_near, "{run_cycles} cycles, {by_table} by the cost table: {call:?}");
            }
        }
    }
}

#[test]
fn a_matrix_product_takes_five_cycles_a_multiplication() {
    let named = cases::named();
    let product = named.iter().find(|named| named.name == "Gemm 64x64x64").expect("it is there");
    let mut memory = product.case.memory.clone();
    let Verdict::Done { run_cycles, .. } = Bench::predict().run(&product.case.call, &mut memory) else {
        panic!("it did not run")
    };
    assert!(run_cycles as f64 <= 5.0 * product.units as f64, "{run_cycles} cycles");
}

#[test]
fn shorter_numbers_take_fewer_cycles_a_multiplication() {
    let mut bench = Bench::formats();
    for (name, most) in [("Product8 64x64x64", 1.6), ("GemmHalf 64x64x64", 3.0), ("GemmHalf 16x400x7", 3.0)] {
        let product = formats::named().into_iter().find(|named| named.name == name).expect("it is there");
        let Verdict::Done { run_cycles, .. } = bench.run(&product.case.call, &mut product.case.memory.clone()) else {
            panic!("{name} did not run")
        };
        let found = run_cycles as f64 / product.units as f64;
        assert!(found <= most, "{name}: {found:.3} cycles");
    }
}

#[test]
fn functions_give_the_hosts_bits_for_many_numbers() {
    const COUNT: u32 = 7000;
    let mut bench = Bench::train();
    for seed in 0..6 {
        let mut random = spidnn_truth::Random::new(seed);
        let mut memory = vec![0; spidnn_truth::PROGRAM_WORDS];
        for word in &mut memory {
            // Exponents near 1, where functions bend; else all bits.
            *word = match random.between(0, 2) {
                0 => random.any_number(),
                1 => random.word(),
                _ => (random.word() & 0x807F_FFFF) | random.between(100, 135) << 23,
            };
        }
        let mut calls: Vec<KernelCall> = Vec::new();
        for unit in cases::ACTIVATIONS {
            let whole = BiasAct { y: 0, rows: 1, cols: 2 * COUNT, stride: 0, bias: NONE, ..BiasAct::default() };
            calls.push(BiasAct { activation: *unit as u32, alpha_bits: 0.3f32.to_bits(), ..whole }.into());
        }
        for op in 0..5 {
            calls.push(Map2 { op, a: 0, b: 4 * COUNT, out: 0, count: COUNT }.into());
        }
        for call in calls {
            compare(&mut bench, &Case { call, memory: memory.clone() });
        }
    }
}

#[test]
fn functions_of_numbers_keep_their_bounds() {
    let mut bench = functions::FunctionBench::new();
    let mut random = spidnn_truth::Random::new(3);
    for function in functions::ALL {
        for &(name, from, to) in functions::RANGES {
            let numbers = functions::numbers_of(from, to, &mut random);
            let (found, cycles) = bench.run(function, &numbers);
            println!("{} of {name}: {cycles:.1} cycles", function.name);
            for (x, y) in numbers.iter().zip(&found) {
                let expected = (function.of)(*x);
                let same = expected.to_bits() == y.to_bits() || expected.is_nan() && y.is_nan();
                assert!(same, "{} of {x:e}: {y:e}, not {expected:e}", function.name);
            }
            // Results beyond the normal numbers are rounded elsewhere.
            assert!(cycles <= 90.0 || name.starts_with("large"), "{} of {name}: {cycles} cycles", function.name);
        }
    }
}
