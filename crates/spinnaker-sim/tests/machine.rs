//! The simulated machine against the figures and rules of the hardware.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

use spinnaker_machine::{ChipXy, Link, Machine, Route, RoutingEntry, SDRAM_USER_BASE};
use spinnaker_sim::{
    COUNTER_RESENT, CoreHandle, CoreState, DMA_TAGS, Direction, FAIL_DATA_ABORT, FAIL_DMA, RunEnd, SimConfig, SimError,
    Simulator, Timing, Transfer,
};

const SECOND_NS: u64 = 1_000_000_000;

fn at(x: u8, y: u8) -> ChipXy {
    ChipXy::new(x, y)
}

fn sim(machine: Machine) -> Simulator {
    Simulator::new(machine, SimConfig::default())
}

/// Loads a program; panics where the core is missing.
fn load<F: Future<Output = ()> + 'static>(
    sim: &mut Simulator,
    chip: ChipXy,
    core: u8,
    program: impl FnOnce(CoreHandle) -> F + 'static,
) {
    sim.load_program(chip, core, Box::new(move |core| Box::pin(program(core)))).expect("a core to load");
}

/// Runs until all programs have ended.
fn finish(sim: &mut Simulator) -> u64 {
    let outcome = sim.run(100 * SECOND_NS).expect("run");
    assert_eq!(
        outcome.end,
        RunEnd::AllReady,
        "{:?}",
        outcome.cores.iter().map(ToString::to_string).collect::<Vec<_>>()
    );
    outcome.time_ns
}

/// A list that programs write and the test reads.
type Notes<T> = Rc<RefCell<Vec<T>>>;

fn notes<T>() -> Notes<T> {
    Rc::new(RefCell::new(Vec::new()))
}

/// Keys and payloads that arrive, with the time in cycles, until `count` packets are there.
fn listen(sim: &mut Simulator, chip: ChipXy, core: u8, count: usize) -> Notes<(u32, Option<u32>, u64)> {
    let list = notes();
    let out = Rc::clone(&list);
    load(sim, chip, core, move |core| async move {
        let mut left = count;
        while left > 0 {
            core.event(None).await;
            while let Some(arrival) = core.take() {
                left -= arrival.packets();
                let words = arrival.words.as_ref();
                for i in 0..arrival.packets() {
                    out.borrow_mut().push((arrival.key + i as u32, words.get(i).copied(), core.now_cycles()));
                }
            }
        }
    });
    list
}

fn entry(key: u32, mask: u32, route: Route) -> RoutingEntry {
    RoutingEntry { key, mask, route }
}

fn row(direction: Direction, sdram: u32, dtcm: u32, bytes: u32, tag: u8) -> Transfer {
    Transfer { direction, sdram, dtcm, row_bytes: bytes, rows: 1, sdram_stride: bytes, dtcm_stride: bytes, tag }
}

// ---- routing ----

#[test]
fn a_packet_goes_straight_on_where_no_entry_matches() {
    let mut sim = sim(Machine::rectangle(6, 1).expect("small"));
    sim.load_routes(at(0, 0), &[entry(7, !0, Route::NONE.with_link(Link::E))]).expect("loads");
    sim.load_routes(at(5, 0), &[entry(7, !0, Route::NONE.with_core(3))]).expect("loads");
    let list = listen(&mut sim, at(5, 0), 3, 1);
    let sent = Rc::new(RefCell::new(0));
    let sent_at = Rc::clone(&sent);
    load(&mut sim, at(0, 0), 1, |core| async move {
        *sent_at.borrow_mut() = core.now_cycles();
        core.send(7, None).await;
    });
    finish(&mut sim);
    let list = list.borrow();
    assert_eq!((list.len(), list[0].0, list[0].1), (1, 7, None));
    // Five hops of 0.2 to 0.3 us; sending, the last router and receiving come on top.
    let ns = (list[0].2 - *sent.borrow()) * 5;
    let (least, most) = (5 * 200 + 200, 5 * 300 + 600);
    assert!((least..most).contains(&ns), "{ns} ns");
}

#[test]
fn a_key_without_entry_is_dropped_at_its_source() {
    let mut sim = sim(Machine::spin3());
    load(&mut sim, at(0, 0), 1, |core| async move {
        core.send(1, Some(2)).await;
        core.send_words(0x100, 0, 10).await;
    });
    finish(&mut sim);
    let counters = sim.counters();
    assert_eq!((counters.packets_sent, counters.dropped_no_route, counters.packets_dropped()), (11, 11, 11));
}

#[test]
fn the_first_entry_that_matches_counts_also_within_a_train() {
    let mut sim = sim(Machine::spin3());
    // Keys 4 and 5 have an entry of their own before the one for all sixteen.
    let table = [entry(4, !1, Route::NONE.with_core(3)), entry(0, !15, Route::NONE.with_core(2))];
    sim.load_routes(at(0, 0), &table).expect("loads");
    let main = listen(&mut sim, at(0, 0), 2, 6);
    let own = listen(&mut sim, at(0, 0), 3, 2);
    load(&mut sim, at(0, 0), 1, |core| async move {
        core.write(0, &[10, 11, 12, 13, 14, 15, 16, 17]);
        core.send_words(0, 0, 8).await;
    });
    finish(&mut sim);
    let pairs = |list: &Notes<(u32, Option<u32>, u64)>| {
        list.borrow().iter().map(|&(key, word, _)| (key, word.expect("payload"))).collect::<Vec<_>>()
    };
    assert_eq!(pairs(&main), [(0, 10), (1, 11), (2, 12), (3, 13), (6, 16), (7, 17)]);
    assert_eq!(pairs(&own), [(4, 14), (5, 15)]);
}

