//! Streams of blocks: see the parent module.

use maybe_async::maybe_async;
use spidnn_kernels::KernelCall;
use spidnn_kernels::call::{CopyRows, Map2};

use super::{Links, SENDER_MASK, Watch, kind};
use crate::command::{Exchange, LINK_CYCLES, STREAM_BLOCK_WORDS};
use crate::core_trait::{Core, Counter, Direction, Transfer};
use crate::error::Failure;
use crate::program::CHILDREN_MAX;

/// Cycles a core waits before it asks (0.2 ms, and the time of a block whose words are spaced), doubled up to [`TIMEOUT_MAX_CYCLES`].
const TIMEOUT_CYCLES: u64 = 40_000;
/// Cycles to enter an exchange and to leave it, beyond its packets, kernels and transfers (measured: `runtime_truth exchanges`).
const UP_CYCLES: u32 = 1650;
const DOWN_CYCLES: u32 = 2650;
/// Cycles for each block that is sent, beyond its words.
const BLOCK_CYCLES: u32 = 600;
/// Blocks a receiver has room for.
const WINDOW: u32 = 2;
const BLOCK: u32 = STREAM_BLOCK_WORDS;
/// A bit for each word of a block.
type Bitmap = [u32; BITMAP_WORDS];
const BITMAP_WORDS: usize = (BLOCK / 32) as usize;

/// Whether all of a block's first words are there.
fn complete(bitmap: &Bitmap, words: u32) -> bool {
    let part = |n: usize| words.saturating_sub(32 * n as u32).min(32);
    bitmap.iter().enumerate().all(|(n, bits)| part(n) == 0 || bits | !(u32::MAX >> (32 - part(n))) == u32::MAX)
}

/// Whether a word is there.
fn has(bitmap: &Bitmap, word: u32) -> bool {
    bitmap[(word / 32) as usize % BITMAP_WORDS] >> (word % 32) & 1 == 1
}

/// Every child.
const ALL: u32 = 7;

/// Control messages: low bits of the key are type `<< 9`, number of the child (or [`ALL`]) `<< 6`, part `<< 4`, block number modulo 16.
mod control {
    /// Payload: low half of the number of blocks used, and above it of the first block number that there is no room for.
    pub const CREDIT: u32 = 0;
    /// Payload: number of the block that the sender waits for.
    pub const PROBE: u32 = 1;
    /// Payload: 32 bits of a block's bitmap; a set bit is a word that arrived.
    pub const STATUS: u32 = 2;
}

/// The receiving end of a stream.
#[derive(Debug, Clone, Copy)]
struct Receiver {
    /// Number of the next block to be used.
    next: u32,
    /// Number of the first block of the exchange that is going on.
    first: u32,
    /// A bit for each word that the runtime has put away; the core may have put away more (see [`Core::put_away`]).
    bitmaps: [Bitmap; WINDOW as usize],
}

impl Receiver {
    const EMPTY: Receiver = Receiver { next: 0, first: 0, bitmaps: [[0; BITMAP_WORDS]; WINDOW as usize] };

    fn slot(number: u32) -> usize {
        (number % WINDOW) as usize
    }
    /// The block of the window with this number modulo 16.
    fn in_window(&self, low: u32) -> Option<u32> {
        let ahead = low.wrapping_sub(self.next) & 15;
        (ahead < WINDOW).then(|| self.next.wrapping_add(ahead))
    }
    /// Words of a block have come.
    fn mark(&mut self, number: u32, from: u32, to: u32) {
        let slot = Self::slot(number);
        let mut at = from;
        while at < to {
            let end = to.min((at | 31) + 1);
            let mask = (u32::MAX >> (32 - (end - at))) << (at & 31);
            self.bitmaps[slot][(at / 32) as usize] |= mask;
            at = end;
        }
    }
    /// The block is used: its room is free.
    fn used(&mut self) {
        self.bitmaps[Self::slot(self.next)] = [0; BITMAP_WORDS];
        self.next = self.next.wrapping_add(1);
    }
}

/// The sending end of a stream.
#[derive(Debug, Clone, Copy)]
struct Sender {
    /// Number of the next block to be sent.
    next: u32,
    /// Number of the first block of the exchange that is going on.
    first: u32,
}

/// What a receiver has told.
#[derive(Debug, Clone, Copy)]
struct Told {
    /// Blocks that it has used.
    used: u32,
    /// First block that it has no room for.
    credit: u32,
}

