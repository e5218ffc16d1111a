//! Barriers and exchanges over a tree of chips, on a network that loses, doubles and reorders packets: the result has the
//! same bits as on a network that does not.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use spidnn_core::command::{Command, EXCHANGE_SCRATCH_BYTES, Exchange, Item, Step, When};
use spidnn_core::program::{CoreConfig, CoreImage, RunBlock, barrier};
use spidnn_core::{Arrival, Core, Counter, Direction, Transfer, kind};
use spidnn_kernels::KernelCall;

const SDRAM: u32 = 0x6024_0000;
const VECTOR: u32 = SDRAM + 0x10_0000;
const RUN_BLOCK: u32 = SDRAM + 0x20_0000;

/// xorshift: the same faults for the same seed.
struct Random(u64);
impl Random {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

struct World {
    now: u64,
    random: Random,
    loss: f64,
    duplication: f64,
    parents: Vec<Option<usize>>,
    cores: usize,
    /// Packets on their way: time, order, to (chip, slot), key, payload.
    flying: BTreeMap<(u64, u64), (usize, u32, Option<u32>)>,
    order: u64,
    inbox: Vec<VecDeque<(u32, Option<u32>)>>,
    dtcm: Vec<Vec<u32>>,
    sdram: Vec<BTreeMap<u32, u32>>,
    local: Vec<u64>,
    deadlines: Vec<Option<u64>>,
    runs: Vec<u32>,
    finished: Vec<bool>,
    failed: Vec<Option<(u32, [u32; 2])>>,
    resent: u64,
}

impl World {
    fn targets(&self, key: u32) -> Vec<usize> {
        let (chip, slot) = ((key >> 20) as usize, (key >> 15 & 31) as usize - 1);
        let at = |c: usize, s: usize| c * self.cores + s;
        match key >> 12 & 7 {
            kind::ARRIVE => vec![at(chip, slot)],
            kind::RELEASE => (0..self.cores).map(|s| at(chip, s)).collect(),
            kind::UP_DATA | kind::UP_CONTROL => self.parents[chip].map(|p| at(p, slot)).into_iter().collect(),
            _ => (0..self.parents.len()).filter(|&c| self.parents[c] == Some(chip)).map(|c| at(c, slot)).collect(),
        }
    }

