//! The core as the runtime sees it.

use core::cell::Cell;
use core::marker::PhantomData;

use spidnn_core::pages::Page;
use spidnn_core::program::memory;
use spidnn_core::{Arrival, Core, Counter, ErrorCode, Meeting, Transfer};

use crate::device::{Register, comms, system, timer};

use crate::fault::{self, Code};
use crate::interrupt;
use crate::monitor::{Field, State, Vcpu};
use crate::packets::{self, Payloads};
use crate::sleep::{sleep, sleep_until};
use crate::transfers::{self, DTCM};
use crate::{Kernels, pages, text};
use spidnn_kernels::KernelCall;

/// The core that this program runs on.
pub struct Hardware<K> {
    vcpu: Vcpu,
    kernels: PhantomData<K>,
    /// Cycles at the last look at the timer: it counts 32 bits only.
    cycles: Cell<u64>,
    /// This core has come to a barrier: the interrupt handler may send a packet.
    in_barrier: Cell<bool>,
    /// When the run began.
    run_began: Cell<u64>,
    /// The next start signal is SYNC1 (they alternate).
    second_signal: Cell<bool>,
}

impl<K: Kernels> Hardware<K> {
    /// This core, with the kernels that it has.
    pub fn new(vcpu: Vcpu) -> Self {
        Hardware {
            vcpu,
            kernels: PhantomData,
            cycles: Cell::new(0),
            run_began: Cell::new(0),
            in_barrier: Cell::new(false),
            second_signal: Cell::new(false),
        }
    }

    /// One of the four words of the core's block that are the application's.
    fn user_word(&self, number: u32) -> Register {
        Register::at(self.vcpu.address + Field::User as u32 + 4 * number)
    }
}

/// Number of the user word that holds the cycles of the last run.
const RUN_CYCLES: u32 = 2;

/// Words of the programs' part of data memory that start at a byte offset.
fn words_at(dtcm: u32) -> *mut u32 {
    (DTCM + dtcm) as *mut u32
}

/// A segment where it lies.
pub struct Segment {
    first: *const u32,
    words: usize,
}

impl AsRef<[u32]> for Segment {
    fn as_ref(&self) -> &[u32] {
        // SAFETY: the runtime keeps it in the segment buffer, and lets nothing else write there as long as it holds this.
        unsafe { core::slice::from_raw_parts(self.first, self.words) }
    }
}

impl<K: Kernels> Core for Hardware<K> {
    type Words = Payloads;
    type Segment = Segment;

    fn now_cycles(&self) -> u64 {
        let before = self.cycles.get();
        let now = before + u64::from(timer::now().wrapping_sub(before as u32));
        self.cycles.set(now);
        now
    }

    fn charge(&self, _cycles: u32) {}

    fn read(&self, dtcm: u32, out: &mut [u32]) {
        for (i, word) in out.iter_mut().enumerate() {
            // SAFETY: the runtime reads what its configuration says is its own, inside data memory.
            *word = unsafe { words_at(dtcm).add(i).read_volatile() };
        }
    }

    fn segment(&self, dtcm: u32, words: u32) -> Segment {
        Segment { first: words_at(dtcm), words: words as usize }
    }

    fn write(&self, dtcm: u32, words: &[u32]) {
        // SAFETY: as for `read`.
        unsafe { words_at(dtcm).copy_from_nonoverlapping(words.as_ptr(), words.len()) }
    }

    fn dma(&self, transfer: Transfer) {
        transfers::submit(&transfer);
    }

    fn dma_done(&self, tag: u8) {
        sleep_until(|| transfers::is_done(tag));
    }

    fn check_call(&self, call: &KernelCall, dtcm_bytes: u32) -> Result<(), ErrorCode> {
        K::check(call, dtcm_bytes as usize / 4)
    }

    fn code(&self, page: Page) {
        pages::bring(page);
    }

