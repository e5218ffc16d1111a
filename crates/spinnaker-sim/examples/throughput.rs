//! Events per second of the simulation: every core of a SpiNN-5 board moves data in and out, computes, and meets the others
//! of its chip at a barrier.
//!
//! `cargo run --release -p spinnaker-sim --example throughput [ROUNDS [THREADS [WORDS OF A JOB [BYTES OF A TRANSFER]]]]`

use std::time::Instant;

use spinnaker_machine::{ChipXy, Machine, Route, RoutingEntry, SDRAM_USER_BASE};
use spinnaker_sim::{CoreHandle, Direction, RunEnd, SimConfig, Simulator, Transfer};

/// Key of a core's arrival at the barrier, and of the release.
fn key(core: u8, release: bool) -> u32 {
    u32::from(core) << 15 | u32::from(release) << 12
}

async fn program(core: CoreHandle, members: usize, rounds: usize, words: usize, bytes: u32) {
    let leader = core.core() == 1;
    let mut row = Transfer {
        direction: Direction::In,
        sdram: SDRAM_USER_BASE + u32::from(core.core()) * 65536,
        dtcm: 0,
        row_bytes: bytes,
        rows: 1,
        sdram_stride: bytes,
        dtcm_stride: bytes,
        tag: 0,
    };
    core.wait_start().await;
    for _ in 0..rounds {
        row.direction = Direction::In;
        core.charge(60);
        core.dma(row).await;
        core.dma_done(0).await;
        core.charge(60);
        let cycles = 1000 + words as u64 * 4 + u64::from(core.core()) * 13;
        core.compute(cycles, move |dtcm| {
            dtcm[..words].iter_mut().for_each(|word| *word = word.wrapping_mul(3).wrapping_add(1));
        })
        .await;
        core.charge(60);
        row.direction = Direction::Out;
        core.dma(row).await;
        core.dma_done(0).await;
        core.charge(60);
        if leader {
            let mut here = 1;
            while here < members {
                core.event(None).await;
                while core.take().is_some() {
                    here += 1;
                }
            }
            core.send(key(1, true), None).await;
        } else {
            core.send(key(core.core(), false), None).await;
            while core.take().is_none() {
                core.event(Some(core.now_cycles() + 200_000)).await;
            }
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let argument = |n: usize, default: usize| std::env::args().nth(n).map_or(Ok(default), |text| text.parse());
    let (rounds, threads, words) = (argument(1, 2000)?, argument(2, 1)?, argument(3, 16)?);
    let bytes = u32::try_from(argument(4, 2048)?)?;
    let machine = Machine::spin5();
    let chips: Vec<ChipXy> = machine.chips.keys().copied().collect();
    let mut sim = Simulator::new(machine.clone(), SimConfig { threads, ..SimConfig::default() });
    for xy in chips {
        let cores = machine.chips[&xy].cores.clone();
        let others = cores[1..].iter().fold(Route::NONE, |route, &core| route.with_core(core));
        let entries = [
            RoutingEntry { key: key(1, true), mask: 0xFFFF_F000, route: others },
            RoutingEntry { key: 0, mask: 0xFFF0_7000, route: Route::NONE.with_core(1) },
        ];
        sim.load_routes(xy, &entries)?;
        for &core in &cores {
            let members = cores.len();
            sim.load_program(
                xy,
                core,
                Box::new(move |handle| Box::pin(program(handle, members, rounds, words, bytes))),
            )?;
        }
    }
    sim.run(1_000_000_000)?;
    sim.start_all();
    let events = sim.counters().events;
    let start = Instant::now();
    let outcome = sim.run(u64::MAX / 2)?;
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(outcome.end, RunEnd::AllReady, "{:?}", outcome.cores.first());
    let events = sim.counters().events - events;
    println!(
        "{events} events in {seconds:.2} s: {:.1} ns an event, {:.2} million a second; machine time {:.3} s; digest {:016x}",
        seconds * 1e9 / events as f64,
        events as f64 / seconds / 1e6,
        outcome.time_ns as f64 * 1e-9,
        sim.digest()
    );
    println!("{:?}", sim.counters());
    Ok(())
}
