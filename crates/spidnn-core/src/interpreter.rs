//! What a command list says, one deed after the other: loops, conditions and patches are resolved here, without waiting for anything.

use spidnn_kernels::call::CALL_WORDS_MAX;
use spidnn_kernels::dtcm::times;
use spidnn_kernels::{DecodeError, KernelCall};

#[cfg(feature = "exchanges")]
use crate::command::Exchange;
use crate::command::{When, loops, reg};
use crate::core_trait::{Core, Direction, Transfer};
use crate::error::{ErrorCode, Failure};
use crate::program::{RUN_BLOCK_WORDS, in_sdram, memory, opcode, set_registers};

/// Cycles of every command, as the firmware takes them (measured: `cargo run --release -p spidnn --example runtime_truth`): fetch, condition,
/// dispatch, a look at what has arrived.
pub(crate) const COMMAND_CYCLES: u32 = 165;
/// Cycles for each parameter word of another command than a kernel.
pub(crate) const WORD_CYCLES: u32 = 8;
/// Cycles for each patch.
const PATCH_CYCLES: u32 = 20;
/// Cycles for the registers of a loop's turn.
const TURN_CYCLES: u32 = 120;
/// Cycles more for a kernel with so many parameters: the call is read.
const fn kernel_cycles(words: u32) -> u32 {
    40 + 4 * words
}
/// Processor time to charge: none on a real core, which takes it.
#[derive(Debug)]
struct Charge(u32);

impl Charge {
    fn add(&mut self, cycles: u32) {
        if !cfg!(target_os = "none") {
            self.0 += cycles;
        }
    }
}

/// A bit for each condition of commands ([`When`]).
const ALWAYS: u32 = 1 << When::Always as u32;
const FIRST: u32 = 1 << When::First as u32;
const NEXT_TURN: u32 = 1 << When::Next as u32;
const LAST: u32 = 1 << When::Last as u32;
/// From a register of this turn to that of the next.
const NEXT: usize = 4;
/// Loops within each other at most.
const DEPTH_MAX: usize = 2;

const NO_TRANSFER: Transfer = Transfer {
    direction: Direction::In,
    sdram: 0,
    dtcm: 0,
    row_bytes: 0,
    rows: 0,
    sdram_stride: 0,
    dtcm_stride: 0,
    tag: 0,
};

/// What a command list asks for. What it needs for that is in the interpreter: a core copies little.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Deed {
    /// The segment has come to its end.
    End,
    /// The command is done: a loop was entered, or nothing was to be transferred.
    Nothing,
    /// Start the transfer that was read.
    Transfer,
    /// Wait for the transfers with the tag that was read.
    Wait,
    /// Run the kernel that was read.
    Kernel,
    /// Meet the other cores of the chip.
    Barrier,
    /// Sum the vector of the exchange that was read over all replicas.
    #[cfg(feature = "exchanges")]
    ReduceUp,
    /// Copy its vector to all replicas.
    #[cfg(feature = "exchanges")]
    BroadcastDown,
    /// The list makes no sense: see [`Interpreter::failure`].
    Fail,
}

/// A loop that is being executed.
#[derive(Debug, Clone, Copy)]
struct Frame {
    /// Words of the segment at which the body begins and ends.
    begin: u32,
    end: u32,
    depth: u8,
    index: u32,
    step: u32,
    total: u32,
    items: u32,
    total_divisor: u32,
    divisor: u32,
    /// What a step adds to sample and block.
    step_sample: u32,
    step_block: u32,
    parity: u32,
    first: bool,
}

impl Frame {
    const EMPTY: Frame = Frame {
        begin: 0,
        end: 0,
        depth: 0,
        index: 0,
        step: 0,
        total: 0,
        items: 0,
        total_divisor: 1,
        divisor: 1,
        step_sample: 0,
        step_block: 0,
        parity: 0,
        first: false,
    };

    /// Items of the turn with an index.
    fn items_at(&self, index: u32) -> u32 {
        self.items.saturating_sub(index.saturating_mul(self.total_divisor)).min(self.total_divisor)
    }
}