impl Told {
    const NOTHING: Told = Told { used: 0, credit: 0 };

    fn hear(&mut self, payload: u32) {
        let ahead = |old: u32, low: u32| {
            let step = (low as u16).wrapping_sub(old as u16) as i16;
            if step > 0 { old.wrapping_add(step as u32) } else { old }
        };
        self.used = ahead(self.used, payload & 0xFFFF);
        self.credit = ahead(self.credit, payload >> 16);
    }
    fn payload(used: u32, credit: u32) -> u32 {
        (credit & 0xFFFF) << 16 | (used & 0xFFFF)
    }
}

/// An exchange that is going on: where the blocks of the window lie.
#[derive(Debug, Clone, Copy)]
struct Active {
    /// Words of the whole vector.
    words: u32,
    /// DTCM offset of the received blocks: two for each sender.
    received: u32,
    /// DTCM offset of the two blocks being sent.
    sent: u32,
    /// Towards the root.
    up: bool,
    /// Cycles between words.
    spacing_cycles: u32,
}

impl Active {
    /// Words of the block with this number, in a stream in which the vector begins with number `first`.
    fn block_words(&self, number: u32, first: u32) -> u32 {
        let (before, blocks) = (number.wrapping_sub(first), self.words / BLOCK);
        match before {
            _ if before < blocks => BLOCK,
            _ if before == blocks => self.words % BLOCK,
            _ => 0,
        }
    }
    fn blocks(&self) -> u32 {
        self.words.div_ceil(BLOCK)
    }
}

/// What a core knows of its streams.
#[derive(Debug)]
pub(super) struct Streams {
    from_children: [Receiver; CHILDREN_MAX],
    from_parent: Receiver,
    to_parent: Sender,
    to_children: Sender,
    /// What the parent told of what goes up, and each child of what goes down.
    up_told: Told,
    down_told: [Told; CHILDREN_MAX],
    active: Option<Active>,
}

impl Streams {
    /// Before the first exchange.
    pub const EMPTY: Streams = Streams {
        from_children: [Receiver::EMPTY; CHILDREN_MAX],
        from_parent: Receiver::EMPTY,
        to_parent: Sender { next: 0, first: 0 },
        to_children: Sender { next: 0, first: 0 },
        up_told: Told::NOTHING,
        down_told: [Told::NOTHING; CHILDREN_MAX],
        active: None,
    };
}

#[maybe_async]
impl Links {
    /// Takes packets of a stream.
    pub(super) async fn stream_arrival<C: Core>(&mut self, core: &C, key: u32, words: &[u32]) {
        let sender = key & SENDER_MASK;
        let low = key & 0xFFF;
        match key >> 12 & 7 {
            kind::UP_DATA => {
                if let Some(child) = self.child(sender) {
                    self.data(core, true, child, low, words).await;
                }
            }
            kind::DOWN_DATA => {
                if self.config.parent == Some(sender) {
                    self.data(core, false, 0, low, words).await;
                }
            }
            kind::UP_CONTROL => {
                if let (Some(child), [payload]) = (self.child(sender), words) {
                    self.control_from_child(core, child, low, *payload).await;
                }
            }
            kind::DOWN_CONTROL => {
                let mine = low >> 6 & 7;
                if let (true, [payload]) = (self.config.parent == Some(sender), words)
                    && (mine == ALL || mine == self.config.child_number)
                {
                    self.control_from_parent(core, low, *payload).await;
                }
            }
            _ => core.count(Counter::PacketsUnexpected, words.len().max(1) as u32),
        }
    }

    async fn control<C: Core>(
        &self,
        core: &C,
        up: bool,
        message: u32,
        child: u32,
        part: u32,
        number: u32,
        payload: u32,
    ) {
        let kind = if up { kind::UP_CONTROL } else { kind::DOWN_CONTROL };
        let low = message << 9 | child << 6 | part << 4 | (number & 15);
        core.send(self.key(kind, low), Some(payload)).await;
    }

    fn child(&self, sender: u32) -> Option<usize> {
        self.config.children[..self.config.child_count as usize].iter().position(|&c| c == sender)
    }