#[test]
fn multicast_copies_a_packet_to_cores_and_links_over_the_torus() {
    let mut sim = sim(Machine::boards(3).expect("three boards"));
    let all = Route::NONE.with_core(1).with_core(2);
    // From (0,0) over the edge to the west and the south, and on from the west.
    sim.load_routes(at(0, 0), &[entry(9, !0, all.with_link(Link::W).with_link(Link::S))]).expect("loads");
    sim.load_routes(at(11, 0), &[entry(9, !0, all.with_link(Link::W))]).expect("loads");
    sim.load_routes(at(10, 0), &[entry(9, !0, all)]).expect("loads");
    sim.load_routes(at(0, 11), &[entry(9, !0, all)]).expect("loads");
    let mut lists = Vec::new();
    for chip in [at(0, 0), at(11, 0), at(10, 0), at(0, 11)] {
        for core in [1, 2] {
            lists.push(listen(&mut sim, chip, core, 1));
        }
    }
    load(&mut sim, at(0, 0), 5, |core| async move { core.send(9, Some(77)).await });
    finish(&mut sim);
    assert!(lists.iter().all(|list| list.borrow()[..1].iter().all(|packet| (packet.0, packet.1) == (9, Some(77)))));
    assert_eq!(sim.counters().packets_delivered, 8);
}

#[test]
fn tables_have_an_end() {
    let mut sim = sim(Machine::spin3());
    let entries: Vec<_> = (0..1024).map(|key| entry(key, !0, Route::NONE)).collect();
    assert!(sim.load_routes(at(0, 0), &entries[..1023]).is_ok());
    assert_eq!(
        sim.load_routes(at(0, 0), &entries),
        Err(SimError::TableFull { chip: at(0, 0), entries: 1024, max: 1023 })
    );
}

// ---- links ----

/// Time per packet when many cores send all at once over one link, ns.
fn link_ns(machine: Machine, from: ChipXy, link: Link, payload: bool) -> f64 {
    let to = machine.neighbour(from, link).expect("joined");
    let mut sim = sim(machine);
    let (senders, each) = (6u8, 256usize);
    sim.load_routes(from, &[entry(0, 0, Route::NONE.with_link(link))]).expect("loads");
    // Four receivers, so that none of them is what limits.
    let table: Vec<_> = (0..4).map(|i| entry(i << 8, 3 << 8, Route::NONE.with_core(1 + i as u8))).collect();
    sim.load_routes(to, &table).expect("loads");
    let lists: Vec<_> = (0..4).map(|i| listen(&mut sim, to, 1 + i, usize::from(senders) * each / 4)).collect();
    for core in 1..=senders {
        load(&mut sim, from, core, move |core| async move {
            for i in 0..each as u32 {
                core.send(u32::from(core.core()) << 12 | (i & 3) << 8, payload.then_some(i)).await;
            }
        });
    }
    finish(&mut sim);
    assert_eq!(sim.counters().packets_dropped(), 0);
    let times = || lists.iter().flat_map(|list| list.borrow().iter().map(|packet| packet.2 * 5).collect::<Vec<_>>());
    let (first, last) = (times().min().expect("packets"), times().max().expect("packets"));
    (last - first) as f64 / (f64::from(senders) * each as f64 - 1.0)
}

#[test]
fn links_carry_the_measured_rates() {
    let close = |ns: f64, expected: f64| assert!((ns / expected - 1.0).abs() < 0.05, "{ns} ns, expected {expected}");
    let board = || Machine::boards(3).expect("three boards");
    // 7.2 million short packets a second on a board, 2.8 million between boards; long ones 72/40 of the time.
    close(link_ns(board(), at(1, 1), Link::E, false), 1e3 / 7.2);
    close(link_ns(board(), at(1, 1), Link::E, true), 1e3 / 7.2 * 1.8);
    close(link_ns(board(), at(0, 0), Link::W, false), 1e3 / 2.8);
    close(link_ns(board(), at(0, 0), Link::W, true), 1e3 / 2.8 * 1.8);
}

/// Arrival time of the last packet and the sender's end, both in ns, for 200 words over `hops` links.
fn block_ns(train: bool, hops: u8) -> (u64, u64) {
    let mut sim = sim(Machine::rectangle(8, 1).expect("small"));
    sim.load_routes(at(0, 0), &[entry(0, 0, Route::NONE.with_link(Link::E))]).expect("loads");
    sim.load_routes(at(hops, 0), &[entry(0, 0, Route::NONE.with_core(1))]).expect("loads");
    let list = listen(&mut sim, at(hops, 0), 1, 200);
    let times = notes();
    let out = Rc::clone(&times);
    load(&mut sim, at(0, 0), 1, move |core| async move {
        out.borrow_mut().push(core.now_cycles() * 5);
        if train {
            core.send_words(0, 0, 200).await;
        } else {
            for i in 0..200 {
                core.send(i, Some(0)).await;
            }
        }
        core.settle().await;
        out.borrow_mut().push(core.now_cycles() * 5);
    });
    finish(&mut sim);
    let start = times.borrow()[0];
    let last = list.borrow().iter().map(|packet| packet.2 * 5).max().expect("packets");
    (last - start, times.borrow()[1] - start)
}

#[test]
fn a_train_takes_the_time_of_its_packets() {
    for hops in [1, 3, 7] {
        let (train, single) = (block_ns(true, hops), block_ns(false, hops));
        let close = |a: u64, b: u64| a.abs_diff(b) <= 600;
        assert!(close(train.0, single.0) && close(train.1, single.1), "{hops} hops: {train:?} {single:?}");
        // The link is what limits; the sender feels it.
        assert!(train.1.abs_diff(200 * 250) < 1000, "{train:?}");
    }
}

#[test]
fn senders_that_share_a_link_wait_for_each_other() {
    let mut sim = sim(Machine::rectangle(2, 1).expect("small"));
    sim.load_routes(at(0, 0), &[entry(0, 0, Route::NONE.with_link(Link::E))]).expect("loads");
    let table: Vec<_> = (1..=8u32).map(|i| entry(i << 12, !0xFFF, Route::NONE.with_core(i as u8))).collect();
    sim.load_routes(at(1, 0), &table).expect("loads");
    let ends = notes();
    for core in 1..=8 {
        listen(&mut sim, at(1, 0), core, 128);
        let ends = Rc::clone(&ends);
        load(&mut sim, at(0, 0), core, move |core| async move {
            let start = core.now_cycles();
            core.send_words(u32::from(core.core()) << 12, 0, 128).await;
            ends.borrow_mut().push((core.now_cycles() - start) * 5);
        });
    }
    finish(&mut sim);
    let all_ns = 8 * 128 * 250;
    let last = ends.borrow().iter().max().copied().expect("ends");
    assert!(last.abs_diff(all_ns) < 2000, "{last} ns of {all_ns}");
    assert_eq!(sim.counters().packets_dropped(), 0, "a busy link drops nothing");
}

