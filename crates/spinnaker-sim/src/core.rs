//! A core: what its program sees ([`CoreHandle`]) and the state that it shares with the simulator.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use spinnaker_machine::ChipXy;

use crate::memory::{Memories, Op};
use crate::packet::{Arrival, Words};
use crate::sdram::sdram_word;
use crate::{CYCLE_NS, SimConfig};

/// Bytes of a core's data memory.
pub const DTCM_BYTES: u32 = 64 << 10;
/// Tags of DMA transfers are below this.
pub const DMA_TAGS: usize = 16;
/// Counters that programs may use ([`CoreHandle::count`]).
pub const PROGRAM_COUNTERS: usize = 8;
/// Words that a program may show to the host ([`CoreHandle::show`]): on a machine the user words of its core's VCPU block.
pub const SHOWN_WORDS: usize = 4;
/// The counter for packets sent again.
pub const COUNTER_RESENT: usize = 0;
/// Failure code of an access outside DTCM; detail: byte offset and words.
pub const FAIL_DATA_ABORT: u32 = 0xFFFF_0001;
/// Failure code of a DMA transfer that the hardware would refuse; detail: SDRAM address and DTCM offset.
pub const FAIL_DMA: u32 = 0xFFFF_0002;
/// Most text that is kept of a core, in bytes.
const LOG_BYTES_MAX: usize = 16 << 10;

/// Direction of a DMA transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From SDRAM to DTCM.
    In,
    /// From DTCM to SDRAM.
    Out,
    /// From SDRAM to the instruction memory: takes its time, and changes nothing that the simulation sees.
    Code,
}

/// A DMA transfer of rows. Rows that follow each other on both sides are one hardware transfer, otherwise each is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// Which way.
    pub direction: Direction,
    /// SDRAM address of the first row as a core sees it (from `0x6000_0000` on), word aligned.
    pub sdram: u32,
    /// DTCM byte offset of the first row, word aligned.
    pub dtcm: u32,
    /// Bytes of a row, a multiple of 4.
    pub row_bytes: u32,
    /// Number of rows.
    pub rows: u32,
    /// Bytes from row to row in SDRAM.
    pub sdram_stride: u32,
    /// Bytes from row to row in DTCM.
    pub dtcm_stride: u32,
    /// Tag to wait for, below [`DMA_TAGS`].
    pub tag: u8,
}

impl Transfer {
    /// Hardware transfers that it takes.
    pub fn hardware_transfers(&self) -> u64 {
        let joined = self.sdram_stride == self.row_bytes && self.dtcm_stride == self.row_bytes;
        if self.row_bytes == 0 || self.rows == 0 {
            0
        } else if joined {
            1
        } else {
            u64::from(self.rows)
        }
    }

    /// Words that it moves.
    pub fn words(&self) -> u64 {
        u64::from(self.row_bytes / 4) * u64::from(self.rows)
    }

    fn is_possible(&self) -> bool {
        let behind = |start: u32, stride: u32| {
            u64::from(start) + u64::from(stride) * u64::from(self.rows.saturating_sub(1)) + u64::from(self.row_bytes)
        };
        let aligned = [self.sdram, self.dtcm, self.row_bytes, self.sdram_stride, self.dtcm_stride];
        let sdram_bytes = behind(self.sdram, self.sdram_stride) - u64::from(self.sdram);
        // Rows may lie upon each other, but nobody moves more than fits at once.
        let small = self.rows <= DTCM_BYTES / 4 && self.words() <= u64::from(DTCM_BYTES / 4);
        small
            && usize::from(self.tag) < DMA_TAGS
            && aligned.iter().all(|value| value.is_multiple_of(4))
            && behind(self.dtcm, self.dtcm_stride) <= u64::from(DTCM_BYTES)
            && sdram_word(self.sdram, (sdram_bytes / 4) as usize).is_some()
    }
}

