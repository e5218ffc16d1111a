//! Prints what kernels take on the instruction-level core beside what the cost table says:
//! `cargo run --release -p spidnn-truth --example kernels`.

use spidnn_truth::{Bench, Verdict, cases};

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
}