#[test]
fn a_dead_link_drops_what_is_sent_to_it_after_the_routers_wait() {
    let mut machine = Machine::spin5();
    machine.kill_link(at(1, 1), Link::E).expect("there");
    let mut sim = sim(machine);
    let route = Route::NONE.with_link(Link::E);
    sim.load_routes(at(1, 1), &[entry(1, !0, route), entry(2, !0, Route::NONE.with_core(2))]).expect("loads");
    let list = listen(&mut sim, at(1, 1), 2, 1);
    load(&mut sim, at(1, 1), 1, |core| async move {
        core.write(0, &[1]);
        for _ in 0..3 {
            core.send(1, None).await;
        }
        core.send(2, None).await;
    });
    let start = sim.now_ns();
    finish(&mut sim);
    let counters = sim.counters();
    assert_eq!((counters.dropped_dead_link, counters.packets_dropped(), counters.packets_delivered), (3, 3, 1));
    // The packet behind them waits for three times 240 router cycles.
    let ns = list.borrow()[0].2 * 5 - start;
    assert!((3 * 1800..3 * 1800 + 1500).contains(&ns), "{ns} ns");
}

#[test]
fn packets_to_nowhere_hold_up_their_sender_more_than_others() {
    let mut machine = Machine::spin5();
    machine.kill_link(at(1, 1), Link::E).expect("there");
    let mut sim = sim(machine);
    let table = [entry(0, !0xFF, Route::NONE.with_link(Link::E)), entry(0x1000, !0xFF, Route::NONE.with_core(3))];
    sim.load_routes(at(1, 1), &table).expect("loads");
    let ends = notes();
    let out = Rc::clone(&ends);
    load(&mut sim, at(1, 1), 1, move |core| async move {
        let start = core.now_cycles();
        core.send_words(0, 0, 100).await;
        out.borrow_mut().push((core.now_cycles() - start) * 5);
    });
    load(&mut sim, at(1, 1), 2, |core| async move {
        for i in 0..10 {
            core.send(0x1000 + i, None).await;
        }
    });
    let start = sim.now_ns();
    let list = listen(&mut sim, at(1, 1), 3, 10);
    finish(&mut sim);
    assert!(ends.borrow()[0].abs_diff(100 * 1800) < 1000, "{:?}", ends.borrow());
    assert!(list.borrow().iter().all(|packet| packet.2 * 5 - start < 10_000));
}

#[test]
fn a_stuck_router_makes_its_neighbour_drop() {
    let mut machine = Machine::rectangle(3, 2).expect("small");
    machine.kill_link(at(1, 0), Link::E).expect("there");
    let mut sim = sim(machine);
    let east = Route::NONE.with_link(Link::E);
    sim.load_routes(at(0, 0), &[entry(0x1000, !0xFFF, east)]).expect("loads");
    let table = [entry(0, !0xFFF, east), entry(0x1000, !0xFFF, Route::NONE.with_core(17))];
    sim.load_routes(at(1, 0), &table).expect("loads");
    for core in 1..=6 {
        load(&mut sim, at(1, 0), core, |core| async move {
            for i in 0..20 {
                core.send(i, None).await;
            }
        });
    }
    load(&mut sim, at(0, 0), 1, |core| async move {
        for i in 0..100 {
            core.send(0x1000 + i, None).await;
            core.charge(200);
        }
    });
    load(&mut sim, at(1, 0), 17, |core| async move {
        while core.now_cycles() < 1_000_000 {
            core.event(Some(1_000_000)).await;
            while core.take().is_some() {}
        }
    });
    finish(&mut sim);
    let counters = sim.counters();
    assert_eq!(counters.dropped_dead_link, 120);
    assert!(counters.dropped_blocked > 0 && counters.packets_delivered > 0, "{counters:?}");
    assert_eq!(counters.dropped_blocked + counters.packets_delivered, 100);
}

#[test]
fn a_core_that_takes_nothing_makes_the_network_drop() {
    let mut sim = Simulator::new(Machine::spin3(), SimConfig { receive_queue_packets: 50, ..SimConfig::default() });
    sim.load_routes(at(0, 0), &[entry(0, 0, Route::NONE.with_core(2))]).expect("loads");
    load(&mut sim, at(0, 0), 2, |core| async move { core.compute(1_000_000, |_| {}).await });
    load(&mut sim, at(0, 0), 1, |core| async move {
        for i in 0..60 {
            core.send(i, None).await;
        }
    });
    finish(&mut sim);
    let counters = sim.counters();
    assert_eq!((counters.packets_delivered, counters.dropped_at_core), (50, 10));
}