    /// Words of a block from the parent, or from a child.
    async fn data<C: Core>(&mut self, core: &C, up: bool, child: usize, low: u32, words: &[u32]) {
        let Some(active) = self.streams.active.filter(|a| a.up == up) else {
            core.count(Counter::PacketsUnexpected, words.len() as u32);
            return;
        };
        let receiver = if up { &mut self.streams.from_children[child] } else { &mut self.streams.from_parent };
        let (number, offset) = (low >> 7 & 15, low & 127);
        let Some(number) = receiver.in_window(number) else { return };
        let length = active.block_words(number, receiver.first);
        let end = offset + words.len() as u32;
        if words.is_empty() || end > length {
            core.count(Counter::PacketsUnexpected, words.len().max(1) as u32);
            return;
        }
        let slot = Receiver::slot(number);
        let place = active.received + ((child as u32 * WINDOW) + slot as u32) * BLOCK * 4;
        core.write(place + offset * 4, words);
        receiver.mark(number, offset, end);
        // The end of the block is here and something is missing: say so at once.
        if end == length && !complete(&self.here(core, up, child, number), length) {
            self.status(core, up, child as u32, number).await;
        }
    }

    /// Which words of a block are here.
    fn here<C: Core>(&self, core: &C, up: bool, child: usize, number: u32) -> Bitmap {
        let slot = Receiver::slot(number);
        let receiver = if up { &self.streams.from_children[child] } else { &self.streams.from_parent };
        let mut bitmap = core.put_away(child * WINDOW as usize + slot);
        for (all, own) in bitmap.iter_mut().zip(&receiver.bitmaps[slot]) {
            *all |= own;
        }
        bitmap
    }

    /// Lets the core put away a block of the window by itself.
    fn open<C: Core>(&self, core: &C, up: bool, child: usize, number: u32) {
        let Some(active) = self.streams.active else { return };
        let (sender, kind) = if up {
            (self.config.children[child], kind::UP_DATA)
        } else {
            (self.config.parent.unwrap_or_default(), kind::DOWN_DATA)
        };
        let place = child * WINDOW as usize + Receiver::slot(number);
        core.open(place, sender | kind << 12 | (number & 15) << 7, active.received + place as u32 * BLOCK * 4);
    }

    /// The next block of a sender has been used: there is room for another, which the sender is told.
    async fn block_used<C: Core>(&mut self, core: &C, up: bool, child: usize) {
        let receiver = if up { &mut self.streams.from_children[child] } else { &mut self.streams.from_parent };
        receiver.used();
        let last = receiver.next.wrapping_add(WINDOW - 1);
        self.open(core, up, child, last);
        self.tell(core, up, child).await;
    }

    /// The exchange is over.
    fn end<C: Core>(&mut self, core: &C) {
        self.streams.active = None;
        core.close();
    }

    /// Tells a sender which words of a block arrived.
    async fn status<C: Core>(&self, core: &C, up: bool, child: u32, number: u32) {
        let receiver = if up { &self.streams.from_children[child as usize] } else { &self.streams.from_parent };
        let bitmap = self.here(core, up, child as usize, number);
        let length = self.streams.active.map_or(0, |a| a.block_words(number, receiver.first));
        for (part, &bits) in bitmap.iter().enumerate() {
            // Only what lacks something is told.
            let words = length.saturating_sub(part as u32 * 32).min(32);
            if bits.count_ones() < words {
                let to = if up { child } else { self.config.child_number };
                self.control(core, !up, control::STATUS, to, part as u32, number, bits).await;
            }
        }
    }

    async fn control_from_child<C: Core>(&mut self, core: &C, child: usize, low: u32, payload: u32) {
        match low >> 9 {
            control::CREDIT => self.streams.down_told[child].hear(payload),
            control::PROBE => self.probed(core, true, child, payload).await,
            control::STATUS => self.resend(core, false, low, payload).await,
            _ => core.count(Counter::PacketsUnexpected, 1),
        }
    }

    async fn control_from_parent<C: Core>(&mut self, core: &C, low: u32, payload: u32) {
        match low >> 9 {
            control::CREDIT => self.streams.up_told.hear(payload),
            control::PROBE => self.probed(core, false, 0, payload).await,
            control::STATUS => self.resend(core, true, low, payload).await,
            _ => core.count(Counter::PacketsUnexpected, 1),
        }
    }

    /// Tells a sender what this receiver has used and has room for. Outside an exchange there is room for nothing.
    async fn tell<C: Core>(&self, core: &C, up: bool, child: usize) {
        let receiver = if up { &self.streams.from_children[child] } else { &self.streams.from_parent };
        let credit = match self.streams.active.filter(|a| a.up == up) {
            Some(active) => {
                let left = receiver.first.wrapping_add(active.blocks()).wrapping_sub(receiver.next);
                receiver.next.wrapping_add(left.min(WINDOW))
            }
            None => receiver.next,
        };
        let to = if up { child as u32 } else { self.config.child_number };
        self.control(core, !up, control::CREDIT, to, 0, 0, Told::payload(receiver.next, credit)).await;
    }

