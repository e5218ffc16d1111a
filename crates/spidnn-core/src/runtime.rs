//! The runtime: reads a core's image from SDRAM and executes its programs, one run after each start signal.

use maybe_async::maybe_async;

use crate::core_trait::{Core, Direction, Transfer};
use crate::error::{ErrorCode, Failure};
use crate::exchange::Links;
use crate::interpreter::{Deed, Interpreter};
#[cfg(feature = "exchanges")]
use crate::pages;
use crate::program::{
    CONFIG_WORDS, CoreConfig, HEADER_WORDS, MAGIC, PROGRAMS, RUN_BLOCK_WORDS, SEGMENT_WORDS_MAX, VERSION, in_sdram,
};

/// Commands that one run may execute, those passed over included: far more than any batch takes. So a damaged list ends, too.
const COMMANDS_MAX: u64 = 1 << 32;
/// Tags of the two halves of the segment buffer.
const TAG_SEGMENT: u8 = 14;

/// Runs a core for ever: image at `image` (SDRAM byte address). Returns when the core cannot go on; the error has
/// been told to the host by [`Core::fail`].
#[maybe_async]
pub async fn run<C: Core>(core: &C, image: u32) {
    run_limited(core, image, COMMANDS_MAX).await;
}

/// As [`run`], with a limit of the commands that one run executes; beyond it the core fails with [`ErrorCode::TooLong`].
#[maybe_async]
pub async fn run_limited<C: Core>(core: &C, image: u32, commands_max: u64) {
    if let Err(failure) = serve(core, image, commands_max).await {
        core.fail(failure.code as u32, failure.detail);
    }
}

#[maybe_async]
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

#[maybe_async]
async fn serve<C: Core>(core: &C, image: u32, commands_max: u64) -> Result<(), Failure> {
    let mut runner = Runner {
        core,
        config: CoreConfig::EMPTY,
        image,
        total: 0,
        programs: [[0; 2]; PROGRAMS],
        links: Links::EMPTY,
        interpreter: Interpreter::EMPTY,
        held: [(0, 0); 2],
        sound: [0; 2],
    };
    runner.read_head().await?;
    loop {
        // Neighbours that have not heard the last word of an exchange still ask.
        while !core.wait_start().await {
            runner.links.answer(core).await;
        }
        let program = runner.begin_run(commands_max).await? as usize;
        let &[offset, words] =
            runner.programs.get(program).ok_or(Failure::new(ErrorCode::BadProgram, program as u32, 0))?;
        runner.program(offset, words).await?;
    }
}

struct Runner<'a, C: Core> {
    core: &'a C,
    config: CoreConfig,
    image: u32,
    total: u32,
    /// First segment of each program: offset and words.
    programs: [[u32; 2]; PROGRAMS],
    links: Links,
    interpreter: Interpreter,
    /// Offset and words of the segments that the halves of the buffer hold.
    held: [(u32, u32); 2],
    /// What the interpreter has found sound in them.
    sound: [u32; 2],
}

#[maybe_async]
impl<C: Core> Runner<'_, C> {
    /// Reads the head of the image. (Kept apart from what runs, as are all that hold arrays: a core has a stack of 1.5 KiB.)
    #[inline(never)]
    async fn read_head(&mut self) -> Result<(), Failure> {
        let (core, image) = (self.core, self.image);
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
        for (program, words) in self.programs.iter_mut().zip(header[4 + CONFIG_WORDS..].chunks_exact(2)) {
            program.copy_from_slice(words);
        }
        self.total = total;
        self.config = config;
        self.links.configure(core, &config);
        Ok(())
    }

    /// Reads the run block; the number of the program to run.
    #[inline(never)]
    async fn begin_run(&mut self, commands_max: u64) -> Result<u32, Failure> {
        let (core, config) = (self.core, &self.config);
        // To the end of the buffer, where a segment seldom reaches.
        let place = config.segment_buffer + config.segment_buffer_bytes - RUN_BLOCK_WORDS as u32 * 4;
        load(core, config.run_block, place, RUN_BLOCK_WORDS as u32, TAG_SEGMENT).await;
        core.dma_done(TAG_SEGMENT).await;
        if self.held[1].1 > self.half() - RUN_BLOCK_WORDS as u32 {
            self.held[1] = (0, 0);
        }
        let block = core.segment(place, RUN_BLOCK_WORDS as u32);
        let bad = |found| Failure::new(ErrorCode::BadRunBlock, found, config.run_block);
        let block = block.as_ref().first_chunk().ok_or(bad(0))?;
        let program = self.interpreter.begin_run(block, commands_max).ok_or(bad(block[0]))?;
        core.write(config.scalars, &block[16..]);
        Ok(program)
    }

    /// Executes a program: the segment at `offset`, and those that follow it.
    async fn program(&mut self, offset: u32, words: u32) -> Result<(), Failure> {
        let half = self.half();
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
            self.interpreter.begin_segment(segment, self.sound[parity as usize]);
            self.segment(segment).await?;
            self.sound[parity as usize] = self.interpreter.sound();
            (offset, words) = (next_offset, next_words);
            parity = 1 - parity;
        }
        Ok(())
    }

    /// Words of half the segment buffer.
    fn half(&self) -> u32 {
        (self.config.segment_buffer_bytes / 8).min(SEGMENT_WORDS_MAX as u32)
    }

    /// Fetches a segment to a half of the buffer, unless it is there from the run before.
    async fn fetch(&mut self, offset: u32, words: u32, parity: u32, half: u32) -> Result<(), Failure> {
        let held = core::mem::replace(&mut self.held[parity as usize], (offset, words));
        if held == (offset, words) {
            return Ok(());
        }
        self.sound[parity as usize] = 0;
        if words > half || u64::from(offset) + u64::from(words) > u64::from(self.total) {
            return Err(Failure::new(ErrorCode::BadImage, offset, words));
        }
        let to = self.config.segment_buffer + parity * half * 4;
        load(self.core, self.image + offset * 4, to, words, TAG_SEGMENT + parity as u8).await;
        Ok(())
    }

    /// Executes the segment that the interpreter has begun.
    #[inline(never)]
    async fn segment(&mut self, segment: &[u32]) -> Result<(), Failure> {
        let core = self.core;
        loop {
            let deed = self.interpreter.next(segment);
            if let Deed::Kernel = deed {
                self.interpreter.check_call(core)?;
            }
            core.charge(self.interpreter.take_charge());
            let said = &self.interpreter;
            match deed {
                Deed::End => return Ok(()),
                Deed::Fail => return Err(said.failure),
                Deed::Nothing => {}
                Deed::Transfer => core.dma(said.transfer).await,
                Deed::Wait => core.dma_done(said.tag).await,
                Deed::Kernel => core.kernel(&said.call).await,
                Deed::Barrier => self.links.barrier(core).await?,
                #[cfg(feature = "exchanges")]
                Deed::ReduceUp => self.exchange(true).await?,
                #[cfg(feature = "exchanges")]
                Deed::BroadcastDown => self.exchange(false).await?,
            }
            // A neighbour that has not heard the last word of an exchange does not wait for the end of a long stage.
            self.links.answer(core).await;
        }
    }
    /// Takes part in the exchange that was read, whose code may have to be brought first.
    #[cfg(feature = "exchanges")]
    #[inline(never)]
    async fn exchange(&mut self, up: bool) -> Result<(), Failure> {
        self.core.code(pages::EXCHANGES).await;
        let exchange = &self.interpreter.exchange;
        if up {
            self.links.reduce_up(self.core, exchange).await
        } else {
            self.links.broadcast_down(self.core, exchange).await
        }
    }
}
