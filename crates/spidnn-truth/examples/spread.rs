//! Prints, for every kernel, how far the cost table is from the instruction-level core, call by call, the worst kernel first:
//! `cargo run --release -p spidnn-truth --example spread [CALLS] [KERNEL]`. With the name of a kernel, each of its calls.

use spidnn_truth::cases::{self, Case, Data};
use spidnn_truth::{Bench, Verdict, formats, layers};

/// What is known of some calls of one kernel.
struct Spread {
    name: &'static str,
    image: &'static str,
    sizes: &'static str,
    /// Measured cycles over those of the cost table: lowest, of all together, highest.
    ratios: [f64; 3],
    /// Largest difference in cycles beyond a tenth.
    beyond: i64,
}

impl Spread {
    fn worst(&self) -> f64 {
        self.ratios[2].max(1.0 / self.ratios[0])
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let calls = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(40);
    let kernel = arguments.next();
    let mut spreads = Vec::new();
    let images = [
        ("train", Bench::train(), cases::KERNELS),
        ("rest", Bench::rest(), cases::REST),
        ("formats", Bench::formats(), formats::KERNELS),
    ];
    for (image, mut bench, kernels) in images {
        for &number in kernels {
            for sizes in ["any", "layer"] {
                let case = |seed: u64| match (image, sizes) {
                    ("rest", "any") => cases::random_of_all(number, seed, Data::Usual, 0),
                    ("rest", _) => layers::random_of_rest(number, seed),
                    ("formats", "any") => formats::random(number, 2 * seed),
                    (_, "any") => cases::random(number, seed, Data::Usual, 0),
                    _ => layers::random(number, seed),
                };
                spreads.extend(spread(&mut bench, image, sizes, (0..calls).map(case), kernel.as_deref()));
            }
        }
    }
    spreads.sort_by(|a, b| b.worst().total_cmp(&a.worst()));
    println!(
        "{:22} {:8} {:6} {:>7} {:>7} {:>7} {:>8}",
        "kernel", "image", "sizes", "lowest", "all", "highest", "beyond"
    );
    for spread in spreads {
        let Spread { name, image, sizes, ratios: [low, all, high], beyond } = spread;
        println!("{name:22} {image:8} {sizes:6} {low:>7.3} {all:>7.3} {high:>7.3} {beyond:>8}");
    }
}

fn spread(
    bench: &mut Bench,
    image: &'static str,
    sizes: &'static str,
    cases: impl Iterator<Item = Case>,
    kernel: Option<&str>,
) -> Option<Spread> {
    let (mut low, mut high, mut measured, mut cost, mut beyond) = (f64::MAX, 0f64, 0, 0, 0);
    let mut name = "";
    for case in cases {
        name = case.call.name();
        if kernel.is_some_and(|kernel| kernel != name && kernel != "all") {
            return None;
        }
        let Verdict::Done { check_cycles, run_cycles } = bench.run(&case.call, &mut case.memory.clone()) else {
            continue;
        };
        let by_table = case.call.cycles();
        if kernel.is_some() {
            println!("{image}\t{sizes}\t{run_cycles}\t{by_table}\t{check_cycles}\t{:?}", case.call);
        }
        let ratio = run_cycles as f64 / by_table as f64;
        (low, high) = (low.min(ratio), high.max(ratio));
        (measured, cost) = (measured + run_cycles, cost + by_table);
        beyond = beyond.max((run_cycles as i64 - by_table as i64).abs() - by_table as i64 / 10);
    }
    (cost > 0).then(|| Spread { name, image, sizes, ratios: [low, measured as f64 / cost as f64, high], beyond })
}
