//! The interpreter: reads a core's image from SDRAM and executes its programs, one run after each start signal.

use spidnn_kernels::call::CALL_WORDS_MAX;

#[cfg(feature = "exchanges")]
use crate::command::Exchange;
use crate::command::{When, dma, loops, reg};
use crate::core_trait::{Core, Direction, Transfer};
use crate::error::{ErrorCode, Failure};
use crate::exchange::Links;
use crate::program::{
    CONFIG_WORDS, CoreConfig, HEADER_WORDS, MAGIC, PROGRAMS, RUN_BLOCK_WORDS, SEGMENT_WORDS_MAX, VERSION, memory,
    opcode, registers_of,
};

/// First byte of SDRAM, and its size.
const SDRAM: (u64, u64) = (0x6000_0000, 128 << 20);
/// Commands that one run may execute, those passed over included: far more than any batch takes. So a damaged list ends, too.
const COMMANDS_MAX: u64 = 1 << 32;
/// Tags of the two halves of the segment buffer.
const TAG_SEGMENT: u8 = 14;

/// Cycles to fetch a command and branch on its opcode: LDR header 2, four field extractions 4, condition 3, table jump 8,
/// return 3, rounded up.
const COMMAND_CYCLES: u32 = 24;
/// Cycles for each parameter word: LDM/STM copy to the working array, 2, and its use, 1.
const WORD_CYCLES: u32 = 3;
/// Cycles for each patch: LDRD 2, field extraction 2, register LDR 2, MLA 3, LDR and STR of the word 3.
const PATCH_CYCLES: u32 = 12;
/// Cycles for the registers of a loop's turn: counters and comparisons 16, two divisions by a constant of the loop, of about 40.
const TURN_CYCLES: u32 = 96;

/// Runs a core for ever: image at `image` (SDRAM byte address). Returns when the core cannot go on; the error has
/// been told to the host by [`Core::fail`].
pub async fn run<C: Core>(core: &C, image: u32) {
    run_limited(core, image, COMMANDS_MAX).await;
}

/// As [`run`], with a limit of the commands that one run executes; beyond it the core fails with [`ErrorCode::TooLong`].
pub async fn run_limited<C: Core>(core: &C, image: u32, commands_max: u64) {
    if let Err(failure) = serve(core, image, commands_max).await {
        core.fail(failure.code as u32, failure.detail);
    }
}

async fn load<C: Core>(core: &C, sdram: u32, dtcm: u32, words: u32, tag: u8) {
    let bytes = words * 4;
    let direction = Direction::In;
    core.dma(Transfer {
        direction,
        sdram,
        dtcm,
        row_bytes: bytes,
        rows: 1,
        sdram_stride: bytes,
        dtcm_stride: bytes,
        tag,
    })
    .await;
}

fn in_sdram(address: u32, bytes: u64) -> bool {
    let start = u64::from(address);
    address.is_multiple_of(4) && start >= SDRAM.0 && start.saturating_add(bytes) <= SDRAM.0 + SDRAM.1
}