#[test]
fn losses_have_the_configured_rate_and_do_not_depend_on_trains() {
    let lost = |train: bool, seed: u64, probability: f64| {
        let config = SimConfig { seed, drop_probability: probability, ..SimConfig::default() };
        let mut sim = Simulator::new(Machine::rectangle(2, 1).expect("small"), config);
        sim.load_routes(at(0, 0), &[entry(0, 0, Route::NONE.with_link(Link::E))]).expect("loads");
        sim.load_routes(at(1, 0), &[entry(0, 0, Route::NONE.with_core(1))]).expect("loads");
        let keys = notes();
        let out = Rc::clone(&keys);
        load(&mut sim, at(1, 0), 1, move |core| async move {
            while core.now_cycles() < 2_000_000 {
                core.event(Some(2_000_000)).await;
                while let Some(arrival) = core.take() {
                    out.borrow_mut().extend((0..arrival.packets() as u32).map(|i| {
                        assert_eq!(arrival.words.as_ref()[i as usize], (arrival.key + i) % 100);
                        arrival.key + i
                    }));
                }
            }
        });
        load(&mut sim, at(0, 0), 1, move |core| async move {
            core.write(0, &(0..100).collect::<Vec<_>>());
            for block in 0..200 {
                if train {
                    core.send_words(block * 100, 0, 100).await;
                } else {
                    for i in 0..100 {
                        core.send(block * 100 + i, Some(i)).await;
                    }
                }
            }
        });
        finish(&mut sim);
        let counters = sim.counters();
        assert_eq!(counters.packets_sent, 20_000);
        assert_eq!(counters.packets_delivered + counters.dropped_on_link, 20_000);
        assert_eq!(keys.borrow().len() as u64, counters.packets_delivered);
        keys.take()
    };
    for probability in [0.01, 0.05, 0.3] {
        let arrived = lost(true, 1, probability);
        let expected = 20_000.0 * probability;
        let deviation = (20_000.0 - arrived.len() as f64 - expected).abs() / (expected * (1.0 - probability)).sqrt();
        assert!(deviation < 4.0, "{probability}: {deviation} standard deviations");
        assert_eq!(arrived, lost(false, 1, probability));
        assert_ne!(arrived, lost(true, 2, probability));
    }
    assert_eq!(lost(true, 1, 0.0).len(), 20_000);
}

// ---- DMA ----

/// Time for each of `cores` to read `rows` rows of `bytes`, ns.
fn dma_ns(cores: u8, bytes: u32, rows: u32, stride: u32) -> u64 {
    dma_timed_ns(&Timing::default(), Direction::In, cores, (bytes, rows, stride))
}

/// The same with these times and this direction.
fn dma_timed_ns(timing: &Timing, way: Direction, cores: u8, (bytes, rows, stride): (u32, u32, u32)) -> u64 {
    let mut sim = Simulator::new(Machine::spin3(), SimConfig { timing: *timing, ..SimConfig::default() });
    let ends = notes();
    for core in 1..=cores {
        let ends = Rc::clone(&ends);
        load(&mut sim, at(0, 0), core, move |core| async move {
            let start = core.now_cycles();
            let transfer =
                Transfer { rows, sdram_stride: stride, dtcm_stride: bytes, ..row(way, SDRAM_USER_BASE, 0, bytes, 1) };
            core.dma(transfer).await;
            core.dma_done(1).await;
            ends.borrow_mut().push((core.now_cycles() - start) * 5);
        });
    }
    finish(&mut sim);
    let ends = ends.borrow();
    ends.iter().copied().max().expect("ends")
}

#[test]
fn dma_has_the_published_rates() {
    // To submit it, the controller's latency, and the interrupt at its end.
    let overhead = 8 * 5 + 200 + 25 * 5;
    // Alone: 15 ns a word, and the two-parameter model's 0.15 to 0.25 us.
    assert_eq!(dma_ns(1, 16 << 10, 1, 0), 4096 * 15 + overhead);
    assert_eq!(dma_ns(2, 16 << 10, 1, 0), 4096 * 15 + overhead);
    // 640 MB/s in all: 6.25 ns a word for 4 and for 16 cores.
    let shared = |cores: u64| 4096 * cores * 25 / 4 + overhead;
    assert!(dma_ns(4, 16 << 10, 1, 0).abs_diff(shared(4)) <= 5);
    assert!(dma_ns(16, 16 << 10, 1, 0).abs_diff(shared(16)) <= 5);
    // 444 MB/s to the memory.
    let out_ns = dma_timed_ns(&Timing::default(), Direction::Out, 16, (16 << 10, 1, 0));
    assert!(out_ns.abs_diff(4096 * 16 * 9 + overhead) <= 5);
    // Rows that touch are one.
    assert_eq!(dma_ns(1, 256, 8, 256), 8 * 64 * 15 + overhead);
}

#[test]
fn rows_apart_are_transfers_of_their_own() {
    // The first two are submitted at once, the others by the handler, while the controller works on the row before.
    let around = 2 * 8 * 5 + 25 * 5;
    assert_eq!(dma_ns(1, 1024, 8, 4096), 8 * (200 + 256 * 15) + around);
    assert_eq!(dma_ns(1, 16, 8, 1024), 8 * (200 + 4 * 15) + around);
    // Cores in step wait for the memory together, and for their latencies again.
    assert!(dma_ns(16, 16, 8, 1024).abs_diff(8 * (200 + 16 * 4 * 25 / 4) + around) <= 8);
    // A handler that takes longer than a row takes that long for each, from the first end on.
    let timing = Timing { dma_interrupt_cycles: 86, ..Timing::default() };
    assert_eq!(dma_timed_ns(&timing, Direction::In, 1, (16, 8, 1024)), 2 * 8 * 5 + 200 + 4 * 15 + 8 * 86 * 5);
}

#[test]
fn the_ends_of_rows_take_a_busy_core_their_handlers() {
    let mut sim = sim(Machine::spin3());
    let times = notes();
    let out = Rc::clone(&times);
    load(&mut sim, at(0, 0), 1, move |core| async move {
        let rows = Transfer { rows: 8, sdram_stride: 64, ..row(Direction::In, SDRAM_USER_BASE, 0, 16, 0) };
        core.dma(rows).await;
        core.compute(10_000, |_| ()).await;
        out.borrow_mut().push(core.now_cycles());
    });
    finish(&mut sim);
    assert_eq!(times.take(), [2 * 8 + 10_000 + 8 * 25]);
}