    fn send(&mut self, from: usize, key: u32, payload: Option<u32>) {
        let time = self.local[from].max(self.now);
        self.local[from] = time + 50;
        for to in self.targets(key) {
            let mut copies = 1;
            if self.random.next() < self.loss {
                copies = 0;
            } else if self.random.next() < self.duplication {
                copies = 2;
            }
            for _ in 0..copies {
                let late = if self.duplication > 0.0 { (self.random.next() * 900.0) as u64 } else { 0 };
                self.order += 1;
                self.flying.insert((time + 100 + late, self.order), (to, key, payload));
            }
        }
    }
}

struct Mock {
    world: Rc<RefCell<World>>,
    me: usize,
}

impl Mock {
    fn chip(&self) -> usize {
        self.me / self.world.borrow().cores
    }
    /// Waits until simulated time has caught up with what the core has used.
    async fn settle(&self) {
        poll_fn(|_| {
            let mut w = self.world.borrow_mut();
            let until = w.local[self.me];
            if w.now >= until {
                w.deadlines[self.me] = None;
                return Poll::Ready(());
            }
            w.deadlines[self.me] = Some(until);
            Poll::Pending
        })
        .await;
    }
}

impl Core for Mock {
    type Words = Vec<u32>;
    type Segment = Vec<u32>;
    fn now_cycles(&self) -> u64 {
        let w = self.world.borrow();
        w.now.max(w.local[self.me])
    }
    fn charge(&self, cycles: u32) {
        let mut w = self.world.borrow_mut();
        w.local[self.me] = w.local[self.me].max(w.now) + u64::from(cycles);
    }
    fn read(&self, dtcm: u32, out: &mut [u32]) {
        let at = dtcm as usize / 4;
        out.copy_from_slice(&self.world.borrow().dtcm[self.me][at..at + out.len()]);
    }
    fn segment(&self, dtcm: u32, words: u32) -> Vec<u32> {
        let mut segment = vec![0; words as usize];
        self.read(dtcm, &mut segment);
        segment
    }
    fn write(&self, dtcm: u32, words: &[u32]) {
        let at = dtcm as usize / 4;
        self.world.borrow_mut().dtcm[self.me][at..at + words.len()].copy_from_slice(words);
    }
    async fn dma(&self, t: Transfer) {
        let chip = self.chip();
        for row in 0..t.rows {
            for i in 0..t.row_bytes / 4 {
                let s = t.sdram + row * t.sdram_stride + i * 4;
                let d = (t.dtcm + row * t.dtcm_stride) as usize / 4 + i as usize;
                let w = &mut *self.world.borrow_mut();
                match t.direction {
                    Direction::In => w.dtcm[self.me][d] = w.sdram[chip].get(&s).copied().unwrap_or(0),
                    Direction::Out => {
                        w.sdram[chip].insert(s, w.dtcm[self.me][d]);
                    }
                }
            }
        }
    }
    async fn dma_done(&self, _: u8) {
        self.charge(100);
        self.settle().await;
    }
    async fn kernel(&self, call: &KernelCall) {
        let w = &mut *self.world.borrow_mut();
        let d = &mut w.dtcm[self.me];
        match call {
            KernelCall::Map2(k) => {
                assert_eq!(k.op, 0);
                for i in 0..k.count as usize {
                    let (a, b) = (d[k.a as usize / 4 + i], d[k.b as usize / 4 + i]);
                    d[k.out as usize / 4 + i] = (f32::from_bits(a) + f32::from_bits(b)).to_bits();
                }
            }
            KernelCall::CopyRows(k) => {
                let from = k.src as usize / 4;
                d.copy_within(from..from + k.count as usize, k.dst as usize / 4);
            }
            other => panic!("{} is not used here", other.name()),
        }
    }
    async fn send(&self, key: u32, payload: Option<u32>) {
        self.world.borrow_mut().send(self.me, key, payload);
        self.settle().await;
    }
    async fn send_words(&self, key: u32, dtcm: u32, count: u32, _: u32) {
        for i in 0..count {
            let payload = self.world.borrow().dtcm[self.me][(dtcm / 4 + i) as usize];
            self.world.borrow_mut().send(self.me, key + i, Some(payload));
        }
        self.settle().await;
    }
    fn take(&self) -> Option<Arrival<Vec<u32>>> {
        let (key, payload) = self.world.borrow_mut().inbox[self.me].pop_front()?;
        Some(Arrival { key, words: payload.into_iter().collect() })
    }
    async fn event(&self, deadline: Option<u64>) {
        self.settle().await;
        poll_fn(|_| {
            let mut w = self.world.borrow_mut();
            if !w.inbox[self.me].is_empty() || deadline.is_some_and(|d| w.now >= d) {
                w.deadlines[self.me] = None;
                return Poll::Ready(());
            }
            w.deadlines[self.me] = deadline;
            Poll::Pending
        })
        .await;
    }
    async fn wait_start(&self) -> bool {
        self.settle().await;
        poll_fn(|_| {
            let mut w = self.world.borrow_mut();
            if !w.inbox[self.me].is_empty() {
                return Poll::Ready(false);
            }
            if w.runs[self.me] == 0 {
                w.finished[self.me] = true;
                return Poll::Pending;
            }
            w.runs[self.me] -= 1;
            Poll::Ready(true)
        })
        .await
    }
    fn fail(&self, code: u32, detail: [u32; 2]) {
        self.world.borrow_mut().failed[self.me] = Some((code, detail));
    }
    fn count(&self, counter: Counter, n: u32) {
        if counter == Counter::PacketsResent {
            self.world.borrow_mut().resent += u64::from(n);
        }
    }
    fn log(&self, _: &str) {}
}

struct Outcome {
    /// The vector of each chip.
    vectors: Vec<Vec<u32>>,
    cycles: u64,
    resent: u64,
}

fn value(chip: usize, i: u32) -> f32 {
    // Numbers whose sum depends on the order of the additions.
    ((chip as f32 + 1.3) * 0.7).powi(7) / (i as f32 + 1.1)
        * if (chip + i as usize).is_multiple_of(2) { 1.0 } else { -1.0 }
}

/// Every core of every chip: barrier, sum up, copy down, barrier; twice.
fn exchange(parents: &[Option<usize>], cores: usize, words: u32, loss: f64, duplication: f64, seed: u64) -> Outcome {
    let chips = parents.len();
    let total = chips * cores;
    let world = Rc::new(RefCell::new(World {
        now: 0,
        random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
        loss,
        duplication,
        parents: parents.to_vec(),
        cores,
        flying: BTreeMap::new(),
        order: 0,
        inbox: vec![VecDeque::new(); total],
        dtcm: vec![vec![0; 16384]; total],
        sdram: vec![BTreeMap::new(); chips],
        local: vec![0; total],
        deadlines: vec![None; total],
        runs: vec![2; total],
        finished: vec![false; total],
        failed: vec![None; total],
        resent: 0,
    }));
    let key = |chip: usize, slot: usize| (chip as u32) << 20 | (slot as u32 + 1) << 15;
    let step = |command| Item::Do(Step { command, when: When::Always, patches: Vec::new() });
    let mut tasks: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
    for chip in 0..chips {
        let children: Vec<usize> = (0..chips).filter(|&c| parents[c] == Some(chip)).collect();
        let w = &mut *world.borrow_mut();
        for i in 0..words * cores as u32 {
            w.sdram[chip].insert(VECTOR + i * 4, value(chip, i).to_bits());
        }
        for (i, word) in (RunBlock { program: 1, ..RunBlock::default() }).to_words().iter().enumerate() {
            w.sdram[chip].insert(RUN_BLOCK + i as u32 * 4, *word);
        }
        for slot in 0..cores {
            let mut config = CoreConfig {
                slot: slot as u32,
                cores: cores as u32,
                key: key(chip, slot),
                leader: key(chip, 0),
                above: key(chip, barrier::above(slot as u32) as usize),
                parent: parents[chip].map(|p| key(p, slot)),
                child_number: parents[chip]
                    .map(|p| (0..chip).filter(|&c| parents[c] == Some(p)).count() as u32)
                    .unwrap_or_default(),
                run_block: RUN_BLOCK,
                scalars: 0xCFC0,
                segment_buffer: 0xD000,
                segment_buffer_bytes: 0x1000,
                ..CoreConfig::default()
            };
            for (entry, &child) in config.children.iter_mut().zip(&children) {
                *entry = key(child, slot);
                config.child_count += 1;
            }
            let e = Exchange {
                sdram: VECTOR + slot as u32 * words * 4,
                words,
                scratch: 0x1000,
                scratch_bytes: EXCHANGE_SCRATCH_BYTES,
                spacing_cycles: 0,
            };
            let segment = vec![
                step(Command::Barrier),
                step(Command::ReduceUp(e)),
                step(Command::BroadcastDown(e)),
                step(Command::Barrier),
            ];
            let image = CoreImage { config, programs: vec![vec![], vec![segment], vec![]] }.encode().unwrap();
            let address = SDRAM + slot as u32 * 0x1000;
            for (i, word) in image.iter().enumerate() {
                w.sdram[chip].insert(address + i as u32 * 4, *word);
            }
            let core = Mock { world: Rc::clone(&world), me: chip * cores + slot };
            tasks.push(Box::pin(async move { spidnn_core::run(&core, address).await }));
        }
    }
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..20_000_000 {
        for task in &mut tasks {
            assert!(task.as_mut().poll(&mut context).is_pending(), "{:?}", world.borrow().failed);
        }
        let w = &mut *world.borrow_mut();
        if w.finished.iter().all(|&f| f) {
            let read = |chip: usize| (0..words * cores as u32).map(|i| w.sdram[chip][&(VECTOR + i * 4)]).collect();
            return Outcome { vectors: (0..chips).map(read).collect(), cycles: w.now, resent: w.resent };
        }
        let packet = w.flying.keys().next().map(|k| k.0);
        let deadline = w.deadlines.iter().flatten().copied().filter(|&d| d > w.now).min();
        w.now = packet.into_iter().chain(deadline).min().expect("nothing left to happen: a deadlock").max(w.now);
        while let Some((&at, _)) = w.flying.iter().next()
            && at.0 <= w.now
        {
            let (to, key, payload) = w.flying.remove(&at).unwrap();
            w.inbox[to].push_back((key, payload));
        }
    }
    panic!("did not end");
}

/// What the documentation promises: own part, then the children's in ascending order.
fn expected(parents: &[Option<usize>], chip: usize, i: u32, values: &dyn Fn(usize, u32) -> f32) -> f32 {
    (0..parents.len())
        .filter(|&c| parents[c] == Some(chip))
        .fold(values(chip, i), |sum, c| sum + expected(parents, c, i, values))
}

const CHAIN: &[Option<usize>] = &[None, Some(0), Some(1), Some(2)];
const STAR: &[Option<usize>] = &[None, Some(0), Some(0), Some(0), Some(0), Some(0), Some(0)];
const TREE: &[Option<usize>] =
    &[None, Some(0), Some(0), Some(1), Some(1), Some(2), Some(2), Some(3), Some(3), Some(5), Some(9), Some(9)];

#[test]
fn sums_have_the_documented_order() {
    for parents in [CHAIN, STAR, TREE] {
        for words in [1, 128, 300] {
            let outcome = exchange(parents, 2, words, 0.0, 0.0, 1);
            // After the first exchange every chip has the sum.
            let once = |_: usize, i: u32| expected(parents, 0, i, &value);
            for i in 0..words * 2 {
                let twice = expected(parents, 0, i, &once);
                for vector in &outcome.vectors {
                    assert_eq!(vector[i as usize], twice.to_bits());
                }
            }
            assert_eq!(outcome.resent, 0);
        }
    }
}

#[test]
fn loss_duplication_and_reordering_cost_time_but_no_bit() {
    for (parents, cores, words) in [(CHAIN, 3, 300), (STAR, 2, 257), (TREE, 1, 520)] {
        let quiet = exchange(parents, cores, words, 0.0, 0.0, 1);
        for (seed, loss) in [(1, 0.01), (2, 0.05), (3, 0.3), (4, 0.3), (5, 0.1), (6, 0.2)] {
            let noisy = exchange(parents, cores, words, loss, 0.05, seed);
            assert_eq!(noisy.vectors, quiet.vectors, "seed {seed}, loss {loss}");
            assert!(noisy.cycles > quiet.cycles);
            assert!(loss < 0.05 || noisy.resent > 0);
        }
    }
}

#[test]
fn barriers_meet_under_loss() {
    for cores in [1, 2, 5, 16, 17] {
        for seed in 0..4 {
            exchange(&[None], cores, 4, 0.3, 0.1, seed);
        }
    }
}

#[test]
fn a_barrier_of_sixteen_cores_takes_some_microseconds() {
    // Two barriers and the reading of the run block, twice; the network of this test has 100 cycles of delay. (What a barrier takes
    // on a core: `cargo run --release -p spidnn --example runtime_truth`.)
    let outcome = exchange(&[None], 16, 4, 0.0, 0.0, 1);
    println!("{} cycles for four barriers of 16 cores, with what is around them", outcome.cycles);
    assert!(outcome.cycles < 4 * 2500, "{}", outcome.cycles);
}
