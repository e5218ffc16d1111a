//! Block streams between two neighbouring chips that lose packets: whether every word arrives, how many packets were lost, and how long
//! it took.
//!
//! `cargo run --release -p spidnn --example stream_losses -- 10000000 0.02 cycle` (packets, probability of a loss, `cycle` or `fast`);
//! `cycle` needs the official boot image: see `spidnn::boot_image`.

use std::time::Instant;

use spidnn::VirtualBoard;
use spidnn::board::Board;
use spinnaker_machine::Machine;
use spinnaker_sim::SimConfig;
use spinnaker_sim::cycle::CycleConfig;

#[path = "../tests/lists/mod.rs"]
mod lists;

/// Cores of each chip, and turns: in each, every word goes up and comes down.
const CORES: u8 = 4;
const TURNS: u32 = 100;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().ok_or(format!("missing: {what}"));
    let packets: u32 = next("packets")?.parse()?;
    let loss: f64 = next("probability of a loss")?.parse()?;
    let words = packets.div_ceil(2 * TURNS * u32::from(CORES));
    let mut board: Box<dyn Board> = match next("cycle or fast")?.as_str() {
        "cycle" => {
            let packet_losses_per_65536 = (loss * 65_536.0) as u16;
            Box::new(lists::cycle_board(&CycleConfig { packet_losses_per_65536, ..CycleConfig::default() })?)
        }
        "fast" => {
            let config = SimConfig { drop_probability: loss, ..SimConfig::default() };
            Box::new(VirtualBoard::with_config(Machine::spin3(), config))
        }
        other => return Err(format!("no fidelity `{other}`").into()),
    };
    let began = Instant::now();
    let (cycles, wrong) = lists::exchange(&mut *board, CORES, words, TURNS)?;
    let all = f64::from(words) * f64::from(2 * TURNS * u32::from(CORES));
    println!(
        "{all} packets of data in {:.3} s of the machine, {:.1} s of the host",
        cycles / 200e6,
        began.elapsed().as_secs_f64()
    );
    println!("{:.3} million packets a second, {} sent again", all / cycles * 200.0, board.counters().packets_resent);
    println!("{wrong} words of {} are wrong", 2 * words * u32::from(CORES));
    if wrong == 0 { Ok(()) } else { Err("data were lost".into()) }
}