async fn serve<C: Core>(core: &C, image: u32, commands_max: u64) -> Result<(), Failure> {
    if !in_sdram(image, HEADER_WORDS as u64 * 4) {
        return Err(Failure::new(ErrorCode::BadImage, 0, image));
    }
    // Nothing else is in DTCM yet: the header may go anywhere.
    load(core, image, 0, HEADER_WORDS as u32, TAG_SEGMENT).await;
    core.dma_done(TAG_SEGMENT).await;
    let mut header = [0; HEADER_WORDS];
    core.read(0, &mut header);
    if header[0] != MAGIC {
        return Err(Failure::new(ErrorCode::BadImage, header[0], image));
    }
    if header[1] != VERSION {
        return Err(Failure::new(ErrorCode::BadVersion, header[1], VERSION));
    }
    let total = header[2];
    if !in_sdram(image, u64::from(total) * 4) || header[3] as usize != PROGRAMS {
        return Err(Failure::new(ErrorCode::BadImage, total, image));
    }
    let mut words = [0; CONFIG_WORDS];
    words.copy_from_slice(&header[4..4 + CONFIG_WORDS]);
    let config = CoreConfig::from_words(&words).ok_or(Failure::new(ErrorCode::BadConfig, words[0], image))?;
    if !in_sdram(config.run_block, RUN_BLOCK_WORDS as u64 * 4) {
        return Err(Failure::new(ErrorCode::BadConfig, config.run_block, image));
    }
    let mut runner =
        Runner { core, config, image, total, links: Links::new(config), registers: [0; reg::COUNT], commands: 0 };
    loop {
        // Neighbours that have not heard the last word of an exchange still ask.
        while !core.wait_start().await {
            runner.links.answer(core).await;
        }
        load(core, config.run_block, config.segment_buffer, RUN_BLOCK_WORDS as u32, TAG_SEGMENT).await;
        core.dma_done(TAG_SEGMENT).await;
        let mut block = [0; RUN_BLOCK_WORDS];
        core.read(config.segment_buffer, &mut block);
        let (program, registers) =
            registers_of(&block).ok_or(Failure::new(ErrorCode::BadRunBlock, block[0], config.run_block))?;
        core.write(config.scalars, &block[16..]);
        runner.registers = registers;
        runner.commands = commands_max;
        let first = 4 + CONFIG_WORDS + 2 * program as usize;
        if program as usize >= PROGRAMS {
            return Err(Failure::new(ErrorCode::BadProgram, program, 0));
        }
        runner.program(header[first], header[first + 1]).await?;
    }
}

struct Runner<'a, C: Core> {
    core: &'a C,
    config: CoreConfig,
    image: u32,
    total: u32,
    links: Links,
    registers: [u32; reg::COUNT],
    /// Commands that this run may still execute.
    commands: u64,
}

/// A loop that is being executed.
#[derive(Debug, Clone, Copy, Default)]
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
    fn has_next(&self) -> bool {
        self.index.checked_add(self.step).is_some_and(|next| next < self.total)
    }
}