#[test]
fn rows_are_gathered_and_scattered() {
    let mut sim = sim(Machine::spin3());
    let words: Vec<u32> = (0..100).collect();
    sim.write_sdram(at(1, 0), SDRAM_USER_BASE, &words).expect("there");
    load(&mut sim, at(1, 0), 4, |core| async move {
        let gather = Transfer {
            rows: 3,
            sdram_stride: 40,
            dtcm_stride: 12,
            ..row(Direction::In, SDRAM_USER_BASE + 4, 64, 8, 3)
        };
        core.dma(gather).await;
        let mut seen = [9; 8];
        core.read(64, &mut seen);
        assert_eq!(seen, [0; 8], "not there before its time");
        core.dma_done(3).await;
        core.read(64, &mut seen);
        assert_eq!(seen, [1, 2, 0, 11, 12, 0, 21, 22]);
        let scatter = Transfer {
            direction: Direction::Out,
            sdram: SDRAM_USER_BASE + 0x1000,
            sdram_stride: 16,
            dtcm_stride: 12,
            ..gather
        };
        core.dma(scatter).await;
        core.dma_done(3).await;
    });
    finish(&mut sim);
    let out = sim.read_sdram(at(1, 0), SDRAM_USER_BASE + 0x1000, 10).expect("there");
    assert_eq!(out, [1, 2, 0, 0, 11, 12, 0, 0, 21, 22]);
    assert_eq!(sim.counters().dma_bytes, 48);
}

#[test]
fn the_controller_holds_two_transfers() {
    let mut sim = sim(Machine::spin3());
    let times = notes();
    let out = Rc::clone(&times);
    load(&mut sim, at(0, 0), 1, move |core| async move {
        let start = core.now_cycles();
        for tag in 0..3 {
            core.dma(row(Direction::In, SDRAM_USER_BASE, 0, 4000, tag)).await;
            out.borrow_mut().push((core.now_cycles() - start) * 5);
        }
        core.dma_done(2).await;
        out.borrow_mut().push((core.now_cycles() - start) * 5);
    });
    finish(&mut sim);
    let times = times.borrow();
    assert_eq!(times[..2], [40, 80]);
    // The third is taken when the first has ended, 15.2 us after its submission.
    assert!((15_200..15_500).contains(&times[2]), "{times:?}");
    assert!((45_600..46_100).contains(&times[3]), "{times:?}");
}

#[test]
fn transfers_that_the_hardware_would_refuse_stop_the_core() {
    let refused = [
        row(Direction::In, 0, 0, 4, 0),
        row(Direction::In, SDRAM_USER_BASE + 2, 0, 4, 0),
        row(Direction::In, SDRAM_USER_BASE, 65_536 - 4, 8, 0),
        row(Direction::Out, 0x67FF_FFFC, 0, 8, 0),
        row(Direction::Out, SDRAM_USER_BASE, 0, 4, DMA_TAGS as u8),
        Transfer { rows: u32::MAX, dtcm_stride: 0, sdram_stride: 0, ..row(Direction::Out, SDRAM_USER_BASE, 0, 4, 0) },
        Transfer { rows: 3, dtcm_stride: u32::MAX - 3, ..row(Direction::In, SDRAM_USER_BASE, 0, 4, 0) },
    ];
    for transfer in refused {
        let mut sim = sim(Machine::spin3());
        load(&mut sim, at(0, 0), 1, move |core| async move {
            core.dma(transfer).await;
            core.settle().await;
        });
        let outcome = sim.run(SECOND_NS).expect("run");
        assert_eq!(outcome.end, RunEnd::CoreFailed, "{transfer:?}");
        let detail = [transfer.sdram, transfer.dtcm];
        assert_eq!(outcome.cores[0].state, CoreState::Failed { code: FAIL_DMA, detail });
    }
}

// ---- cores ----

#[test]
fn computing_changes_dtcm_and_takes_its_cycles() {
    let mut sim = sim(Machine::spin3());
    let times = notes();
    let out = Rc::clone(&times);
    load(&mut sim, at(0, 0), 1, move |core| async move {
        core.write(8, &[5, 6]);
        let start = core.now_cycles();
        core.charge(100);
        core.compute(1234, |dtcm| dtcm[2] += dtcm[3]).await;
        out.borrow_mut().push(core.now_cycles() - start);
        let mut word = [0];
        core.read(8, &mut word);
        assert_eq!(word, [11]);
        core.count(COUNTER_RESENT, 3);
        core.log("done");
    });
    finish(&mut sim);
    assert_eq!(times.borrow()[..], [1334]);
    assert_eq!(sim.core_log(at(0, 0), 1).expect("loaded"), "done\n");
    assert_eq!(sim.core_busy_ns(at(0, 0), 1).expect("loaded"), 1334 * 5);
    assert_eq!(sim.counters().program[COUNTER_RESENT], 3);
}

#[test]
fn packets_that_arrive_take_time_from_what_a_core_computes() {
    let mut sim = sim(Machine::spin3());
    sim.load_routes(at(0, 0), &[entry(0, 0, Route::NONE.with_core(2))]).expect("loads");
    let times = notes();
    let out = Rc::clone(&times);
    load(&mut sim, at(0, 0), 2, move |core| async move {
        let start = core.now_cycles();
        core.compute(10_000, |_| {}).await;
        out.borrow_mut().push(core.now_cycles() - start);
    });
    load(&mut sim, at(0, 0), 1, |core| async move { core.send_words(0, 0, 20).await });
    finish(&mut sim);
    assert_eq!(times.borrow()[..], [10_000 + 20 * 40]);
}

#[test]
fn a_deadline_wakes_a_core_that_waits_for_packets() {
    let mut sim = sim(Machine::spin3());
    let times = notes();
    let out = Rc::clone(&times);
    load(&mut sim, at(0, 0), 2, move |core| async move {
        let start = core.now_cycles();
        core.event(Some(start + 5000)).await;
        assert!(core.take().is_none());
        out.borrow_mut().push(core.now_cycles() - start);
        core.event(Some(start)).await;
        out.borrow_mut().push(core.now_cycles() - start);
    });
    finish(&mut sim);
    assert_eq!(times.borrow()[..], [5000, 5000]);
}

