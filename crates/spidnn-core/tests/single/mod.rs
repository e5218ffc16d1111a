//! One core without neighbours whose time passes only when it waits: what it does is written down.

use std::cell::RefCell;
use std::future::{Future, pending};
use std::pin::pin;
use std::task::{Context, Waker};

use spidnn_core::program::{CoreConfig, RunBlock};
use spidnn_core::{Arrival, Core, Counter, Direction, Transfer};
use spidnn_kernels::KernelCall;

/// Where the image lies.
pub const IMAGE: u32 = 0x6000_0000;
/// Where the run block lies.
pub const RUN_BLOCK: u32 = 0x6008_0000;
/// DTCM offset of the scalars.
pub const SCALARS: u32 = 0xCFC0;
/// DTCM offset and bytes of the segment buffer.
pub const SEGMENTS: (u32, u32) = (0xD000, 0x1000);

/// What a core did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// A transfer, except of segments and run blocks.
    Dma(Transfer),
    /// A wait for a tag below the runtime's.
    Wait(u8),
    /// A kernel.
    Kernel(KernelCall),
}

/// See above.
#[derive(Default)]
pub struct Single {
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    now: u64,
    dtcm: Vec<u32>,
    sdram: Vec<(u32, Vec<u32>)>,
    deeds: Vec<Deed>,
    starts: u32,
    ready: bool,
    failed: Option<(u32, [u32; 2])>,
}

/// What is left when a core waits for a start that does not come, or has failed.
pub struct End {
    /// What it did, in order.
    pub deeds: Vec<Deed>,
    /// Its failure.
    pub failed: Option<(u32, [u32; 2])>,
    /// The scalars in DTCM.
    pub scalars: Vec<u32>,
    /// Cycles it used.
    pub cycles: u64,
}

/// A configuration for a core without neighbours.
pub fn config() -> CoreConfig {
    CoreConfig {
        slot: 0,
        cores: 1,
        key: 1 << 15,
        leader: 1 << 15,
        run_block: RUN_BLOCK,
        scalars: SCALARS,
        segment_buffer: SEGMENTS.0,
        segment_buffer_bytes: SEGMENTS.1,
        ..CoreConfig::default()
    }
}

/// Runs an image with a run block, started `starts` times.
pub fn run(image: &[u32], block: &RunBlock, starts: u32, commands_max: u64) -> End {
    let core = Single::default();
    *core.state.borrow_mut() = State {
        dtcm: vec![0; 16384],
        sdram: vec![(IMAGE, image.to_vec()), (RUN_BLOCK, block.to_words().to_vec())],
        starts,
        ..State::default()
    };
    // Every wait but the last is over at once, so one poll is all.
    let done = pin!(spidnn_core::run_limited(&core, IMAGE, commands_max))
        .poll(&mut Context::from_waker(Waker::noop()))
        .is_ready();
    let state = core.state.borrow();
    assert_eq!(done, state.failed.is_some(), "the runtime ends when it fails, and only then");
    assert!(done || state.ready, "a core that has not failed is ready again");
    let scalars = state.dtcm[SCALARS as usize / 4..][..16].to_vec();
    End { deeds: state.deeds.clone(), failed: state.failed, scalars, cycles: state.now }
}

impl State {
    /// A word of SDRAM: what was put there, else a number that depends on the address.
    fn word(&self, address: u32) -> u32 {
        let held = self.sdram.iter().find_map(|(start, words)| words.get(address.checked_sub(*start)? as usize / 4));
        held.copied().unwrap_or(address ^ 0x5A5A_0000)
    }
}

impl Core for Single {
    type Words = Vec<u32>;
    type Segment = Vec<u32>;
    fn now_cycles(&self) -> u64 {
        self.state.borrow().now
    }
    fn charge(&self, cycles: u32) {
        self.state.borrow_mut().now += u64::from(cycles);
    }
    fn read(&self, dtcm: u32, out: &mut [u32]) {
        assert!(dtcm.is_multiple_of(4));
        out.copy_from_slice(&self.state.borrow().dtcm[dtcm as usize / 4..][..out.len()]);
    }
    fn segment(&self, dtcm: u32, words: u32) -> Vec<u32> {
        let mut segment = vec![0; words as usize];
        self.read(dtcm, &mut segment);
        segment
    }
    fn write(&self, dtcm: u32, words: &[u32]) {
        assert!(dtcm.is_multiple_of(4));
        self.state.borrow_mut().dtcm[dtcm as usize / 4..][..words.len()].copy_from_slice(words);
    }
    async fn dma(&self, t: Transfer) {
        let state = &mut *self.state.borrow_mut();
        let all = [t.sdram, t.dtcm, t.row_bytes, t.sdram_stride, t.dtcm_stride];
        assert!(all.iter().all(|bytes| bytes.is_multiple_of(4)), "misaligned: {t:?}");
        assert!(t.tag < 16 && u64::from(t.rows) * u64::from(t.row_bytes) <= 65536, "{t:?}");
        for row in 0..u64::from(t.rows) {
            let sdram = u64::from(t.sdram) + row * u64::from(t.sdram_stride);
            let dtcm = (u64::from(t.dtcm) + row * u64::from(t.dtcm_stride)) as usize / 4;
            assert!(sdram >= 0x6000_0000 && sdram + u64::from(t.row_bytes) <= 0x6800_0000, "outside of SDRAM: {t:?}");
            for word in 0..t.row_bytes as usize / 4 {
                let value = state.word(sdram as u32 + word as u32 * 4);
                // Also for transfers out: the place must be there.
                let place = &mut state.dtcm[dtcm + word];
                if t.direction == Direction::In {
                    *place = value;
                }
            }
        }
        if t.tag < 14 {
            state.deeds.push(Deed::Dma(t));
        }
    }
    async fn dma_done(&self, tag: u8) {
        if tag < 14 {
            self.state.borrow_mut().deeds.push(Deed::Wait(tag));
        }
    }
    async fn kernel(&self, call: &KernelCall) {
        assert_eq!(call.check(SEGMENTS.0 as usize / 4), Ok(()), "a kernel that would leave DTCM");
        self.state.borrow_mut().deeds.push(Deed::Kernel(*call));
    }
    async fn send(&self, _: u32, _: Option<u32>) {}
    async fn send_words(&self, _: u32, dtcm: u32, count: u32, _: u32) {
        assert!(u64::from(dtcm) + u64::from(count) * 4 <= 65536);
    }
    fn take(&self) -> Option<Arrival<Vec<u32>>> {
        None
    }
    async fn event(&self, deadline: Option<u64>) {
        let Some(deadline) = deadline else { return pending().await };
        let state = &mut *self.state.borrow_mut();
        state.now = state.now.max(deadline);
    }
    async fn wait_start(&self) -> bool {
        if self.state.borrow().starts == 0 {
            self.state.borrow_mut().ready = true;
            pending::<()>().await;
        }
        self.state.borrow_mut().starts -= 1;
        true
    }
    fn fail(&self, code: u32, detail: [u32; 2]) {
        self.state.borrow_mut().failed = Some((code, detail));
    }
    fn count(&self, _: Counter, _: u32) {}
    fn log(&self, _: &str) {}
}