/// State of a core as the host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoreState {
    /// No program.
    Idle,
    /// The program runs.
    Running,
    /// The program waits for the start signal.
    Ready,
    /// The program has come to its end.
    Exited,
    /// The program reported a run-time error.
    Failed {
        /// Its code.
        code: u32,
        /// Two words of detail.
        detail: [u32; 2],
    },
    /// The core stopped without a word.
    Dead,
}

impl std::fmt::Display for CoreState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CoreState::Idle => f.write_str("idle"),
            CoreState::Running => f.write_str("running"),
            CoreState::Ready => f.write_str("ready"),
            CoreState::Exited => f.write_str("exited"),
            CoreState::Failed { code, detail: [a, b] } => {
                write!(f, "run-time error, code {code:#x}, detail {a:#x} {b:#x}")
            }
            CoreState::Dead => f.write_str("dead"),
        }
    }
}

/// What a program waits for, as bits.
pub(crate) mod wait {
    pub const DMA: u8 = 1;
    pub const PACKET: u8 = 2;
    pub const START: u8 = 4;
    pub const SEND: u8 = 8;
}

/// What a program asked for in a poll; the simulator does it afterwards.
pub(crate) enum Request {
    /// Transfer, time of submission.
    Dma(Transfer, u64),
    /// Key, payloads, packets, time of the first, nanoseconds between packets.
    Send { key: u32, words: Words, count: u32, time_ns: u64, spacing_ns: u64 },
}

/// What a core shares with the simulator. What most events touch comes first: a machine has many cores, and their states
/// compete for the host's caches.
#[repr(C)]
pub(crate) struct CoreInner {
    /// Time of the event at hand.
    pub now_ns: u64,
    /// Until when the processor is busy.
    pub local_ns: u64,
    /// Time that the program waits for, `u64::MAX` for none.
    pub wake_ns: u64,
    /// Interrupts that came while the processor was busy; paid when it would be free.
    pub debt_ns: u64,
    /// Until when it lets time pass between words that it sends: handlers of interrupts fit in between.
    pub resting_ns: u64,
    /// Time in which the processor was active.
    pub busy_ns: u64,
    /// What the program waits for, as bits of [`wait`].
    pub waits: u8,
    /// Transfers in the controller: two at most.
    pub dma_queued: u8,
    /// Sends that the network has not seen.
    pub sends_queued: u8,
    /// The start signal is on its way to the core; it counts as running although it may still wait.
    pub start_sent: bool,
    /// The start signal has come.
    pub started: bool,
    /// The next start signal came while the program still ran: it does not wait when it is ready.
    pub start_held: bool,
    /// Starts so far, those on their way included.
    pub starts: u32,
    pub tag_queued: [u8; DMA_TAGS],
    pub state: CoreState,
    pub requests: Vec<Request>,
    pub inbox: VecDeque<Arrival>,
    /// Packets in the inbox and on the way into it.
    pub queued_packets: usize,
    /// When the communications controller is free again.
    pub send_free_ns: u64,
    /// The core's DTCM belongs to another program now.
    pub gone: bool,
    pub counts: [u64; PROGRAM_COUNTERS],
    /// Words that the program shows to the host, and which of them it has set (bits).
    pub shown: [u32; SHOWN_WORDS],
    pub shown_set: u8,
    pub log: String,
}

/// Processor time of a core's dealings, from [`Timing`](crate::Timing).
#[derive(Clone, Copy)]
pub(crate) struct Costs {
    dma_submit_cycles: u32,
    send_cycles: u32,
    receive_cycles: u32,
    send_long_ns: u32,
}

impl Costs {
    pub fn new(config: &SimConfig) -> Self {
        let timing = &config.timing;
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Self {
            dma_submit_cycles: narrow(timing.dma_submit_cycles),
            send_cycles: narrow(timing.send_cycles),
            receive_cycles: narrow(timing.receive_cycles),
            send_long_ns: narrow(timing.core_long_ns),
        }
    }
}