    /// A sender asks: it is told what was used, and what arrived of the block.
    async fn probed<C: Core>(&mut self, core: &C, up: bool, child: usize, number: u32) {
        self.tell(core, up, child).await;
        let receiver = if up { &self.streams.from_children[child] } else { &self.streams.from_parent };
        if self.streams.active.is_some_and(|a| a.up == up) && number.wrapping_sub(receiver.next) < WINDOW {
            self.status(core, up, child as u32, number).await;
        }
    }

    /// A receiver told 32 bits of a bitmap: sends what it lacks.
    async fn resend<C: Core>(&mut self, core: &C, up: bool, low: u32, bits: u32) {
        let Some(active) = self.streams.active.filter(|a| a.up == up) else { return };
        let sender = if up { self.streams.to_parent } else { self.streams.to_children };
        let (part, number) = (low >> 4 & 3, low & 15);
        // Blocks that may be on their way: the last two sent, as far as they are not acknowledged.
        let Some(number) = (1..=WINDOW).map(|k| sender.next.wrapping_sub(k)).find(|n| n & 15 == number) else { return };
        if number.wrapping_sub(sender.first) as i32 >= 0 && number.wrapping_sub(self.used(up)) as i32 >= 0 {
            let length = active.block_words(number, sender.first);
            let place = active.sent + Receiver::slot(number) as u32 * BLOCK * 4;
            let data = if up { kind::UP_DATA } else { kind::DOWN_DATA };
            let end = length.min(part * 32 + 32);
            let mut i = part * 32;
            while i < end {
                if bits >> (i % 32) & 1 == 1 {
                    i += 1;
                    continue;
                }
                let mut run = 1;
                while i + run < end && bits >> ((i + run) % 32) & 1 == 0 {
                    run += 1;
                }
                core.count(Counter::PacketsResent, run);
                core.send_words(self.key(data, (number & 15) << 7 | i), place + i * 4, run, active.spacing_cycles)
                    .await;
                i += run;
            }
        }
    }

    /// Blocks that every receiver has used.
    fn used(&self, up: bool) -> u32 {
        let next = if up { self.streams.to_parent.next } else { self.streams.to_children.next };
        self.told(up).iter().map(|t| t.used).min_by_key(|u| u.wrapping_sub(next) as i32).unwrap_or(next)
    }

    /// First block number that may not yet be sent.
    fn credit(&self, up: bool) -> u32 {
        let next = if up { self.streams.to_parent.next } else { self.streams.to_children.next };
        self.told(up).iter().map(|t| t.credit).min_by_key(|c| c.wrapping_sub(next) as i32).unwrap_or(next)
    }

    fn told(&self, up: bool) -> &[Told] {
        if up {
            core::slice::from_ref(&self.streams.up_told)
        } else {
            &self.streams.down_told[..self.config.child_count as usize]
        }
    }

    /// How long to wait before asking: a block may be on its way for as long as its words are spaced.
    fn patience_cycles(&self) -> u64 {
        TIMEOUT_CYCLES + self.streams.active.map_or(0, |a| u64::from(a.words.min(BLOCK) * a.spacing_cycles))
    }

    /// Waits until a receiver's word makes `enough` true, asking when it takes long.
    async fn wait_told<C: Core>(&mut self, core: &C, up: bool, enough: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        let peer = if up { self.config.parent.unwrap_or_default() } else { self.config.children[0] };
        let mut watch = Watch::new(core, peer, self.used(up), self.patience_cycles());
        while !enough(self) {
            if self.wait(core, &mut watch).await? {
                // About the oldest block that is not acknowledged, or the next one.
                let about = self.used(up);
                self.control(core, up, control::PROBE, ALL, 0, about, about).await;
            }
        }
        Ok(())
    }

    /// Waits until the next block may be sent: then its send buffer is free, too.
    async fn wait_credit<C: Core>(&mut self, core: &C, up: bool) -> Result<(), Failure> {
        let next = if up { self.streams.to_parent.next } else { self.streams.to_children.next };
        self.wait_told(core, up, |s| s.credit(up).wrapping_sub(next) as i32 > 0).await
    }

