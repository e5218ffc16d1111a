//! What the runtime asks of a core.

use maybe_async::maybe_async;
use spidnn_kernels::KernelCall;

use crate::ErrorCode;
use crate::pages::Page;

/// Direction of a DMA transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the chip's SDRAM to the core's DTCM.
    In,
    /// From DTCM to SDRAM.
    Out,
}

/// A DMA transfer of `rows` rows. Rows that follow each other on both sides are one hardware transfer;
/// otherwise each row is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// Which way.
    pub direction: Direction,
    /// SDRAM byte address of the first row, word aligned.
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
    /// Tag (0..16) to wait for.
    pub tag: u8,
}

/// What the runtime counts for the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// Packets that were sent again because they, or an answer, were lost.
    PacketsResent,
    /// Packets that nobody was waiting for.
    PacketsUnexpected,
}

/// Multicast packets that arrived: one, or a run with consecutive keys from one sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival<W> {
    /// Key of the first packet; the others follow with step 1.
    pub key: u32,
    /// Payloads in key order; empty for one packet without payload.
    pub words: W,
}

/// Packets of barriers that an interrupt handler may count by itself ([`crate::program::barrier`]): those whose keys have `epoch` under
/// [`KEY_MASK`](crate::program::barrier::KEY_MASK). The number [`RELEASE`](crate::program::barrier::RELEASE) ends the barrier; the next
/// epoch is counted from then on, and the packet sent at its end has that epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meeting {
    /// Epoch of the first barrier, as it is in a key.
    pub epoch: u32,
    /// Bit n: number n has to come before a packet is sent.
    pub gathered: u32,
    /// Key of that packet for the first barrier, which has no payload.
    pub then: u32,
}

/// A core as the runtime sees it: DTCM, DMA, multicast packets, time.
///
/// Methods that wait are futures; everything else returns at once. Implementations charge the time
/// that things take; the runtime charges only its own bookkeeping ([`Core::charge`]).
#[allow(async_fn_in_trait)]
#[maybe_async(AFIT)]
pub trait Core {
    /// Payloads of an [`Arrival`].
    type Words: AsRef<[u32]>;
    /// Words of a command segment ([`Core::segment`]).
    type Segment: AsRef<[u32]>;

    /// Core clock cycles since the core started.
    fn now_cycles(&self) -> u64;
    /// Adds processor time of the runtime itself; paid before the next wait.
    fn charge(&self, cycles: u32);
    /// Copies words out of DTCM (byte offset, word aligned).
    fn read(&self, dtcm: u32, out: &mut [u32]);
    /// A segment of commands in the segment buffer, at a DTCM byte offset. It is executed where it lies by a core that has its data
    /// memory in its own address space; nothing else writes to the words while this value lives. Costs no cycles.
    fn segment(&self, dtcm: u32, words: u32) -> Self::Segment;
    /// Copies words into DTCM.
    fn write(&self, dtcm: u32, words: &[u32]);
    /// Queues a transfer; resolves when the DMA controller's queue has taken it.
    async fn dma(&self, transfer: Transfer);
    /// Resolves when every transfer with the tag is finished.
    async fn dma_done(&self, tag: u8);
    /// Whether this core has the kernel of a call, and the call stays in the memory below `dtcm_bytes`.
    ///
    /// # Errors
    /// [`ErrorCode::NoKernel`], [`ErrorCode::BadKernel`].
    fn check_call(&self, call: &KernelCall, dtcm_bytes: u32) -> Result<(), ErrorCode> {
        call.check(dtcm_bytes as usize / 4).map_err(|_| ErrorCode::BadKernel)
    }
    /// Brings a page of code into instruction memory, on a core whose firmware has pages, unless it is there. (For a kernel the core
    /// does it by itself.)
    async fn code(&self, _page: Page) {}
    /// Runs a kernel on this core's DTCM; resolves when its cycles are over.
    async fn kernel(&self, call: &KernelCall);
    /// Sends one multicast packet; resolves when the communications controller took it.
    async fn send(&self, key: u32, payload: Option<u32>);
    /// Sends `count` words from DTCM as packets with keys `key`, `key + 1`, .., each `spacing_cycles` after the router has taken the one before.
    /// Not while the core is at a barrier.
    async fn send_words(&self, key: u32, dtcm: u32, count: u32, spacing_cycles: u32);
    /// Tells which packets to count instead of keeping them for [`Core::take`]; none are counted yet. A core that does not count
    /// leaves them to the runtime.
    fn expect(&self, _meeting: Meeting) {}
    /// Adds numbers to those that came. A core that counts by itself answers `true`: it sends the meeting's packet as soon as all
    /// numbers have come, once. Others leave it to the runtime.
    fn join(&self, _numbers: u32) -> bool {
        false
    }
    /// As [`Core::join`] at the beginning of a barrier; then sleeps until it is over: `true`. It gives up when so many cycles have
    /// passed, and when there is something to [`Core::take`]. A core that does not count gives up at once.
    async fn meet(&self, _numbers: u32, _cycles: u64) -> bool {
        false
    }
    /// The barrier is over for the runtime, too.
    fn part(&self) {}
    /// Numbers that were counted at this barrier, the release included. When that comes, [`Core::event`] ends.
    fn met(&self) -> u32 {
        0
    }
    /// Whether there may be something to [`Core::take`]: a quick look, before every command.
    fn has_arrivals(&self) -> bool {
        true
    }
    /// Next packets that arrived, oldest first.
    fn take(&self) -> Option<Arrival<Self::Words>>;
    /// From now on the core may itself put away packets with the keys `key` to `key + 127` as they come: payloads to the words from
    /// the DTCM offset `dtcm` on, of which there are 128. What it puts away is not there to [`Core::take`]. `place`, below 12, tells
    /// such blocks apart; a new one takes the place of an old one.
    fn open(&self, _place: usize, _key: u32, _dtcm: u32) {}
    /// Which words of an opened block the core has put away: a bit for each.
    fn put_away(&self, _place: usize) -> [u32; 4] {
        [0; 4]
    }
    /// From now on the core puts away nothing.
    fn close(&self) {}
    /// Sleeps until a packet comes that is to be taken, is put away or ends a barrier, or until the cycle count `deadline`; one that came since
    /// the last call counts. It may end without a reason.
    async fn event(&self, deadline: Option<u64>);
    /// Tells the host that the core is ready, and sleeps until the host's start signal: `true`. A packet wakes it, too:
    /// `false`; the core then takes it and calls again.
    async fn wait_start(&self) -> bool;
    /// Records a run-time error for the host: a code and two words of detail. The core stops afterwards.
    fn fail(&self, code: u32, detail: [u32; 2]);
    /// Counts something for the host.
    fn count(&self, counter: Counter, n: u32);
    /// Adds a line to the core's text buffer for the host.
    fn log(&self, text: &str);
}