/// A barrier of all cores of a chip, `rounds` times, each core with work of its own length.
fn barrier(sim: &mut Simulator, chip: ChipXy, rounds: usize) -> Notes<(u8, usize, u64)> {
    let cores = sim.machine().chips[&chip].cores.clone();
    let others = cores[1..].iter().fold(Route::NONE, |route, &core| route.with_core(core));
    let leader = cores[0];
    let table = [entry(0x1000, 0x1000, others), entry(0, 0x1000, Route::NONE.with_core(leader))];
    sim.load_routes(chip, &table).expect("loads");
    let list = notes();
    for &core in &cores {
        let out = Rc::clone(&list);
        let members = cores.len();
        load(sim, chip, core, move |core| async move {
            core.wait_start().await;
            for round in 0..rounds {
                core.compute(200 + u64::from(core.core()) * 37 % 400, |dtcm| dtcm[0] += 1).await;
                out.borrow_mut().push((core.core(), round, core.now_cycles()));
                if core.core() == leader {
                    for _ in 1..members {
                        core.event(None).await;
                        core.take().expect("a packet");
                    }
                    core.send(0x1000, None).await;
                } else {
                    core.send(u32::from(core.core()), None).await;
                    core.event(None).await;
                    core.take().expect("the release");
                }
            }
        });
    }
    list
}

#[test]
fn nobody_leaves_a_barrier_before_everybody_is_there() {
    let mut sim = sim(Machine::spin5());
    let list = barrier(&mut sim, at(2, 2), 20);
    finish(&mut sim);
    assert!(list.borrow().is_empty(), "waits for the signal");
    sim.start_all();
    finish(&mut sim);
    let list = list.borrow();
    assert_eq!(list.len(), 17 * 20);
    for round in 1..20 {
        let times = |round| list.iter().filter(move |entry| entry.1 == round).map(|entry| entry.2);
        // Work of at least 200 cycles lies between a core's release and its next mark.
        let (last, first) = (times(round - 1).max().expect("marks"), times(round).min().expect("marks"));
        assert!(first >= last + 200, "round {round}: {first} {last}");
        assert!(first < last + 800, "a barrier costs about a microsecond: {}", first - last - 200);
    }
}

#[test]
fn a_run_ends_with_the_host_told_and_programs_go_on_at_the_next_start() {
    let mut sim = sim(Machine::spin5());
    load(&mut sim, at(4, 4), 1, |core| async move {
        for _ in 0..3 {
            core.wait_start().await;
            core.compute(20_000, |_| {}).await;
        }
    });
    finish(&mut sim);
    assert_eq!(sim.core_state(at(4, 4), 1), Ok(CoreState::Ready));
    for round in 0..3 {
        sim.start_all();
        let ns = finish(&mut sim);
        // Signal and message are half a round trip each; the signal goes on for four hops.
        assert_eq!(ns, 100_000 + 4 * 500 + 20_000 * 5 + 100_000, "round {round}");
    }
    assert_eq!(sim.core_state(at(4, 4), 1), Ok(CoreState::Exited));
    assert_eq!(sim.core_state(at(4, 4), 2), Ok(CoreState::Idle));
    assert_eq!(sim.core_state(at(7, 0), 2), Err(SimError::NoChip(at(7, 0))));
    assert_eq!(sim.core_state(at(1, 1), 17), Err(SimError::NoCore(at(1, 1), 17)));
}

// ---- faults ----

#[test]
fn a_core_that_dies_is_found_within_a_second_and_named() {
    let mut sim = sim(Machine::spin5());
    barrier(&mut sim, at(3, 3), 1_000_000);
    finish(&mut sim);
    sim.start_all();
    let death = sim.now_ns() + 3_000_000;
    sim.kill_core_at(at(3, 3), 7, death).expect("loaded");
    let outcome = sim.run(100 * SECOND_NS).expect("run");
    assert_eq!(outcome.end, RunEnd::CoreFailed);
    assert_eq!(outcome.cores.len(), 1);
    let report = &outcome.cores[0];
    assert_eq!((report.chip, report.core, report.state), (at(3, 3), 7, CoreState::Dead));
    assert_eq!(report.to_string(), "chip 3,3 core 7: dead");
    assert!(sim.now_ns() - death < SECOND_NS / 50, "found after {} ns", sim.now_ns() - death);
    assert_eq!(sim.core_state(at(3, 3), 7), Ok(CoreState::Dead));
}

#[test]
fn a_death_while_jobs_and_transfers_are_under_way_is_survived() {
    for threads in [1, 2] {
        let mut sim =
            Simulator::new(Machine::spin3(), SimConfig { threads, hand_off_cycles: 0, ..SimConfig::default() });
        for core in 1..=4 {
            load(&mut sim, at(0, 0), core, |core| async move {
                loop {
                    core.dma(row(Direction::In, SDRAM_USER_BASE, 0, 4096, 0)).await;
                    core.dma(row(Direction::Out, SDRAM_USER_BASE + 8192, 8192, 4096, 1)).await;
                    core.compute(3000, |dtcm| dtcm[5000] += 1).await;
                }
            });
            sim.kill_core_at(at(0, 0), core, 100_000 + u64::from(core) * 1000).expect("loaded");
        }
        let outcome = sim.run(SECOND_NS).expect("run");
        assert_eq!((outcome.end, outcome.cores.len()), (RunEnd::CoreFailed, 4));
    }
}

#[test]
fn a_run_time_error_carries_code_detail_and_text() {
    let mut sim = sim(Machine::spin3());
    load(&mut sim, at(1, 1), 3, |core| async move {
        core.log("about to fail");
        core.fail(42, [1, 2]);
        core.settle().await;
        core.event(None).await;
    });
    load(&mut sim, at(1, 1), 4, |core| async move { core.read(65_536, &mut [0]) });
    let outcome = sim.run(SECOND_NS).expect("run");
    assert_eq!(outcome.end, RunEnd::CoreFailed);
    assert_eq!(outcome.cores[0].state, CoreState::Failed { code: 42, detail: [1, 2] });
    assert!(outcome.cores[0].to_string().contains("about to fail"));
    assert_eq!(outcome.cores[1].state, CoreState::Failed { code: FAIL_DATA_ABORT, detail: [65_536, 1] });
    assert!(outcome.time_ns <= 10_100_000);
}