    #[inline(never)]
    fn kernel(&self, call: &KernelCall) {
        // SAFETY: the runtime has checked the call against the start of the segment buffer; no reference into the memory below is
        // alive, and transfers into it are those that the command list waits for.
        let dtcm = unsafe { core::slice::from_raw_parts_mut(words_at(0), PROGRAM_WORDS) };
        if !K::run(call, dtcm) {
            fault::report(ErrorCode::NoKernel, call.number());
        }
    }

    fn send(&self, key: u32, payload: Option<u32>) {
        // The handler must not send between the two halves of a packet.
        if self.in_barrier.get() {
            interrupt::masked(|| comms::send(key, payload));
        } else {
            comms::send(key, payload);
        }
    }

    fn send_words(&self, key: u32, dtcm: u32, count: u32, spacing_cycles: u32) {
        for i in 0..count {
            // SAFETY: as for `read`.
            let word = unsafe { words_at(dtcm).add(i as usize).read_volatile() };
            comms::send(key + i, Some(word));
            if spacing_cycles > 0 {
                comms::rest(spacing_cycles);
            }
        }
    }

    fn expect(&self, meeting: Meeting) {
        self.in_barrier.set(false);
        packets::count(&meeting);
    }

    fn meet(&self, numbers: u32, cycles: u64) -> bool {
        self.in_barrier.set(true);
        // Most barriers end with the first news, without a look at the clock. The alarm stays: whoever sleeps may be woken.
        let mut begin = None;
        loop {
            timer::set_alarm(u32::try_from(cycles).unwrap_or(u32::MAX));
            if packets::meet(numbers) {
                return true;
            }
            let now = timer::now();
            if !packets::is_empty() || u64::from(now.wrapping_sub(*begin.get_or_insert(now))) >= cycles {
                return false;
            }
        }
    }

    fn part(&self) {
        self.in_barrier.set(false);
        packets::part();
    }

    fn join(&self, numbers: u32) -> bool {
        self.in_barrier.set(true);
        packets::join(numbers);
        true
    }

    fn met(&self) -> u32 {
        packets::met()
    }

    fn has_arrivals(&self) -> bool {
        !packets::is_empty()
    }

    fn take(&self) -> Option<Arrival<Payloads>> {
        packets::take().map(|(key, words)| Arrival { key, words })
    }

    fn open(&self, place: usize, key: u32, dtcm: u32) {
        packets::open(place, key, DTCM + dtcm);
    }

    fn put_away(&self, place: usize) -> [u32; 4] {
        packets::put_away(place)
    }

    fn close(&self) {
        packets::close();
    }

    fn event(&self, deadline: Option<u64>) {
        let Some(deadline) = deadline else { return sleep() };
        let now = self.now_cycles();
        if now < deadline {
            timer::set_alarm(u32::try_from(deadline - now).unwrap_or(u32::MAX));
            sleep();
            timer::clear_alarm();
        }
    }

    fn wait_start(&self) -> bool {
        let second = self.second_signal.get();
        if self.vcpu.state() == State::Run as u8 {
            let cycles = self.now_cycles() - self.run_began.get();
            self.user_word(RUN_CYCLES).write(cycles as u32);
        }
        self.vcpu.set_state(if second { State::Sync1 } else { State::Sync0 });
        // The monitor clears the flag for SYNC0 and sets it for SYNC1.
        let started = || (system::flags() >> self.vcpu.virtual_core & 1 == 1) == second;
        sleep_until(|| started() || !packets::is_empty());
        if !started() {
            return false;
        }
        self.second_signal.set(!second);
        self.vcpu.set_state(State::Run);
        self.run_began.set(self.now_cycles());
        true
    }

    fn fail(&self, code: u32, detail: [u32; 2]) {
        fault::fail(Code::SoftwareError, code, detail);
    }

    fn count(&self, counter: Counter, n: u32) {
        let number = match counter {
            Counter::PacketsResent => 0,
            Counter::PacketsUnexpected => 1,
        };
        let word = self.user_word(number);
        word.write(word.read().wrapping_add(n));
    }

    fn log(&self, line: &str) {
        text::write(line);
        text::write("\n");
    }
}

/// Words of data memory that belong to programs' buffers.
const PROGRAM_WORDS: usize = memory::BUFFERS_END as usize / 4;