#[repr(C)]
pub(crate) struct CoreCell {
    pub inner: RefCell<CoreInner>,
    costs: Costs,
    pub chip: ChipXy,
    pub core: u8,
    /// Its chip's number among the memories, and its place among the chip's cores.
    pub chip_index: u32,
    pub place: u32,
    pub memories: Rc<Memories>,
}

impl CoreInner {
    #[inline]
    fn busy(&mut self, cycles: u64) {
        self.local_ns += cycles * CYCLE_NS;
        self.busy_ns += cycles * CYCLE_NS;
    }

    /// Time of an interrupt handler: free for a waiting processor, paid later by a busy one.
    pub fn interrupt(&mut self, time_ns: u64, cycles: u64) {
        self.busy_ns += cycles * CYCLE_NS;
        if self.local_ns > time_ns.max(self.resting_ns) {
            self.debt_ns += cycles * CYCLE_NS;
        }
    }

    /// The same, for one that may end what the program waits for. A program that waits for nothing else goes on after the handler; if it slept,
    /// so many cycles later.
    pub fn interrupt_waking(&mut self, time_ns: u64, cycles: u64, wake_cycles: u64) {
        let resting = self.local_ns > time_ns && self.local_ns <= self.resting_ns;
        if self.wake_ns != u64::MAX || resting {
            return self.interrupt(time_ns, cycles);
        }
        // Until then it was at what it did before it waited, and at the handlers that came meanwhile.
        let free_ns = self.local_ns + std::mem::take(&mut self.debt_ns);
        self.local_ns = free_ns.max(time_ns);
        self.busy(cycles + if free_ns > time_ns { 0 } else { wake_cycles });
    }

    /// Time of the handler for packets that came evenly from `head_ns` to `time_ns`: what the processor did meanwhile took longer by that,
    /// and may not be over yet although it would be without.
    pub fn interrupts(&mut self, head_ns: u64, time_ns: u64, cycles: u64) {
        if self.local_ns > time_ns || self.local_ns <= head_ns {
            return self.interrupt(time_ns, cycles);
        }
        self.busy_ns += cycles * CYCLE_NS;
        let (handlers_ns, came_ns, work_ns) = (cycles * CYCLE_NS, time_ns - head_ns, self.local_ns - head_ns);
        // While packets come the work goes on in what their handlers leave.
        let end_ns = head_ns + work_ns + handlers_ns;
        let slower_ns = work_ns * came_ns / came_ns.saturating_sub(handlers_ns).max(1);
        self.debt_ns += end_ns.min(head_ns.saturating_add(slower_ns)).saturating_sub(time_ns);
    }

    pub fn fail(&mut self, code: u32, detail: [u32; 2]) {
        if self.state == CoreState::Running {
            self.state = CoreState::Failed { code, detail };
        }
    }
}

impl CoreCell {
    pub fn new(
        (chip, chip_index): (ChipXy, u32),
        (core, place): (u8, u32),
        costs: Costs,
        memories: Rc<Memories>,
        now_ns: u64,
    ) -> Self {
        let inner = CoreInner {
            now_ns,
            local_ns: now_ns,
            debt_ns: 0,
            resting_ns: 0,
            gone: false,
            inbox: VecDeque::new(),
            queued_packets: 0,
            dma_queued: 0,
            tag_queued: [0; DMA_TAGS],
            sends_queued: 0,
            send_free_ns: 0,
            requests: Vec::new(),
            waits: 0,
            wake_ns: u64::MAX,
            start_sent: false,
            started: false,
            start_held: false,
            starts: 0,
            state: CoreState::Running,
            busy_ns: 0,
            counts: [0; PROGRAM_COUNTERS],
            shown: [0; SHOWN_WORDS],
            shown_set: 0,
            log: String::new(),
        };
        Self { inner: RefCell::new(inner), costs, chip, core, chip_index, place, memories }
    }