#[test]
fn a_wait_that_never_ends_is_told_from_a_long_run() {
    let mut sim = sim(Machine::spin3());
    load(&mut sim, at(0, 0), 1, |core| async move { core.event(None).await });
    let outcome = sim.run(SECOND_NS).expect("run");
    assert_eq!(outcome.end, RunEnd::Stalled);
    assert_eq!(outcome.cores[0].to_string(), "chip 0,0 core 1: running, waits for a packet");
    let mut sim = self::sim(Machine::spin3());
    load(&mut sim, at(0, 0), 1, |core| async move { core.compute(1_000_000_000, |_| {}).await });
    let outcome = sim.run(SECOND_NS).expect("run");
    assert_eq!((outcome.end, outcome.time_ns), (RunEnd::LimitReached, SECOND_NS));
}

#[test]
fn a_stopped_machine_takes_new_programs_and_keeps_its_sdram() {
    for threads in [1, 2] {
        let config = SimConfig { threads, hand_off_cycles: 0, ..SimConfig::default() };
        let mut sim = Simulator::new(Machine::spin3(), config);
        barrier(&mut sim, at(0, 0), 1_000_000);
        sim.write_sdram(at(0, 0), SDRAM_USER_BASE, &[5]).expect("there");
        finish(&mut sim);
        sim.start_all();
        sim.kill_core_at(at(0, 0), 3, sim.now_ns() + 1_000_000).expect("loaded");
        assert_eq!(sim.run(SECOND_NS).expect("run").end, RunEnd::CoreFailed);
        sim.stop_all();
        assert_eq!(sim.core_state(at(0, 0), 1), Ok(CoreState::Idle));
        // The dead core stays dead; the others work again.
        assert_eq!(sim.core_state(at(0, 0), 3), Err(SimError::NoCore(at(0, 0), 3)));
        let put = |sim: &mut Simulator, core| sim.load_program(at(0, 0), core, Box::new(|_| Box::pin(async {})));
        assert_eq!(put(&mut sim, 3), Err(SimError::NoCore(at(0, 0), 3)));
        let seen = notes();
        for core in [1, 2, 4] {
            let out = Rc::clone(&seen);
            load(&mut sim, at(0, 0), core, move |core| async move {
                core.compute(10_000, |dtcm| dtcm[0] += 1).await;
                core.dma(row(Direction::In, SDRAM_USER_BASE, 4, 4, 0)).await;
                core.dma_done(0).await;
                let mut words = [0; 2];
                core.read(0, &mut words);
                out.borrow_mut().push(words);
            });
        }
        finish(&mut sim);
        assert_eq!(seen.take(), [[1, 5]; 3]);
    }
}

#[test]
fn programs_go_only_where_they_can() {
    let mut machine = Machine::spin3();
    machine.kill_core(at(0, 0), 5).expect("there");
    let mut sim = sim(machine);
    let mut put = |chip, core| sim.load_program(chip, core, Box::new(|_| Box::pin(async {})));
    assert_eq!(put(at(0, 0), 5), Err(SimError::NoCore(at(0, 0), 5)));
    assert_eq!(put(at(0, 0), 18), Err(SimError::NoCore(at(0, 0), 18)));
    assert_eq!(put(at(2, 0), 1), Err(SimError::NoChip(at(2, 0))));
    assert_eq!(put(at(0, 0), 1), Ok(()));
    assert_eq!(put(at(0, 0), 1), Err(SimError::Loaded(at(0, 0), 1)));
}

// ---- the host ----

#[test]
fn the_host_link_has_its_bandwidth() {
    let time = |config: SimConfig, read: bool| {
        let mut sim = Simulator::new(Machine::spin5(), config);
        let words = vec![7; 1 << 18];
        sim.write_sdram(at(3, 4), SDRAM_USER_BASE, &words).expect("there");
        let start = sim.now_ns();
        if read {
            assert_eq!(sim.read_sdram(at(3, 4), SDRAM_USER_BASE, words.len()).expect("there"), words);
        }
        (sim.now_ns() - if read { start } else { 0 }) as f64 * 1e-9
    };
    let base = SimConfig::default();
    let megabytes = 4.0 * f64::from(1 << 18) / 1e6;
    // 9.2 MB/s to the board, 5 MB/s from it.
    assert!((megabytes / time(base.clone(), false) - 9.2).abs() < 0.1);
    assert!((megabytes / time(base.clone(), true) - 5.0).abs() < 0.1);
    let fast = time(SimConfig { host_mbps: 1000.0, ..base.clone() }, false);
    assert!((megabytes / fast - 92.0).abs() < 2.0, "{}", megabytes / fast);
    let lossy = SimConfig { host_drop_probability: 0.05, ..base.clone() };
    let slowdown = time(lossy.clone(), false) / time(base.clone(), false);
    assert!((1.05..2.0).contains(&slowdown), "{slowdown}");
    assert_eq!(time(lossy.clone(), true), time(lossy, true), "the same losses again");
    let mut sim = Simulator::new(Machine::spin5(), SimConfig { host_drop_probability: 0.999, ..base });
    let error = sim.write_sdram(at(0, 0), SDRAM_USER_BASE, &[0; 6400]).expect_err("nothing comes through");
    assert!(matches!(error, SimError::HostTimeout(..)), "{error}");
    assert!(matches!(sim.read_sdram(at(0, 0), 0x1000, 1), Err(SimError::Address { .. })));
}