impl<C: Core> Runner<'_, C> {
    /// Executes a program: the segment at `offset`, and those that follow it.
    async fn program(&mut self, offset: u32, words: u32) -> Result<(), Failure> {
        let half = (self.config.segment_buffer_bytes / 8).min(SEGMENT_WORDS_MAX as u32);
        let (mut offset, mut words) = (offset, words);
        if words == 0 {
            // A core that has nothing to do in this program.
            return Ok(());
        }
        let mut parity = 0;
        self.fetch(offset, words, parity, half).await?;
        while words != 0 {
            let at = self.config.segment_buffer + parity * half * 4;
            self.core.dma_done(TAG_SEGMENT + parity as u8).await;
            let segment = self.core.segment(at, words);
            let segment = segment.as_ref();
            let next_words = segment[0];
            let next_offset = offset + words;
            if next_words != 0 {
                self.fetch(next_offset, next_words, 1 - parity, half).await?;
            }
            self.segment(segment).await?;
            (offset, words) = (next_offset, next_words);
            parity = 1 - parity;
        }
        Ok(())
    }

    async fn fetch(&self, offset: u32, words: u32, parity: u32, half: u32) -> Result<(), Failure> {
        if words > half || u64::from(offset) + u64::from(words) > u64::from(self.total) {
            return Err(Failure::new(ErrorCode::BadImage, offset, words));
        }
        let to = self.config.segment_buffer + parity * half * 4;
        load(self.core, self.image + offset * 4, to, words, TAG_SEGMENT + parity as u8).await;
        Ok(())
    }

    /// Executes a segment.
    async fn segment(&mut self, segment: &[u32]) -> Result<(), Failure> {
        let words = segment.len() as u32;
        let mut frames = [Frame::default(); 2];
        let mut depth = 0;
        // The first word is the length of the next segment.
        let mut place = 1;
        loop {
            // The end of a loop's body, or of several.
            while depth > 0 && place == frames[depth - 1].end {
                let frame = &mut frames[depth - 1];
                if frame.has_next() {
                    frame.index += frame.step;
                    frame.parity = 1 - frame.parity;
                    frame.first = false;
                    place = frame.begin;
                    let frame = *frame;
                    self.set_loop(&frame);
                } else {
                    depth -= 1;
                }
            }
            if place >= words {
                return Ok(());
            }
            let head = segment[place as usize];
            let bad = Failure::new(ErrorCode::BadCommand, head, place);
            let (count, patches) = ((head >> 8 & 0xFF) as usize, (head >> 16 & 0xFF) as usize);
            let length = 1 + count + 2 * patches;
            let innermost = if depth > 0 { Some(frames[depth - 1]) } else { None };
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
            self.core.charge(COMMAND_CYCLES);
            if !runs {
                place += length as u32;
                continue;
            }
            self.core.charge(WORD_CYCLES * count as u32 + PATCH_CYCLES * patches as u32);
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
            place += length as u32;
            match (head & 0xFF, &*parameters) {
                (opcode::DMA, p) if count == 10 => self.transfer(p, bad).await?,
                (opcode::WAIT, &[tag]) => {
                    if tag >= 16 {
                        return Err(bad);
                    }
                    self.core.dma_done(tag as u8).await;
                }
                (opcode::BARRIER, []) => self.links.barrier(self.core).await?,
                #[cfg(feature = "exchanges")]
                (opcode::REDUCE_UP, p) if count == 4 => {
                    let exchange = self.exchange(p, bad)?;
                    self.links.reduce_up(self.core, &exchange).await?;
                }
                #[cfg(feature = "exchanges")]
                (opcode::BROADCAST_DOWN, p) if count == 4 => {
                    let exchange = self.exchange(p, bad)?;
                    self.links.broadcast_down(self.core, &exchange).await?;
                }
                (opcode::LOOP, &[number, start, step, items, total_divisor, divisor, last, body]) => {
                    let end = place.checked_add(body).filter(|&e| e <= words).ok_or(bad)?;
                    let inside = innermost.is_none_or(|f| end <= f.end);
                    if number as usize != depth
                        || depth >= 2
                        || step == 0
                        || total_divisor == 0
                        || divisor == 0
                        || !inside
                    {
                        return Err(bad);
                    }
                    let total = items.div_ceil(total_divisor).min(last);
                    if start >= total || body == 0 {
                        place = end;
                        continue;
                    }
                    let frame = Frame {
                        begin: place,
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
                    self.set_loop(&frame);
                    frames[depth] = frame;
                    depth += 1;
                }
                (code, p) if code >= opcode::KERNEL => {
                    let number = code - opcode::KERNEL;
                    let call = self
                        .core
                        .kernel_call(number, p, memory::BUFFERS_END)
                        .map_err(|code| Failure::new(code, number, place))?;
                    self.core.kernel(&call).await;
                }
                _ => return Err(bad),
            }
            // A neighbour that has not heard the last word of an exchange does not wait for the end of a long stage.
            self.links.answer(self.core).await;
        }
    }

    #[cfg(feature = "exchanges")]
    fn exchange(&self, p: &[u32], bad: Failure) -> Result<Exchange, Failure> {
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

    async fn transfer(&self, p: &[u32], bad: Failure) -> Result<(), Failure> {
        let (first, rows, limit) = (
            i64::from(p[usize::from(dma::FIRST)] as i32),
            i64::from(p[usize::from(dma::ROWS)]),
            i64::from(p[usize::from(dma::LIMIT)]),
        );
        let from = first.max(0);
        let to = (first + rows).min(limit);
        if from >= to {
            return Ok(());
        }
        let (sdram, dtcm, row_bytes) = (u64::from(p[1]), u64::from(p[2]), u64::from(p[3]));
        let (sdram_stride, dtcm_stride) = (u64::from(p[7]), u64::from(p[8]));
        let count = (to - from) as u64;
        if row_bytes == 0 {
            return Ok(());
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
        self.core
            .dma(Transfer {
                direction,
                sdram: sdram_at as u32,
                dtcm: dtcm_at as u32,
                row_bytes: p[3],
                rows: count as u32,
                sdram_stride: p[7],
                dtcm_stride: p[8],
                tag: p[usize::from(dma::TAG)] as u8,
            })
            .await;
        Ok(())
    }

    /// Sets the registers of a loop's turn.
    fn set_loop(&mut self, f: &Frame) {
        self.core.charge(TURN_CYCLES);
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

const _: () = assert!(loops::TOTAL == 3 && loops::START == 1);
