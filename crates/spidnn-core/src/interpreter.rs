//! What a command list says, one deed after the other: loops, conditions and patches are resolved here, without waiting for anything.

use spidnn_kernels::KernelCall;
use spidnn_kernels::call::CALL_WORDS_MAX;

#[cfg(feature = "exchanges")]
use crate::command::Exchange;
use crate::command::{When, dma, loops, reg};
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

/// What a command list asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Deed {
    /// The segment has come to its end.
    End,
    /// Start a transfer.
    Transfer(Transfer),
    /// Wait for the transfers with a tag.
    Wait(u8),
    /// Run the kernel that was read.
    Kernel,
    /// Meet the other cores of the chip.
    Barrier,
    /// Sum a vector over all replicas.
    #[cfg(feature = "exchanges")]
    ReduceUp(Exchange),
    /// Copy a vector to all replicas.
    #[cfg(feature = "exchanges")]
    BroadcastDown(Exchange),
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
    /// The kernel call that was read last.
    call: KernelCall,
}

impl Interpreter {
    /// Before the first run.
    pub const EMPTY: Interpreter = Interpreter {
        registers: [0; reg::COUNT],
        frames: [Frame::EMPTY; DEPTH_MAX],
        depth: 0,
        place: 0,
        commands: 0,
        call: KernelCall::NOTHING,
    };

    /// Begins a run.
    pub fn begin_run(&mut self, registers: &[u32; reg::COUNT], commands_max: u64) {
        self.registers = *registers;
        self.commands = commands_max;
    }

    /// The kernel call of the last [`Deed::Kernel`].
    pub fn call(&self) -> &KernelCall {
        &self.call
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
            let mut parameters = [0; CALL_WORDS_MAX];
            let parameters = &mut parameters[..count];
            parameters.copy_from_slice(&segment[from..from + count]);
            for patch in segment[from + count..to].chunks_exact(2) {
                let (word, register) = ((patch[0] & 0xFF) as usize, (patch[0] >> 8) as usize);
                if word >= count || register >= reg::COUNT {
                    return Err(bad);
                }
                parameters[word] = parameters[word].wrapping_add(self.registers[register].wrapping_mul(patch[1]));
            }
            return Ok(match (head & 0xFF, &*parameters) {
                (opcode::DMA, p) if count == 10 => match transfer(p, bad)? {
                    Some(transfer) => Deed::Transfer(transfer),
                    None => continue,
                },
                (opcode::WAIT, &[tag]) if tag < 16 => Deed::Wait(tag as u8),
                (opcode::BARRIER, []) => Deed::Barrier,
                #[cfg(feature = "exchanges")]
                (opcode::REDUCE_UP, p) if count == 4 => Deed::ReduceUp(exchange(p, bad)?),
                #[cfg(feature = "exchanges")]
                (opcode::BROADCAST_DOWN, p) if count == 4 => Deed::BroadcastDown(exchange(p, bad)?),
                (opcode::LOOP, p) => {
                    self.begin_loop(core, p, end).ok_or(bad)?;
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
    fn begin_loop<C: Core>(&mut self, core: &C, p: &[u32], limit: u32) -> Option<()> {
        let &[number, start, step, items, total_divisor, divisor, last, body] = p else { return None };
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

/// A transfer with its rows clamped; `None` if there are none left.
#[inline(never)]
fn transfer(p: &[u32], bad: Failure) -> Result<Option<Transfer>, Failure> {
    let (first, rows, limit) = (
        i64::from(p[usize::from(dma::FIRST)] as i32),
        i64::from(p[usize::from(dma::ROWS)]),
        i64::from(p[usize::from(dma::LIMIT)]),
    );
    let from = first.max(0);
    let to = (first + rows).min(limit);
    if from >= to {
        return Ok(None);
    }
    let (sdram, dtcm, row_bytes) = (u64::from(p[1]), u64::from(p[2]), u64::from(p[3]));
    let (sdram_stride, dtcm_stride) = (u64::from(p[7]), u64::from(p[8]));
    let count = (to - from) as u64;
    if row_bytes == 0 {
        return Ok(None);
    }
    if p[0] > 1 || p[usize::from(dma::TAG)] >= 16 {
        return Err(bad);
    }
    let sdram_at = sdram + from as u64 * sdram_stride;
    let dtcm_at = dtcm + (from - first) as u64 * dtcm_stride;
    let sdram_end = (count - 1).saturating_mul(sdram_stride).saturating_add(row_bytes);
    let dtcm_end = (count - 1).saturating_mul(dtcm_stride).saturating_add(row_bytes).saturating_add(dtcm_at);
    let aligned = (sdram_at | dtcm_at | row_bytes | sdram_stride | dtcm_stride).is_multiple_of(4);
    // Rows may lie upon each other, but nothing moves more than fits into a program's part of DTCM.
    let dtcm_bytes = u64::from(memory::BUFFERS_END);
    let sound = u32::try_from(sdram_at).is_ok_and(|a| in_sdram(a, sdram_end))
        && dtcm_end <= dtcm_bytes
        && count.saturating_mul(row_bytes) <= dtcm_bytes;
    if !aligned || !sound {
        return Err(Failure::new(ErrorCode::BadTransfer, sdram_at as u32, dtcm_at as u32));
    }
    let direction = if p[0] == 0 { Direction::In } else { Direction::Out };
    Ok(Some(Transfer {
        direction,
        sdram: sdram_at as u32,
        dtcm: dtcm_at as u32,
        row_bytes: p[3],
        rows: count as u32,
        sdram_stride: p[7],
        dtcm_stride: p[8],
        tag: p[usize::from(dma::TAG)] as u8,
    }))
}

const _: () = assert!(loops::TOTAL == 3 && loops::START == 1);