    /// Waits until every block that was sent has been used.
    async fn wait_used<C: Core>(&mut self, core: &C, up: bool) -> Result<(), Failure> {
        let next = if up { self.streams.to_parent.next } else { self.streams.to_children.next };
        self.wait_told(core, up, |s| s.used(up) == next).await
    }

    /// Waits until the next block of a child (or of the parent) is complete.
    async fn wait_block<C: Core>(&mut self, core: &C, up: bool, child: usize) -> Result<(), Failure> {
        let peer = if up { self.config.children[child] } else { self.config.parent.unwrap_or_default() };
        let mut watch = Watch::new(core, peer, 0, self.patience_cycles());
        let receiver = if up { &self.streams.from_children[child] } else { &self.streams.from_parent };
        let number = receiver.next;
        let length = self.streams.active.map_or(0, |a| a.block_words(number, receiver.first));
        let mut before = [0; BITMAP_WORDS];
        let mut told = false;
        loop {
            let here = self.here(core, up, child, number);
            if complete(&here, length) {
                return Ok(());
            }
            // The end of the block is here and something is missing: say so at once.
            if !told && has(&here, length - 1) {
                told = true;
                self.status(core, up, child as u32, number).await;
            }
            if self.wait(core, &mut watch).await? {
                // The word that opened this exchange may have been lost.
                self.tell(core, up, child).await;
                // The end of the block may have been lost while the sender, itself a receiver, is not in a position to ask.
                if here != [0; BITMAP_WORDS] && here == before {
                    self.status(core, up, child as u32, number).await;
                }
                before = here;
            }
        }
    }

    /// Sends a block that lies in the send buffer.
    async fn send_block<C: Core>(&mut self, core: &C, up: bool, words: u32) {
        let Some(active) = self.streams.active else { return };
        let sender = if up { &mut self.streams.to_parent } else { &mut self.streams.to_children };
        let number = sender.next;
        sender.next = number.wrapping_add(1);
        let data = if up { kind::UP_DATA } else { kind::DOWN_DATA };
        let place = active.sent + Receiver::slot(number) as u32 * BLOCK * 4;
        if words > 0 {
            core.charge(BLOCK_CYCLES);
            core.send_words(self.key(data, (number & 15) << 7), place, words, active.spacing_cycles).await;
        }
    }

    /// Own part plus the children's, to the parent; at the root, back to SDRAM.
    #[inline(never)]
    pub async fn reduce_up<C: Core>(&mut self, core: &C, e: &Exchange) -> Result<(), Failure> {
        let children = self.config.child_count as usize;
        let parent = self.config.parent.is_some();
        if e.words == 0 || (children == 0 && !parent) {
            return Ok(());
        }
        // Scratch: own [2], sum [2], two blocks of each child.
        let own = |b: u32| e.scratch + (b % 2) * BLOCK * 4;
        let sums = e.scratch + 2 * BLOCK * 4;
        let received = e.scratch + 4 * BLOCK * 4;
        self.begin(core, Active { words: e.words, received, sent: sums, up: true, spacing_cycles: e.spacing_cycles })
            .await;
        for child in 0..children {
            self.tell(core, true, child).await;
        }
        let blocks = e.words.div_ceil(BLOCK);
        let length = |b: u32| (e.words - b * BLOCK).min(BLOCK);
        let fetch = |b: u32| transfer(Direction::In, e.sdram + b * BLOCK * 4, own(b), length(b), (b % 2) as u8);
        core.dma(fetch(0)).await;
        for b in 0..blocks {
            if b + 1 < blocks {
                core.dma(fetch(b + 1)).await;
            }
            core.dma_done((b % 2) as u8).await;
            let slot = if parent { Receiver::slot(self.streams.to_parent.next) as u32 } else { b % 2 };
            let sum = sums + slot * BLOCK * 4;
            if parent {
                self.wait_credit(core, true).await?;
            } else {
                core.dma_done(2 + slot as u8).await;
            }
            if children == 0 {
                core.kernel(&copy(own(b), sum, length(b))).await;
            }
            for child in 0..children {
                self.wait_block(core, true, child).await?;
                let block = child as u32 * WINDOW + Receiver::slot(self.streams.from_children[child].next) as u32;
                let from = received + block * BLOCK * 4;
                let left = if child == 0 { own(b) } else { sum };
                core.kernel(&KernelCall::from(Map2 { op: 0, a: left, b: from, out: sum, count: length(b) })).await;
                self.block_used(core, true, child).await;
            }
            if parent {
                self.send_block(core, true, length(b)).await;
            } else {
                core.dma(transfer(Direction::Out, e.sdram + b * BLOCK * 4, sum, length(b), 2 + slot as u8)).await;
            }
        }
        if parent {
            self.wait_used(core, true).await?;
        }
        core.dma_done(2).await;
        core.dma_done(3).await;
        self.end(core);
        Ok(())
    }

