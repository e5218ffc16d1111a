//! Random programs on a small machine: packets are neither lost without a count nor made up, and neither host threads nor
//! the size of hand-overs change anything.

use proptest::prelude::*;
use spinnaker_machine::{ChipXy, Link, Machine, Route, RoutingEntry, SDRAM_USER_BASE};
use spinnaker_sim::{CoreHandle, Counters, Direction, RunEnd, SimConfig, Simulator, Transfer};

#[derive(Debug, Clone)]
enum Step {
    Charge(u64),
    Compute(u64, u32),
    Dma { out: bool, sdram: u32, dtcm: u32, words: u32, rows: u32, tag: u8 },
    Wait(u8),
    Send { to: u32, payload: bool },
    SendWords { to: u32, count: u32 },
    Listen(u64),
}

const CHIPS: u32 = 3;
const CORES: u32 = 3;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u64..500).prop_map(Step::Charge),
        (0u64..3000, any::<u32>()).prop_map(|(cycles, seed)| Step::Compute(cycles, seed)),
        (any::<bool>(), 0u32..64, 0u32..64, 0u32..40, 1u32..4, 0u8..4).prop_map(
            |(out, sdram, dtcm, words, rows, tag)| Step::Dma {
                out,
                sdram: sdram * 64,
                dtcm: dtcm * 64,
                words,
                rows,
                tag
            }
        ),
        (0u8..4).prop_map(Step::Wait),
        (0..CHIPS * CORES, any::<bool>()).prop_map(|(to, payload)| Step::Send { to, payload }),
        (0..CHIPS * CORES, 1u32..60).prop_map(|(to, count)| Step::SendWords { to, count }),
        (1u64..3000).prop_map(Step::Listen),
    ]
}

async fn program(core: CoreHandle, steps: Vec<Step>) {
    core.wait_start().await;
    for step in steps {
        match step {
            Step::Charge(cycles) => core.charge(cycles),
            Step::Compute(cycles, seed) => {
                core.compute(cycles, move |dtcm| {
                    for (i, word) in dtcm[..1024].iter_mut().enumerate() {
                        *word = word.rotate_left(1) ^ seed.wrapping_mul(i as u32 | 1);
                    }
                })
                .await;
            }
            Step::Dma { out, sdram, dtcm, words, rows, tag } => {
                let direction = if out { Direction::Out } else { Direction::In };
                let sdram = SDRAM_USER_BASE + u32::from(core.core()) * 8192 + sdram;
                let row_bytes = words * 4;
                core.dma(Transfer {
                    direction,
                    sdram,
                    dtcm,
                    row_bytes,
                    rows,
                    sdram_stride: 256,
                    dtcm_stride: 192,
                    tag,
                })
                .await;
            }
            Step::Wait(tag) => core.dma_done(tag).await,
            Step::Send { to, payload } => core.send(to << 12, payload.then_some(7)).await,
            Step::SendWords { to, count } => core.send_words(to << 12 | 1, 256, count).await,
            Step::Listen(cycles) => {
                let deadline = core.now_cycles() + cycles;
                while core.now_cycles() < deadline {
                    core.event(Some(deadline)).await;
                    while let Some(arrival) = core.take() {
                        core.write(8192 + (arrival.key & 0xFF) * 4, arrival.words.as_ref());
                        core.charge(20);
                    }
                }
            }
        }
    }
    for tag in 0..4 {
        core.dma_done(tag).await;
    }
    core.settle().await;
}

fn run(programs: &[Vec<Step>], config: SimConfig) -> (u64, Vec<u32>, Counters) {
    let mut sim = Simulator::new(Machine::rectangle(CHIPS as u16, 1).expect("small"), config);
    let chips: Vec<ChipXy> = (0..CHIPS as u8).map(|x| ChipXy::new(x, 0)).collect();
    for (x, &chip) in (0..).zip(&chips) {
        let entries: Vec<RoutingEntry> = (0..CHIPS * CORES)
            .map(|to| {
                let route = match (to / CORES).cmp(&x) {
                    std::cmp::Ordering::Less => Route::NONE.with_link(Link::W),
                    std::cmp::Ordering::Equal => Route::NONE.with_core((to % CORES) as u8 + 1),
                    std::cmp::Ordering::Greater => Route::NONE.with_link(Link::E),
                };
                RoutingEntry { key: to << 12, mask: !0xFFF, route }
            })
            .collect();
        sim.load_routes(chip, &entries).expect("loads");
    }
    for (i, steps) in programs.iter().enumerate() {
        let steps = steps.clone();
        let (chip, core) = (chips[i / CORES as usize], (i % CORES as usize) as u8 + 1);
        sim.load_program(chip, core, Box::new(move |core| Box::pin(program(core, steps)))).expect("loads");
    }
    for _ in 0..2 {
        let outcome = sim.run(1_000_000_000).expect("runs");
        assert_eq!(outcome.end, RunEnd::AllReady, "{:?}", outcome.cores);
        sim.start_all();
    }
    // What is under way arrives, or is dropped because nobody is there any more.
    sim.pass_ns(10_000_000);
    let mut memory = Vec::new();
    for &chip in &chips {
        memory.extend(sim.read_sdram(chip, SDRAM_USER_BASE, 8192).expect("there"));
    }
    (sim.digest(), memory, sim.counters())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn every_packet_is_accounted_for_and_threads_change_nothing(
        programs in prop::collection::vec(prop::collection::vec(step(), 0..25), (CHIPS * CORES) as usize),
        seed: u64,
        drop in prop_oneof![Just(0.0), Just(0.2)],
        receive_queue_packets in prop_oneof![Just(10usize), Just(2048)],
    ) {
        let config = SimConfig { seed, drop_probability: drop, receive_queue_packets, ..SimConfig::default() };
        let one = run(&programs, config.clone());
        let counters = one.2;
        prop_assert_eq!(counters.packets_sent, counters.packets_delivered + counters.packets_dropped());
        let three = run(&programs, SimConfig { threads: 3, hand_off_cycles: 0, ..config });
        prop_assert_eq!(one, three);
    }
}
