//! What a command list says, one deed after the other: loops, conditions and patches are resolved here, without waiting for anything.

use spidnn_kernels::KernelCall;
use spidnn_kernels::call::CALL_WORDS_MAX;

#[cfg(feature = "exchanges")]
use crate::command::Exchange;
use crate::command::{When, loops, reg};
use crate::core_trait::{Core, Direction, Transfer};
use crate::error::{ErrorCode, Failure};
use crate::program::{in_sdram, memory, opcode};

/// Cycles to fetch a command and branch on its opcode: LDR header 2, four field extractions 4, condition 3, table jump 8,
/// return 3, rounded up.
const COMMAND_CYCLES: u32 = 24;
/// Cycles for each parameter word: LDM/STM copy to the working array, 2, and its use, 1.
const WORD_CYCLES: u32 = 3;
/// Cycles for each patch: LDRD 2, field extraction 2, register LDR 2, MLA 3, LDR and STR of the word 3.
const PATCH_CYCLES: u32 = 12;
/// Cycles for the registers of a loop's turn: counters and comparisons 16, two divisions by a constant of the loop, of about 40.
const TURN_CYCLES: u32 = 96;
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
        parity: 0,
        first: false,
    };

    fn has_next(&self) -> bool {
        self.index.checked_add(self.step).is_some_and(|next| next < self.total)
    }
}

/// Where a core stands in its command list.
#[derive(Debug)]
pub(crate) struct Interpreter {
    registers: [u32; reg::COUNT],
    frames: [Frame; DEPTH_MAX],
    depth: usize,
    /// Word of the segment that comes next.
    place: u32,
    /// Commands that this run may still execute.
    commands: u64,
    /// Parameters of the command at hand, patched.
    parameters: [u32; CALL_WORDS_MAX],
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
        place: 0,
        commands: 0,
        parameters: [0; CALL_WORDS_MAX],
        call: KernelCall::NOTHING,
        transfer: NO_TRANSFER,
        tag: 0,
        #[cfg(feature = "exchanges")]
        exchange: Exchange { sdram: 0, words: 0, scratch: 0, scratch_bytes: 0 },
    };

    /// Begins a run.
    pub fn begin_run(&mut self, registers: &[u32; reg::COUNT], commands_max: u64) {
        self.registers = *registers;
        self.commands = commands_max;
    }

    /// Begins a segment.
    pub fn begin_segment(&mut self) {
        self.depth = 0;
        // The first word is the length of the next segment.
        self.place = 1;
    }

    /// The next deed of the segment.
    #[inline(never)]
    pub fn next<C: Core>(&mut self, core: &C, segment: &[u32]) -> Result<Deed, Failure> {
        let words = segment.len() as u32;
        loop {
            // The end of a loop's body, or of several.
            while self.depth > 0 && self.place == self.frames[self.depth - 1].end {
                let frame = &mut self.frames[self.depth - 1];
                if frame.has_next() {
                    frame.index += frame.step;
                    frame.parity = 1 - frame.parity;
                    frame.first = false;
                    self.place = frame.begin;
                    self.set_loop(core);
                } else {
                    self.depth -= 1;
                }
            }
            if self.place >= words {
                return Ok(Deed::End);
            }
            let place = self.place;
            let head = segment[place as usize];
            let bad = Failure::new(ErrorCode::BadCommand, head, place);
            let (count, patches) = ((head >> 8 & 0xFF) as usize, (head >> 16 & 0xFF) as usize);
            let length = 1 + count + 2 * patches;
            let innermost = self.depth.checked_sub(1).map(|d| &self.frames[d]);
            let end = innermost.map_or(words, |f| f.end);
            if count > CALL_WORDS_MAX || place + length as u32 > end {
                return Err(bad);
            }
            self.commands = self.commands.checked_sub(1).ok_or(Failure::new(ErrorCode::TooLong, head, place))?;
            let runs = match head >> 24 {
                0 => true,
                c if c == When::First as u32 => innermost.is_none_or(|f| f.first),
                c if c == When::Next as u32 => innermost.is_none_or(|f| f.has_next()),
                c if c == When::Last as u32 => innermost.is_none_or(|f| !f.has_next()),
                _ => return Err(bad),
            };
            core.charge(COMMAND_CYCLES);
            self.place = place + length as u32;
            if !runs {
                continue;
            }
            core.charge(WORD_CYCLES * count as u32 + PATCH_CYCLES * patches as u32);
            let (from, to) = (place as usize + 1, place as usize + length);
            let parameters = &mut self.parameters[..count];
            parameters.copy_from_slice(&segment[from..from + count]);
            for patch in segment[from + count..to].chunks_exact(2) {
                let (word, register) = ((patch[0] & 0xFF) as usize, (patch[0] >> 8) as usize);
                if word >= count || register >= reg::COUNT {
                    return Err(bad);
                }
                parameters[word] = parameters[word].wrapping_add(self.registers[register].wrapping_mul(patch[1]));
            }
            let parameters = &self.parameters[..count];
            return Ok(match (head & 0xFF, parameters) {
                (opcode::DMA, p) => {
                    if !transfer(p, bad, &mut self.transfer)? {
                        continue;
                    }
                    Deed::Transfer
                }
                (opcode::WAIT, &[tag]) if tag < 16 => {
                    self.tag = tag as u8;
                    Deed::Wait
                }
                (opcode::BARRIER, []) => Deed::Barrier,
                #[cfg(feature = "exchanges")]
                (opcode::REDUCE_UP, p) if count == 4 => {
                    self.exchange = exchange(p, bad)?;
                    Deed::ReduceUp
                }
                #[cfg(feature = "exchanges")]
                (opcode::BROADCAST_DOWN, p) if count == 4 => {
                    self.exchange = exchange(p, bad)?;
                    Deed::BroadcastDown
                }
                (opcode::LOOP, p) if p.len() == 8 => {
                    self.begin_loop(core, end).ok_or(bad)?;
                    continue;
                }
                (code, p) if code >= opcode::KERNEL => {
                    let number = code - opcode::KERNEL;
                    core.read_call(number, p, memory::BUFFERS_END, &mut self.call)
                        .map_err(|code| Failure::new(code, number, self.place))?;
                    Deed::Kernel
                }
                _ => return Err(bad),
            });
        }
    }

    /// Enters a loop, or passes over one without turns; `None` for one that makes no sense. Its body begins at the current place
    /// and must end at `limit` or before.
    #[inline(never)]
    fn begin_loop<C: Core>(&mut self, core: &C, limit: u32) -> Option<()> {
        let [number, start, step, items, total_divisor, divisor, last, body, ..] = self.parameters;
        let end = self.place.checked_add(body).filter(|&e| e <= limit)?;
        let depth = self.depth;
        let sound = step != 0 && total_divisor != 0 && divisor != 0;
        if number as usize != depth || depth >= DEPTH_MAX || !sound {
            return None;
        }
        let total = items.div_ceil(total_divisor).min(last);
        if start >= total || body == 0 {
            self.place = end;
            return Some(());
        }
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
            parity: 0,
            first: true,
        };
        self.depth += 1;
        self.set_loop(core);
        Some(())
    }

    /// Sets the registers of the innermost loop's turn.
    fn set_loop<C: Core>(&mut self, core: &C) {
        let Some(f) = self.depth.checked_sub(1).map(|d| &self.frames[d]) else { return };
        core.charge(TURN_CYCLES);
        let base = usize::from(reg::loop_index(f.depth));
        let count = usize::from(reg::loop_count(f.depth));
        for (offset, index, parity) in [(0, f.index, f.parity), (4, f.index.wrapping_add(f.step), 1 - f.parity)] {
            self.registers[base + offset] = index;
            self.registers[base + offset + 1] = index / f.divisor;
            self.registers[base + offset + 2] = index % f.divisor;
            self.registers[base + offset + 3] = parity;
            let left = f.items.saturating_sub(index.saturating_mul(f.total_divisor));
            self.registers[count + offset / 4] = left.min(f.total_divisor);
        }
    }
}