/// Where a core stands in its command list.
#[derive(Debug)]
pub(crate) struct Interpreter {
    registers: [u32; reg::COUNT],
    frames: [Frame; DEPTH_MAX],
    depth: usize,
    /// Words of the segment, and the word that comes next.
    words: u32,
    place: u32,
    /// Where the innermost body ends, or the segment; the conditions that hold in this turn.
    end: u32,
    holds: u32,
    /// Commands that this run may still execute.
    commands: u32,
    /// Parameters of the command at hand, patched.
    parameters: [u32; CALL_WORDS_MAX],
    /// Cycles that the interpreter itself has taken, as far as they have not been charged.
    charged: Charge,
    /// Kernels and transfers outside of loops that say the same in every run (those without patches), a bit for each of the first 32 of a
    /// segment: whether they have been found sound. The bit of the command at hand (0: it is none of them), and that of the next one.
    sound: u32,
    bit: u32,
    next_bit: u32,
    /// Why there is nothing to do.
    pub failure: Failure,
    /// What was read last for each kind of deed.
    pub call: KernelCall,
    pub transfer: Transfer,
    pub tag: u8,
    #[cfg(feature = "exchanges")]
    pub exchange: Exchange,
}

impl Interpreter {
    /// Before the first run.
    pub const EMPTY: Interpreter = Interpreter {
        registers: [0; reg::COUNT],
        frames: [Frame::EMPTY; DEPTH_MAX],
        depth: 0,
        words: 0,
        place: 0,
        end: 0,
        holds: ALWAYS,
        commands: 0,
        failure: Failure { code: ErrorCode::BadCommand, detail: [0; 2] },
        parameters: [0; CALL_WORDS_MAX],
        charged: Charge(0),
        sound: 0,
        bit: 0,
        next_bit: 1,
        call: KernelCall::NOTHING,
        transfer: NO_TRANSFER,
        tag: 0,
        #[cfg(feature = "exchanges")]
        exchange: Exchange { sdram: 0, words: 0, scratch: 0, scratch_bytes: 0, spacing_cycles: 0 },
    };

    /// Begins a run as its block says; the number of its program, `None` if it is not a run block of this version.
    pub fn begin_run(&mut self, block: &[u32; RUN_BLOCK_WORDS], commands_max: u64) -> Option<u32> {
        self.commands = u32::try_from(commands_max).unwrap_or(u32::MAX);
        set_registers(block, &mut self.registers)
    }

    /// Begins a segment, of which the commands with these bits have been found sound (see [`Interpreter::sound`]).
    pub fn begin_segment(&mut self, segment: &[u32], sound: u32) {
        self.depth = 0;
        self.sound = sound;
        self.next_bit = 1;
        // The first word is the length of the next segment.
        self.place = 1;
        self.words = segment.len() as u32;
        self.settle();
    }

    /// Where the innermost loop stands now: its end, and the conditions.
    #[cfg_attr(target_arch = "arm", instruction_set(arm::a32))]
    fn settle(&mut self) {
        if self.depth == 0 {
            self.end = self.words;
            self.holds = ALWAYS | FIRST | NEXT_TURN | LAST;
            return;
        }
        let frame = &self.frames[self.depth - 1];
        self.end = frame.end;
        let more = frame.total - frame.index > frame.step;
        self.holds = ALWAYS | if frame.first { FIRST } else { 0 } | if more { NEXT_TURN } else { LAST };
    }

    /// The cycles to charge.
    pub fn take_charge(&mut self) -> u32 {
        core::mem::take(&mut self.charged.0)
    }

    /// What has been found sound of the segment: a bit for each of its first commands that do not change.
    pub fn sound(&self) -> u32 {
        self.sound
    }

    /// Checks the kernel call of the last [`Deed::Kernel`], if it has not been found sound before.
    pub fn check_call<C: Core>(&mut self, core: &C) -> Result<(), Failure> {
        if self.sound & self.bit != 0 {
            return Ok(());
        }
        self.sound |= self.bit;
        core.check_call(&self.call, memory::BUFFERS_END)
            .map_err(|code| Failure::new(code, self.call.number(), self.place))?;
        if !cfg!(target_os = "none") {
            self.charged.add(self.call.check_cycles() as u32);
        }
        Ok(())
    }

    /// Takes a kernel's parameters as they are in the segment.
    #[inline(never)]
    fn take_call(&mut self, head: u32, place: u32, segment: &[u32]) -> bool {
        let number = (head & 0xFF) - opcode::KERNEL;
        let words = words_of(head, place, segment).unwrap_or_default();
        let Err(error) = self.call.read(number, words) else { return true };
        let code = match error {
            DecodeError::UnknownKernel(_) => ErrorCode::NoKernel,
            DecodeError::WrongLength { .. } => ErrorCode::BadKernel,
        };
        self.failure = Failure::new(code, number, self.place);
        false
    }

