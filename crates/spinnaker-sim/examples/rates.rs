//! Measures rates of a booted virtual board, for comparison with those of real ones.
//!
//! `cargo run --release -p spinnaker-sim --example rates -- PATH/scamp.boot`

#[path = "../tests/common/mod.rs"]
mod common;

use std::error::Error;

use common::{MS, ask, boot, megabytes_per_second, patch, scp, until_up};
use spinnaker_machine::{ChipXy, Machine};
use spinnaker_sim::cycle::{CycleConfig, CycleMachine};

const READ: u16 = 2;
const WRITE: u16 = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: rates PATH/scamp.boot")?;
    let mut image = std::fs::read(path)?;
    patch(&mut image, 5, 1);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut machine = CycleMachine::new(&Machine::spin5(), &CycleConfig { threads, ..CycleConfig::default() });
    boot(&mut machine, &image);
    if !until_up(&mut machine, 7000) {
        return Err("the board does not come up".into());
    }
    machine.run_for(100 * MS);
    for chip in [ChipXy::new(0, 0), ChipXy::new(1, 1), ChipXy::new(7, 7)] {
        let begin = machine.now_ns();
        ask(&mut machine, scp(chip, 0, 0, [0; 3], &[])).ok_or("no answer")?;
        println!("VER of {chip}: {:.0} us", (machine.now_ns() - begin) as f64 / 1e3);
        for (name, command, data) in [("READ", READ, vec![]), ("WRITE", WRITE, vec![7; 256])] {
            for window in [1, 4, 8] {
                let rate = megabytes_per_second(&mut machine, chip, command, &data, window);
                println!("{name} of 256 bytes, {chip}, {window} at once: {rate:.2} MB/s ({:.1} Mbit/s)", rate * 8.0);
            }
        }
    }
    Ok(())
}