#[cfg(feature = "exchanges")]
fn exchange(p: &[u32], bad: Failure) -> Result<Exchange, Failure> {
    let exchange = Exchange { sdram: p[0], words: p[1], scratch: p[2], scratch_bytes: p[3] };
    let scratch = u64::from(exchange.scratch) + u64::from(exchange.scratch_bytes);
    if !in_sdram(exchange.sdram, u64::from(exchange.words) * 4)
        || exchange.scratch_bytes < crate::command::EXCHANGE_SCRATCH_BYTES
        || !exchange.scratch.is_multiple_of(4)
        || scratch > memory::BUFFERS_END.into()
    {
        return Err(bad);
    }
    Ok(exchange)
}

/// A transfer with its rows clamped; `false` if there are none left.
#[inline(never)]
fn transfer(p: &[u32], bad: Failure, t: &mut Transfer) -> Result<bool, Failure> {
    let &[out, sdram, dtcm, row_bytes, first, rows, limit, sdram_stride, dtcm_stride, tag] = p else { return Err(bad) };
    let first = i64::from(first as i32);
    let from = first.max(0);
    let to = (first + i64::from(rows)).min(limit.into());
    if from >= to || row_bytes == 0 {
        return Ok(false);
    }
    if out > 1 || tag >= 16 {
        return Err(bad);
    }
    // Products of two words: nothing overflows.
    let product = |a: u32, b: u32| u64::from(a) * u64::from(b);
    let (count, skipped) = ((to - from) as u32, (from - first) as u32);
    let sdram_at = u64::from(sdram) + product(from as u32, sdram_stride);
    let dtcm_at = u64::from(dtcm) + product(skipped, dtcm_stride);
    let behind = |stride: u32| product(count - 1, stride) + u64::from(row_bytes);
    let aligned = (sdram_at as u32 | dtcm_at as u32 | row_bytes | sdram_stride | dtcm_stride).is_multiple_of(4);
    // Rows may lie upon each other, but nothing moves more than fits into a program's part of DTCM.
    let dtcm_bytes = u64::from(memory::BUFFERS_END);
    let sound = u32::try_from(sdram_at).is_ok_and(|at| in_sdram(at, behind(sdram_stride)))
        && dtcm_at <= dtcm_bytes
        && dtcm_at + behind(dtcm_stride) <= dtcm_bytes
        && product(count, row_bytes) <= dtcm_bytes;
    if !aligned || !sound {
        return Err(Failure::new(ErrorCode::BadTransfer, sdram_at as u32, dtcm_at as u32));
    }
    *t = Transfer {
        direction: if out == 0 { Direction::In } else { Direction::Out },
        sdram: sdram_at as u32,
        dtcm: dtcm_at as u32,
        row_bytes,
        rows: count,
        sdram_stride,
        dtcm_stride,
        tag: tag as u8,
    };
    Ok(true)
}

const _: () = assert!(loops::TOTAL == 3 && loops::START == 1);