    /// Takes a transfer that was found sound, if its rows need no clamping.
    #[inline(never)]
    fn take_transfer(&mut self, head: u32, place: u32, segment: &[u32]) -> bool {
        let Some(&[out, sdram, dtcm, row_bytes, first, rows, limit, sdram_stride, dtcm_stride, tag]) =
            words_of(head, place, segment)
        else {
            return false;
        };
        if first != 0 || rows > limit || rows == 0 || row_bytes == 0 {
            return false;
        }
        let direction = if out == 0 { Direction::In } else { Direction::Out };
        let tag = tag as u8;
        self.transfer = Transfer { direction, sdram, dtcm, row_bytes, rows, sdram_stride, dtcm_stride, tag };
        true
    }

    /// The next deed of the segment that was begun. Every command goes through here, so on a core this is ARM code, plainly written: what
    /// the standard library's adaptors do would be calls of Thumb code.
    #[inline(never)]
    #[cfg_attr(target_arch = "arm", instruction_set(arm::a32))]
    pub fn next(&mut self, segment: &[u32]) -> Deed {
        loop {
            // The end of a loop's body, or of several.
            while self.place >= self.end {
                if self.depth == 0 {
                    return Deed::End;
                }
                if self.holds & NEXT_TURN != 0 {
                    self.turn();
                } else {
                    self.depth -= 1;
                }
                self.settle();
            }
            let place = self.place;
            let head = segment[place as usize];
            let (count, patches) = ((head >> 8 & 0xFF) as usize, (head >> 16 & 0xFF) as usize);
            let end = place + (1 + count + 2 * patches) as u32;
            if count > CALL_WORDS_MAX || end > self.end || head >> 26 != 0 {
                return self.bad(head, place);
            }
            if self.commands == 0 {
                return self.too_long(head, place);
            }
            self.commands -= 1;
            self.charged.add(COMMAND_CYCLES);
            self.place = end;
            if self.holds >> (head >> 24) & 1 == 0 {
                continue;
            }
            self.charged.add(PATCH_CYCLES * patches as u32);
            self.bit = 0;
            if patches == 0 && self.depth == 0 && count > 1 {
                self.bit = self.next_bit;
                self.next_bit <<= 1;
            }
            let mut at = place as usize + 1;
            let mut i = 0;
            let code = head & 0xFF;
            let is_kernel = code >= opcode::KERNEL;
            let parameters = if is_kernel {
                self.charged.add(kernel_cycles(count as u32));
                if !self.take_call(head, place, segment) {
                    return Deed::Fail;
                }
                if patches == 0 {
                    return Deed::Kernel;
                }
                self.call.parameters_mut()
            } else {
                // A transfer that does not change is read where it lies.
                if code == opcode::DMA && patches == 0 {
                    if self.sound & self.bit != 0 && self.take_transfer(head, place, segment) {
                        self.charged.add(crate::SOUND_QUEUE_CYCLES);
                        return Deed::Transfer;
                    }
                    match self.deed(head, place, segment) {
                        Deed::Nothing => continue,
                        deed => return deed,
                    }
                }
                self.charged.add(WORD_CYCLES * count as u32);
                while i < count {
                    self.parameters[i] = segment[at + i];
                    i += 1;
                }
                &mut self.parameters
            };
            at += count;
            i = 0;
            while i < patches {
                let patch = segment[at];
                let (word, register) = ((patch & 0xFF) as usize, (patch >> 8) as usize);
                if word >= count || register >= reg::COUNT {
                    return self.bad(head, place);
                }
                let change = self.registers[register].wrapping_mul(segment[at + 1]);
                parameters[word] = parameters[word].wrapping_add(change);
                at += 2;
                i += 1;
            }
            if is_kernel {
                return Deed::Kernel;
            }
            match (code, count) {
                (opcode::WAIT, 1) if self.parameters[0] < 16 => {
                    self.tag = self.parameters[0] as u8;
                    return Deed::Wait;
                }
                (opcode::BARRIER, 0) => return Deed::Barrier,
                (opcode::LOOP, 8) => {
                    if !self.begin_loop() {
                        return self.bad(head, place);
                    }
                }
                _ => match self.deed(head, place, &[]) {
                    Deed::Nothing => {}
                    deed => return deed,
                },
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn bad(&mut self, head: u32, place: u32) -> Deed {
        self.failure = Failure::new(ErrorCode::BadCommand, head, place);
        Deed::Fail
    }

    #[cold]
    #[inline(never)]
    fn too_long(&mut self, head: u32, place: u32) -> Deed {
        self.failure = Failure::new(ErrorCode::TooLong, head, place);
        Deed::Fail
    }

    /// What a transfer or an exchange asks for: with its parameters as they are in the segment, or (no segment) those that were patched.
    #[inline(never)]
    fn deed(&mut self, head: u32, place: u32, segment: &[u32]) -> Deed {
        let bad = Failure::new(ErrorCode::BadCommand, head, place);
        let count = (head >> 8 & 0xFF) as usize;
        let patched = self.parameters.get(..count);
        let parameters = words_of(head, place, segment).or(patched).unwrap_or_default();
        let outcome = match (head & 0xFF, parameters) {
            (opcode::DMA, p) => {
                // One that moves nothing is as good as sound.
                self.sound |= self.bit;
                self.charged.add(crate::QUEUE_CYCLES);
                transfer(p, bad, &mut self.transfer).map(|some| if some { Deed::Transfer } else { Deed::Nothing })
            }
            #[cfg(feature = "exchanges")]
            (opcode::REDUCE_UP, p) if count == 5 => exchange(p, bad).map(|exchange| {
                self.exchange = exchange;
                Deed::ReduceUp
            }),
            #[cfg(feature = "exchanges")]
            (opcode::BROADCAST_DOWN, p) if count == 5 => exchange(p, bad).map(|exchange| {
                self.exchange = exchange;
                Deed::BroadcastDown
            }),
            _ => Err(bad),
        };
        match outcome {
            Ok(deed) => deed,
            Err(failure) => {
                self.failure = failure;
                Deed::Fail
            }
        }
    }

    /// Enters a loop, or passes over one without turns; `false` for one that makes no sense. Its body begins at the current place
    /// and must end where the body around it does, or before.
    #[inline(never)]
    fn begin_loop(&mut self) -> bool {
        let [number, start, step, items, total_divisor, divisor, last, body, ..] = self.parameters;
        let depth = self.depth;
        let sound = step != 0 && total_divisor != 0 && divisor != 0 && body <= self.end - self.place;
        if number as usize != depth || depth >= DEPTH_MAX || !sound {
            return false;
        }
        let end = self.place + body;
        let (whole, rest) = divided(items, total_divisor);
        let total = (whole + u32::from(rest > 0)).min(last);
        if start >= total || body == 0 {
            self.place = end;
            return true;
        }
        let (step_sample, step_block) = divided(step, divisor);
        self.frames[depth] = Frame {
            begin: self.place,
            end,
            depth: number as u8,
            index: start,
            step,
            total,
            items,
            total_divisor,
            divisor,
            step_sample,
            step_block,
            parity: 0,
            first: true,
        };
        self.depth += 1;
        self.first_turn();
        self.settle();
        true
    }

    /// Sets the registers of the innermost loop's first turn, and of the one after it.
    fn first_turn(&mut self) {
        let f = self.frames[self.depth - 1];
        self.charged.add(TURN_CYCLES);
        self.set_turn(&f, 0, f.index, 0);
        self.set_turn(&f, NEXT, f.index.wrapping_add(f.step), 1);
    }

    /// Goes on to the innermost loop's next turn: the registers of the next become those of this turn, and the next but one's follow
    /// from them without a division.
    #[cfg_attr(target_arch = "arm", instruction_set(arm::a32))]
    fn turn(&mut self) {
        self.charged.add(TURN_CYCLES);
        let frame = &mut self.frames[self.depth - 1];
        let index = frame.index + frame.step;
        frame.index = index;
        frame.parity ^= 1;
        frame.first = false;
        self.place = frame.begin;
        let (base, count) = (8 + 8 * (frame.depth & 1) as usize, 24 + 2 * (frame.depth & 1) as usize);
        let r = &mut self.registers;
        let (mut sample, mut block) = (r[base + 5], r[base + 6]);
        (r[base], r[base + 1], r[base + 2], r[base + 3]) = (index, sample, block, frame.parity);
        r[count] = r[count + 1];
        sample = sample.wrapping_add(frame.step_sample);
        block += frame.step_block;
        if block >= frame.divisor {
            block -= frame.divisor;
            sample = sample.wrapping_add(1);
        }
        // Beyond the end where there is no next turn: nobody asks.
        let next = index.wrapping_add(frame.step);
        (r[base + 4], r[base + 5], r[base + 6], r[base + 7]) = (next, sample, block, 1 - frame.parity);
        r[count + 1] = frame.items_at(next);
    }

    /// The registers of a turn: this one (`offset` 0) or the next ([`NEXT`]).
    fn set_turn(&mut self, f: &Frame, offset: usize, index: u32, parity: u32) {
        let base = usize::from(reg::loop_index(f.depth)) + offset;
        let (sample, block) = divided(index, f.divisor);
        self.registers[base..base + NEXT].copy_from_slice(&[index, sample, block, parity]);
        self.registers[usize::from(reg::loop_count(f.depth)) + offset / NEXT] = f.items_at(index);
    }
}

/// The parameters of the command that begins at a place of a segment.
fn words_of(head: u32, place: u32, segment: &[u32]) -> Option<&[u32]> {
    segment.get(place as usize + 1..)?.get(..(head >> 8 & 0xFF) as usize)
}

#[cfg(feature = "exchanges")]
fn exchange(p: &[u32], bad: Failure) -> Result<Exchange, Failure> {
    let exchange = Exchange { sdram: p[0], words: p[1], scratch: p[2], scratch_bytes: p[3], spacing_cycles: p[4] };
    let scratch = u64::from(exchange.scratch) + u64::from(exchange.scratch_bytes);
    if !in_sdram(exchange.sdram, u64::from(exchange.words) * 4)
        || exchange.scratch_bytes < crate::command::EXCHANGE_SCRATCH_BYTES
        || !exchange.scratch.is_multiple_of(4)
        || exchange.spacing_cycles > crate::command::SPACING_CYCLES_MAX
        || scratch > memory::BUFFERS_END.into()
    {
        return Err(bad);
    }
    Ok(exchange)
}

/// Quotient and remainder; usual numbers need no division, for which a core has no instruction.
#[inline(never)]
fn divided(a: u32, b: u32) -> (u32, u32) {
    match b {
        1 => (a, 0),
        _ if a < b => (0, a),
        _ => (a / b, a % b),
    }
}

/// A transfer with its rows clamped; `false` if there are none left.
#[inline(never)]
fn transfer(p: &[u32], bad: Failure, t: &mut Transfer) -> Result<bool, Failure> {
    let &[out, sdram, dtcm, row_bytes, first, rows, limit, sdram_stride, dtcm_stride, tag] = p else { return Err(bad) };
    let first = first as i32;
    let (from, skipped) = (first.max(0) as u32, first.min(0).unsigned_abs());
    let to = from.saturating_add(rows.saturating_sub(skipped)).min(limit);
    if from >= to || row_bytes == 0 {
        return Ok(false);
    }
    if out > 1 || tag >= 16 {
        return Err(bad);
    }
    // What is beyond 32 bits is beyond any memory: all of this saturates.
    let count = to - from;
    let sdram_at = sdram.saturating_add(times(from, sdram_stride));
    let dtcm_at = dtcm.saturating_add(times(skipped, dtcm_stride));
    let behind = |stride: u32| times(count - 1, stride).saturating_add(row_bytes);
    let aligned = (sdram_at | dtcm_at | row_bytes | sdram_stride | dtcm_stride).is_multiple_of(4);
    // Rows may lie upon each other, but nothing moves more than fits into a program's part of DTCM.
    let sound = in_sdram(sdram_at, behind(sdram_stride).into())
        && dtcm_at.saturating_add(behind(dtcm_stride)) <= memory::BUFFERS_END
        && times(count, row_bytes) <= memory::BUFFERS_END;
    if !aligned || !sound {
        return Err(Failure::new(ErrorCode::BadTransfer, sdram_at, dtcm_at));
    }
    *t = Transfer {
        direction: if out == 0 { Direction::In } else { Direction::Out },
        sdram: sdram_at,
        dtcm: dtcm_at,
        row_bytes,
        rows: count,
        sdram_stride,
        dtcm_stride,
        tag: tag as u8,
    };
    Ok(true)
}

// Register numbers that `turn` computes.
const _: () = assert!(reg::loop_index(0) == 8 && reg::loop_index(1) == 16);
const _: () = assert!(reg::loop_count(0) == 24 && reg::loop_count(1) == 26);
const _: () = assert!(loops::TOTAL == 3 && loops::START == 1);