    /// Looks at the core's DTCM. (A handle that a program has kept sees an empty one.)
    fn with_dtcm<T>(&self, inner: &CoreInner, look: impl FnOnce(&mut [u32]) -> T) -> T {
        if inner.gone {
            return look(&mut []);
        }
        self.memories.with(self.chip_index, |memory| look(memory.dtcm(self.place)))
    }

    /// Notes a change of the chip's memories on behalf of the core.
    pub fn note(&self, op: Op) {
        self.memories.note(self.chip_index, self.place, op, 0);
    }
}

/// A core as its program sees it. Clones are the same core.
///
/// Time is the core's own: what a program does takes effect at once in its own eyes and costs processor time
/// that the program sleeps off at its next wait; towards the outside (DMA, packets) it takes effect at the core's own time.
#[derive(Clone)]
pub struct CoreHandle {
    cell: Rc<CoreCell>,
}

impl CoreHandle {
    pub(crate) fn new(cell: Rc<CoreCell>) -> Self {
        Self { cell }
    }

    /// Its chip.
    pub fn chip(&self) -> ChipXy {
        self.cell.chip
    }

    /// Its number, 1 to 17.
    pub fn core(&self) -> u8 {
        self.cell.core
    }

    /// Core clock cycles since the machine started.
    #[inline]
    pub fn now_cycles(&self) -> u64 {
        self.cell.inner.borrow().local_ns / CYCLE_NS
    }

    /// Adds processor time; it is slept off at the next wait.
    #[inline]
    pub fn charge(&self, cycles: u64) {
        self.cell.inner.borrow_mut().busy(cycles);
    }

    /// Copies words out of DTCM (byte offset, word aligned). Outside of DTCM the core fails with [`FAIL_DATA_ABORT`].
    #[inline]
    pub fn read(&self, dtcm: u32, out: &mut [u32]) {
        let inner = &mut *self.cell.inner.borrow_mut();
        let done = self.cell.with_dtcm(inner, |all| {
            let words = words_of(dtcm, out.len()).and_then(|range| all.get(range));
            words.map(|words| out.copy_from_slice(words)).is_some()
        });
        if !done {
            out.fill(0);
            inner.fail(FAIL_DATA_ABORT, [dtcm, out.len() as u32]);
        }
    }

    /// Copies words into DTCM. Outside of it the core fails with [`FAIL_DATA_ABORT`].
    #[inline]
    pub fn write(&self, dtcm: u32, words: &[u32]) {
        let inner = &mut *self.cell.inner.borrow_mut();
        let done = self.cell.with_dtcm(inner, |all| {
            let place = words_of(dtcm, words.len()).and_then(|range| all.get_mut(range));
            place.map(|place| place.copy_from_slice(words)).is_some()
        });
        if !done {
            inner.fail(FAIL_DATA_ABORT, [dtcm, words.len() as u32]);
        }
    }

    /// Calls `f` on DTCM, in no simulated time.
    pub fn with_dtcm<T>(&self, f: impl FnOnce(&mut [u32]) -> T) -> T {
        self.cell.with_dtcm(&self.cell.inner.borrow(), f)
    }

    /// Sleeps until all processor time that was charged is over.
    pub async fn settle(&self) {
        poll_fn(|_| {
            let inner = &mut *self.cell.inner.borrow_mut();
            if inner.local_ns <= inner.now_ns {
                return Poll::Ready(());
            }
            inner.wake_ns = inner.wake_ns.min(inner.local_ns);
            Poll::Pending
        })
        .await;
    }

    /// Queues a transfer; resolves when the controller's queue of two has taken it. Content of a transfer out is what DTCM
    /// holds then; content of a transfer in is what SDRAM holds at its end. A transfer that the hardware would refuse
    /// fails the core with [`FAIL_DMA`].
    pub async fn dma(&self, transfer: Transfer) {
        self.wait_for(wait::DMA, |inner| inner.dma_queued < 2).await;
        let inner = &mut *self.cell.inner.borrow_mut();
        if !transfer.is_possible() {
            inner.fail(FAIL_DMA, [transfer.sdram, transfer.dtcm]);
            return;
        }
        // The controller takes two rows; the handler of their ends submits the others.
        inner.busy(u64::from(self.cell.costs.dma_submit_cycles) * transfer.hardware_transfers().min(2));
        if transfer.direction == Direction::Out && !inner.gone {
            self.cell.note(Op::Keep(transfer));
        }
        inner.dma_queued += 1;
        inner.tag_queued[usize::from(transfer.tag)] += 1;
        let time_ns = inner.local_ns;
        inner.requests.push(Request::Dma(transfer, time_ns));
    }

