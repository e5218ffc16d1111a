//! Prints what kernels take on the instruction-level core beside what the cost table says:
//! `cargo run --release -p spidnn-truth --example kernels`.

use spidnn_truth::{Bench, Verdict, cases};

/// Makes a call of a kernel from its number and a seed.
type Random = dyn Fn(u32, u64) -> cases::Case;

fn main() {
    let mut bench = Bench::train();
    println!("images: predict {} bytes, train {} bytes", Bench::predict().image_bytes(), bench.image_bytes());
    println!(
        "{:44} {:>9} {:>9} {:>6} {:>8}  {:<8} {:>6}",
        "case", "measured", "by cost", "ratio", "cycles /", "", "check"
    );
    let mut formats = Bench::formats();
    for named in cases::named().into_iter().chain(spidnn_truth::formats::named()) {
        let bench = if named.case.call.number() < 30 { &mut bench } else { &mut formats };
        let mut memory = named.case.memory.clone();
        let Verdict::Done { check_cycles, run_cycles } = bench.run(&named.case.call, &mut memory) else {
            println!("{:44} not run: the image does not have it", named.name);
            continue;
        };
        let cost = named.case.call.cycles();
        println!(
            "{:44} {run_cycles:>9} {cost:>9} {:>6.3} {:>8.2}  {:<8} {check_cycles:>6}",
            named.name,
            run_cycles as f64 / cost as f64,
            run_cycles as f64 / named.units as f64,
            named.unit,
        );
    }
    println!("\nmeasured / by cost, of random calls as large as layers have them: lowest, of all together, highest");
    let usual = |kernel: u32, seed: u64| cases::random(kernel, seed, cases::Data::Usual, 1);
    let short = |kernel: u32, seed: u64| spidnn_truth::formats::random(kernel, 2 * seed);
    let all: [(Bench, &[u32], &Random); 3] = [
        (Bench::train(), cases::KERNELS, &usual),
        (Bench::rest(), cases::REST, &usual),
        (Bench::formats(), spidnn_truth::formats::KERNELS, &short),
    ];
    for (mut bench, kernels, random) in all {
        for &kernel in kernels {
            let (mut low, mut high, mut measured, mut cost) = (f64::MAX, 0f64, 0, 0);
            let mut name = "";
            for seed in 0..20 {
                let case = random(kernel, seed);
                name = case.call.name();
                let Verdict::Done { run_cycles, .. } = bench.run(&case.call, &mut case.memory.clone()) else {
                    continue;
                };
                let ratio = run_cycles as f64 / case.call.cycles() as f64;
                (low, high) = (low.min(ratio), high.max(ratio));
                (measured, cost) = (measured + run_cycles, cost + case.call.cycles());
            }
            println!("{name:20} {low:>6.3} {:>6.3} {high:>6.3}", measured as f64 / cost as f64);
        }
    }
}