    /// Copies of the root's vector to every replica.
    #[inline(never)]
    pub async fn broadcast_down<C: Core>(&mut self, core: &C, e: &Exchange) -> Result<(), Failure> {
        let children = self.config.child_count as usize;
        let parent = self.config.parent.is_some();
        if e.words == 0 || (children == 0 && !parent) {
            return Ok(());
        }
        // Scratch: sent [2], received [2] (the places of `reduce_up`).
        let sent = e.scratch + 2 * BLOCK * 4;
        let received = e.scratch + 4 * BLOCK * 4;
        self.begin(core, Active { words: e.words, received, sent, up: false, spacing_cycles: e.spacing_cycles }).await;
        if parent {
            self.tell(core, false, 0).await;
        }
        let blocks = e.words.div_ceil(BLOCK);
        let length = |b: u32| (e.words - b * BLOCK).min(BLOCK);
        for b in 0..blocks {
            let slot = Receiver::slot(self.streams.to_children.next);
            let out = sent + slot as u32 * BLOCK * 4;
            if children > 0 {
                self.wait_credit(core, false).await?;
            }
            core.dma_done(2 + slot as u8).await;
            if parent {
                self.wait_block(core, false, 0).await?;
                let from = received + Receiver::slot(self.streams.from_parent.next) as u32 * BLOCK * 4;
                core.kernel(&copy(from, out, length(b))).await;
                self.block_used(core, false, 0).await;
                core.dma(transfer(Direction::Out, e.sdram + b * BLOCK * 4, out, length(b), 2 + slot as u8)).await;
            } else {
                core.dma(transfer(Direction::In, e.sdram + b * BLOCK * 4, out, length(b), 0)).await;
                core.dma_done(0).await;
            }
            // Without children the slots alternate all the same.
            self.send_block(core, false, if children > 0 { length(b) } else { 0 }).await;
        }
        if children > 0 {
            self.wait_used(core, false).await?;
        }
        core.dma_done(2).await;
        core.dma_done(3).await;
        self.end(core);
        Ok(())
    }

    /// Marks where the streams stand at the beginning of an exchange, and gets out of step with the other cores.
    async fn begin<C: Core>(&mut self, core: &C, active: Active) {
        core.charge(if active.up { UP_CYCLES } else { DOWN_CYCLES });
        self.streams.active = Some(active);
        for r in self.streams.from_children.iter_mut().chain([&mut self.streams.from_parent]) {
            r.first = r.next;
            r.bitmaps = [[0; BITMAP_WORDS]; WINDOW as usize];
        }
        let senders =
            if active.up { self.config.child_count as usize } else { usize::from(self.config.parent.is_some()) };
        for sender in 0..senders {
            let receiver = if active.up { &self.streams.from_children[sender] } else { &self.streams.from_parent };
            let next = receiver.next;
            for ahead in 0..WINDOW {
                self.open(core, active.up, sender, next.wrapping_add(ahead));
            }
        }
        self.streams.to_parent.first = self.streams.to_parent.next;
        self.streams.to_children.first = self.streams.to_children.next;
        if active.spacing_cycles > 0 {
            // A barrier has let all cores go at once; their first packets would stand in each other's way.
            let turn = core.now_cycles() + u64::from(self.config.slot * LINK_CYCLES);
            while core.now_cycles() < turn {
                self.answer(core).await;
                core.event(Some(turn)).await;
            }
        }
    }
}

fn transfer(direction: Direction, sdram: u32, dtcm: u32, words: u32, tag: u8) -> Transfer {
    let bytes = words * 4;
    Transfer { direction, sdram, dtcm, row_bytes: bytes, rows: 1, sdram_stride: bytes, dtcm_stride: bytes, tag }
}

fn copy(src: u32, dst: u32, count: u32) -> KernelCall {
    CopyRows { src, dst, rows: 1, count, src_stride: count, dst_stride: count }.into()
}