    /// Resolves when every transfer with the tag has ended.
    pub async fn dma_done(&self, tag: u8) {
        let tag = usize::from(tag) % DMA_TAGS;
        self.wait_for(wait::DMA, |inner| inner.tag_queued[tag] == 0).await;
    }

    /// Changes DTCM by `job`, which takes `cycles`; resolves when they are over. The job may be executed by another host
    /// thread at any time before its result is looked at: it must depend on nothing but DTCM and what it owns.
    /// In the eyes of everybody else it takes effect at once.
    pub async fn compute(&self, cycles: u64, job: impl FnOnce(&mut [u32]) + Send + 'static) {
        {
            let inner = &mut *self.cell.inner.borrow_mut();
            if inner.gone {
                job(&mut []);
            } else {
                self.cell.memories.compute(self.cell.chip_index, self.cell.place, cycles, job);
            }
            inner.busy(cycles);
        }
        self.settle().await;
    }

    /// Sends one packet; resolves when the communications controller has taken it.
    pub async fn send(&self, key: u32, payload: Option<u32>) {
        self.wait_for(wait::SEND, |inner| inner.sends_queued < 2).await;
        let inner = &mut *self.cell.inner.borrow_mut();
        inner.busy(self.cell.costs.send_cycles.into());
        inner.local_ns = inner.local_ns.max(inner.send_free_ns);
        inner.sends_queued += 1;
        let words = payload.map_or(Words::NONE, Words::one);
        let time_ns = inner.local_ns;
        inner.requests.push(Request::Send { key, words, count: 1, time_ns, spacing_ns: 0 });
    }

    /// Sends `count` words of DTCM as packets with keys `key`, `key + 1`, ..; resolves when the controller has taken the last.
    pub async fn send_words(&self, key: u32, dtcm: u32, count: u32) {
        self.send_words_spaced(key, dtcm, count, 0).await;
    }

    /// The same, with at least `spacing_cycles` of this core from packet to packet.
    pub async fn send_words_spaced(&self, key: u32, dtcm: u32, count: u32, spacing_cycles: u32) {
        if count == 0 {
            return;
        }
        self.wait_for(wait::SEND, |inner| inner.sends_queued == 0).await;
        {
            let inner = &mut *self.cell.inner.borrow_mut();
            let Some(range) = words_of(dtcm, count as usize) else {
                inner.fail(FAIL_DATA_ABORT, [dtcm, count]);
                return;
            };
            let words = self.cell.with_dtcm(inner, |all| all.get(range).map_or(Words::NONE, Words::shared));
            let send_cycles = u64::from(self.cell.costs.send_cycles.max(spacing_cycles));
            inner.local_ns = inner.local_ns.max(inner.send_free_ns);
            let time_ns = inner.local_ns + send_cycles * CYCLE_NS;
            inner.busy(send_cycles * u64::from(count));
            if spacing_cycles > self.cell.costs.send_cycles + self.cell.costs.receive_cycles {
                inner.resting_ns = inner.local_ns;
            }
            let spacing_ns = (send_cycles * CYCLE_NS).max(self.cell.costs.send_long_ns.into());
            inner.sends_queued += 1;
            inner.requests.push(Request::Send { key, words, count, time_ns, spacing_ns });
        }
        self.wait_for(wait::SEND, |inner| inner.sends_queued == 0).await;
        let inner = &mut *self.cell.inner.borrow_mut();
        inner.local_ns = inner.local_ns.max(inner.send_free_ns);
    }