#[test]
fn background_writes_overlap_a_run() {
    let mut sim = sim(Machine::spin5());
    load(&mut sim, at(2, 2), 1, |core| async move {
        core.wait_start().await;
        core.compute(2_000_000, |_| {}).await;
    });
    finish(&mut sim);
    // 46,080 bytes: 5 ms of the link, half of the run.
    let transfer = sim.queue_write(at(2, 2), SDRAM_USER_BASE, vec![3; 11_520]).expect("there");
    let second = sim.queue_write(at(2, 3), SDRAM_USER_BASE, vec![4; 23_040]).expect("there");
    sim.start_all();
    let ns = finish(&mut sim);
    assert!((10_000_000..10_500_000).contains(&ns), "{ns} ns");
    assert!(sim.transfer_done(transfer) && !sim.transfer_done(second));
    sim.wait_transfers();
    assert!(sim.transfers_done());
    assert!(sim.now_ns() > 15_000_000);
    assert_eq!(sim.read_sdram(at(2, 3), SDRAM_USER_BASE, 1).expect("there"), [4]);
    assert_eq!(sim.counters().host_bytes, 4 * (11_520 + 23_040 + 1));
}

#[test]
fn energy_follows_the_published_model() {
    let mut sim = sim(Machine::spin5());
    load(&mut sim, at(0, 0), 1, |core| async move { core.compute(200_000_000, |_| {}).await });
    finish(&mut sim);
    let energy = sim.energy();
    assert!((energy.joules - (26.84 + 0.034)).abs() < 0.01, "{energy:?}");
    assert!(energy.model.contains("26.84 W"));
}

// ---- determinism ----

/// A program with everything in it, on every core of a board; gives digest, time and a checksum of SDRAM.
fn mixed(threads: usize, seed: u64) -> (u64, u64, u64) {
    let config = SimConfig { threads, seed, drop_probability: 0.05, hand_off_cycles: 1000, ..SimConfig::default() };
    let machine = Machine::rectangle(4, 4).expect("small");
    let mut sim = Simulator::new(machine.clone(), config);
    for (&chip, found) in &machine.chips {
        let number = u32::from(chip.x) << 4 | u32::from(chip.y);
        // Each chip sends east (at the edge: to itself); core j to core j.
        let east = machine.neighbour(chip, Link::E);
        let mut table = Vec::new();
        for &core in &found.cores {
            let key = number << 20 | u32::from(core) << 15;
            let own = Route::NONE.with_core(core);
            table.push(entry(key, !0x7FFF, east.map_or(own, |_| Route::NONE.with_link(Link::E))));
            if chip.x > 0 {
                let key = (number - 16) << 20 | u32::from(core) << 15;
                table.push(entry(key, !0x7FFF, own));
            }
        }
        sim.load_routes(chip, &table).expect("loads");
        for &core in &found.cores {
            load(&mut sim, chip, core, move |core| async move {
                let key = number << 20 | u32::from(core.core()) << 15;
                let sdram = SDRAM_USER_BASE + u32::from(core.core()) * 8192;
                core.wait_start().await;
                for round in 0..12u32 {
                    core.dma(row(Direction::In, sdram, 0, 2048, 0)).await;
                    core.dma(row(Direction::In, sdram + 2048, 4096, 512, 1)).await;
                    core.dma_done(0).await;
                    // The second transfer ends while the job has DTCM.
                    let core_number = u32::from(core.core());
                    core.compute(2000 + u64::from(core_number) * 31, move |dtcm| {
                        for i in 0..512 {
                            dtcm[i] = dtcm[i].rotate_left(3) ^ (i as u32 * core_number + round);
                        }
                    })
                    .await;
                    core.dma_done(1).await;
                    core.send_words(key, 0, 40).await;
                    let deadline = core.now_cycles() + 20_000;
                    while core.now_cycles() < deadline {
                        core.event(Some(deadline)).await;
                        while let Some(arrival) = core.take() {
                            let words = arrival.words.as_ref();
                            core.write(8192 + (arrival.key & 0xFFF) * 4, words);
                            core.charge(10 * words.len() as u64);
                        }
                    }
                    core.compute(500, |dtcm| (0..64).for_each(|i| dtcm[i] ^= dtcm[2048 + i] ^ dtcm[1024 + i])).await;
                    core.dma(row(Direction::Out, sdram, 0, 2048, 2)).await;
                    core.dma(row(Direction::Out, sdram + 2048, 1024, 512, 2)).await;
                    core.dma_done(2).await;
                }
            });
        }
    }
    finish(&mut sim);
    sim.start_all();
    finish(&mut sim);
    let mut sum = 0u64;
    for &chip in machine.chips.keys() {
        for word in sim.read_sdram(chip, SDRAM_USER_BASE, 18 * 2048).expect("there") {
            sum = sum.wrapping_mul(31).wrapping_add(u64::from(word));
        }
    }
    assert!(sim.counters().dropped_on_link > 0);
    (sim.digest(), sim.now_ns(), sum)
}

#[test]
fn runs_depend_on_the_seed_and_never_on_host_threads() {
    let one = mixed(1, 5);
    assert_eq!(mixed(1, 5), one);
    assert_eq!(mixed(2, 5), one);
    assert_eq!(mixed(4, 5), one);
    let other = mixed(2, 6);
    assert_ne!((other.0, other.2), (one.0, one.2));
}

#[test]
fn a_locator_says_how_to_simulate() {
    let text = "virtual:spin3?seed=3&drop=0.25&hostdrop=0.5&host_mbps=10&threads=2";
    let locator: spinnaker_machine::Locator = text.parse().expect("valid");
    let spinnaker_machine::Locator::Virtual(found) = &locator else { panic!("virtual") };
    let config = SimConfig::from(found);
    let expected = SimConfig {
        seed: 3,
        drop_probability: 0.25,
        host_drop_probability: 0.5,
        host_mbps: 10.0,
        threads: 2,
        ..SimConfig::default()
    };
    assert_eq!(config, expected);
}

#[test]
fn times_can_be_set() {
    let timing = Timing { dma_setup_ns: 1000, ..Timing::default() };
    let mut sim = Simulator::new(Machine::spin3(), SimConfig { timing, ..SimConfig::default() });
    load(&mut sim, at(0, 0), 1, |core| async move {
        core.dma(row(Direction::In, SDRAM_USER_BASE, 0, 4, 0)).await;
        core.dma_done(0).await;
    });
    assert_eq!(finish(&mut sim), 40 + 1000 + 15 + 125 + 100_000);
}