    /// Next packets that arrived, oldest first.
    #[inline]
    pub fn take(&self) -> Option<Arrival> {
        let inner = &mut *self.cell.inner.borrow_mut();
        let arrival = inner.inbox.pop_front()?;
        inner.queued_packets -= arrival.packets();
        Some(arrival)
    }

    /// Sleeps until a packet is there to take, or until the cycle count `deadline`.
    pub async fn event(&self, deadline: Option<u64>) {
        let deadline_ns = deadline.map_or(u64::MAX, |cycles| cycles.saturating_mul(CYCLE_NS));
        poll_fn(|_| {
            let inner = &mut *self.cell.inner.borrow_mut();
            if !inner.inbox.is_empty() || inner.local_ns >= deadline_ns {
                return Poll::Ready(());
            }
            inner.waits |= wait::PACKET;
            inner.wake_ns = inner.wake_ns.min(deadline_ns);
            Poll::Pending
        })
        .await;
    }

    /// Tells the host that the core is ready, and sleeps until the host's start signal: `true`. A packet wakes it, too:
    /// `false`; the core is still ready, and calls again when it has taken the packet.
    pub async fn wait_start(&self) -> bool {
        self.settle().await;
        {
            let inner = &mut *self.cell.inner.borrow_mut();
            // A packet may have woken the core while the signal was on its way: it has been started all the same.
            if inner.state == CoreState::Running && !inner.start_sent {
                if std::mem::take(&mut inner.start_held) {
                    inner.starts = inner.starts.wrapping_add(1);
                    return true;
                }
                inner.state = CoreState::Ready;
            }
        }
        poll_fn(|_| {
            let inner = &mut *self.cell.inner.borrow_mut();
            if inner.started {
                (inner.start_sent, inner.started) = (false, false);
                return Poll::Ready(true);
            }
            if !inner.inbox.is_empty() {
                return Poll::Ready(false);
            }
            inner.waits |= wait::START | wait::PACKET;
            Poll::Pending
        })
        .await
    }

    /// Records a run-time error for the host. The core stops at its next wait.
    pub fn fail(&self, code: u32, detail: [u32; 2]) {
        self.cell.inner.borrow_mut().fail(code, detail);
    }

    /// Adds a line to the core's text buffer; what does not fit its 16 KiB is lost.
    pub fn log(&self, text: &str) {
        let log = &mut self.cell.inner.borrow_mut().log;
        if log.len() + text.len() < LOG_BYTES_MAX {
            log.push_str(text);
            log.push('\n');
        }
    }

    /// Adds to one of the program's counters ([`PROGRAM_COUNTERS`] of them; others are ignored).
    #[inline]
    pub fn count(&self, counter: usize, n: u64) {
        if let Some(count) = self.cell.inner.borrow_mut().counts.get_mut(counter) {
            *count += n;
        }
    }

    /// Shows a word to the host ([`SHOWN_WORDS`] of them; others are ignored).
    pub fn show(&self, word: usize, value: u32) {
        let inner = &mut *self.cell.inner.borrow_mut();
        if let Some(shown) = inner.shown.get_mut(word) {
            *shown = value;
            inner.shown_set |= 1 << word;
        }
    }

    async fn wait_for(&self, what: u8, condition: impl Fn(&CoreInner) -> bool) {
        poll_fn(|_| {
            let inner = &mut *self.cell.inner.borrow_mut();
            if condition(inner) {
                return Poll::Ready(());
            }
            inner.waits |= what;
            Poll::Pending
        })
        .await;
    }
}

/// Words of DTCM from a byte offset on, if they are there.
fn words_of(dtcm: u32, words: usize) -> Option<std::ops::Range<usize>> {
    let start = dtcm as usize / 4;
    let end = start.checked_add(words)?;
    (dtcm.is_multiple_of(4) && end <= DTCM_BYTES as usize / 4).then_some(start..end)
}
