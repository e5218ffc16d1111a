//! The image of a core in SDRAM: configuration, programs, command lists; and the run block that the host writes before each
//! start. All words are little-endian.
//!
//! ```text
//! image:   MAGIC, VERSION, total words, PROGRAMS,
//!          configuration (CONFIG_WORDS),
//!          for each program: its first segment's offset in words from the start of the image, and its words (0: none),
//!          segments: words of the segment that follows (0: the last one), commands
//! command: opcode | parameter words << 8 | patches << 16 | condition << 24, parameters, patches
//! patch:   word | register << 8, scale
//! ```

use crate::command::reg;

/// First word of an image: `SPDN`.
pub const MAGIC: u32 = 0x4E44_5053;
/// Version of the format of images and run blocks.
pub const VERSION: u32 = 5;
/// Programs of an image.
pub const PROGRAMS: usize = 3;
/// Children of a chip in the tree of replicas at most (one for each link).
pub const CHILDREN_MAX: usize = 6;
/// Words of the configuration in an image.
pub const CONFIG_WORDS: usize = 16;
/// Words before the segments.
pub const HEADER_WORDS: usize = 4 + CONFIG_WORDS + 2 * PROGRAMS;
/// Most words of a segment, whatever the buffer.
pub const SEGMENT_WORDS_MAX: usize = 1024;
/// Bits of a key base: chip and core.
const KEY_BASE_MASK: u32 = !0x7FFF;
/// Words of a run block.
pub const RUN_BLOCK_WORDS: usize = 32;

/// What firmware says of itself: the last words of its code.
pub mod trailer {
    use super::{MAGIC, VERSION};
    use spidnn_kernels::units::Units;

    use crate::pages;

    /// Words of a trailer: magic number, version of images, two words with a bit for each kernel, flags, a bit for each unit of the kernels,
    /// bytes of each page of code.
    pub const WORDS: usize = 6 + pages::COUNT;
    /// Flag: the firmware takes part in exchanges between chips.
    pub const EXCHANGES: u32 = 1;

    /// The words of a trailer; kernels have numbers below 64.
    pub const fn words(
        kernels: &[u32],
        units: Units,
        exchanges: bool,
        page_bytes: [u32; pages::COUNT],
    ) -> [u32; WORDS] {
        let mut mask = 0u64;
        let mut i = 0;
        while i < kernels.len() {
            mask |= 1 << kernels[i];
            i += 1;
        }
        let flags = if exchanges { EXCHANGES } else { 0 };
        let mut words = [0; WORDS];
        [words[0], words[1], words[2], words[3], words[4], words[5]] =
            [MAGIC, VERSION, mask as u32, (mask >> 32) as u32, flags, units.0];
        let mut page = 0;
        while page < pages::COUNT {
            words[WORDS - pages::COUNT + page] = page_bytes[page];
            page += 1;
        }
        words
    }

    /// What firmware can do.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Capabilities {
        /// A bit for each kernel.
        pub kernels: u64,
        /// The activations, losses and optimizers that these kernels have.
        pub units: Units,
        /// It takes part in exchanges between chips.
        pub exchanges: bool,
        /// Bytes of its pages of code.
        pub page_bytes: [u32; pages::COUNT],
    }

    /// What a trailer says. The error is the version found, 0 if it is none at all.
    ///
    /// # Errors
    /// If the words are not a trailer of this version.
    pub const fn read(words: &[u32; WORDS]) -> Result<Capabilities, u32> {
        match *words {
            [MAGIC, VERSION, low, high, flags, units, page_bytes @ ..] => Ok(Capabilities {
                kernels: low as u64 | (high as u64) << 32,
                units: Units(units),
                exchanges: flags & EXCHANGES != 0,
                page_bytes,
            }),
            [MAGIC, version, ..] => Err(version),
            _ => Err(0),
        }
    }
}

/// Who has which part of a core's data memory, as byte offsets.
pub mod memory {
    /// Buffers of kernels and of exchanges lie below this.
    pub const BUFFERS_END: u32 = 52 << 10;
    /// Command segments lie between the two; above is what the firmware itself needs.
    pub const SEGMENTS_END: u32 = 60 << 10;
}

/// The directory of a chip: where the firmware of each core finds its image. It lies at the start of the block of SDRAM that the
/// application has from the monitor under the tag [`directory::TAG`].
pub mod directory {
    use super::{MAGIC, VERSION};

    /// Tag of the block.
    pub const TAG: u8 = 1;
    /// Words of the directory: magic number, version, then for each of 18 virtual cores the address of its image, 0 for none; then the
    /// address of the firmware's pages of code, one after the other, 0 if it has none.
    pub const WORDS: usize = 21;
    /// Number of the word that tells of the pages.
    pub const PAGES: usize = 20;
    /// Bytes from the directory's start to the text of core 0; the others' follow.
    pub const TEXT: u32 = 128;
    /// Bytes for the text of a core, its header of 16 included.
    pub const TEXT_BYTES: u32 = 208;
    /// Bytes at the start of user SDRAM that the compiler leaves to the monitor's heap and the directory.
    pub const RESERVED_BYTES: u32 = 4096;

    // Two headers of the heap, of 16 and 8 bytes, lie before the block.
    const _: () = assert!(24 + TEXT + 18 * TEXT_BYTES <= RESERVED_BYTES && 4 * WORDS as u32 <= TEXT);

    /// The words of a directory: images of cores, and the address of the pages.
    pub fn words(images: &[(u8, u32)], pages: u32) -> [u32; WORDS] {
        let mut words = [0; WORDS];
        words[0] = MAGIC;
        words[1] = VERSION;
        words[PAGES] = pages;
        for &(core, address) in images {
            if let Some(word) = words.get_mut(2 + usize::from(core)) {
                *word = address;
            }
        }
        words
    }
}

/// Who tells whom at a barrier: cores in groups of [`barrier::GROUP`] slots tell the first of their group, which tells slot 0.
pub mod barrier {
    /// Slots of a group. (The first core of a chip hears of 3 others and of 4 groups, if there are 17: all together it would hear of 16,
    /// and each packet takes the interrupt handler some 30 cycles.)
    pub const GROUP: u32 = 4;
    /// The bits of a key that tell barriers from other traffic, and one from the next: kind, but for its lowest bit, and epoch.
    pub const KEY_MASK: u32 = 0x6F00;
    /// Epochs, modulo 16, begin at this bit of a key.
    pub const EPOCH_SHIFT: u32 = 8;
    /// The number of a release, where an arrival has a slot: bits 7:0 of a key.
    pub const RELEASE: u32 = 31;

    /// The low bits of a key: epoch and number.
    pub const fn key(epoch: u32, number: u32) -> u32 {
        (epoch & 15) << EPOCH_SHIFT | number
    }

    /// The slot that a slot tells; slot 0 tells all.
    pub const fn above(slot: u32) -> u32 {
        if slot.is_multiple_of(GROUP) { 0 } else { slot - slot % GROUP }
    }

    /// A bit for each slot that a slot has to hear of, itself included.
    pub const fn gathered(slot: u32, cores: u32) -> u32 {
        let (mut bits, mut other) = (1 << slot, 0);
        while other < cores && other < 32 {
            if above(other) == slot && other != slot {
                bits |= 1 << other;
            }
            other += 1;
        }
        bits
    }
}

/// What a core has to know of its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CoreConfig {
    /// Position among the cores of the chip that take part; 0 leads the barriers.
    pub slot: u32,
    /// Cores of the chip that take part.
    pub cores: u32,
    /// Key base of this core: chip and core, the rest zero.
    pub key: u32,
    /// Key base of the chip's leader.
    pub leader: u32,
    /// Key base of the core that this one tells of its arrival at a barrier: that of the slot [`barrier::above`].
    pub above: u32,
    /// Key base of the same slot on the parent chip.
    pub parent: Option<u32>,
    /// This chip's number among the parent's children.
    pub child_number: u32,
    /// Key bases of the same slot on the child chips, in ascending order of the chips.
    pub children: [u32; CHILDREN_MAX],
    /// How many children there are.
    pub child_count: u32,
    /// SDRAM address of the run block.
    pub run_block: u32,
    /// DTCM offset of the 16 scalars of a run.
    pub scalars: u32,
    /// DTCM offset of the buffer for command segments (two halves). What lies below belongs to the programs' buffers, what lies
    /// above to the runtime.
    pub segment_buffer: u32,
    /// Bytes of that buffer.
    pub segment_buffer_bytes: u32,
}

impl CoreConfig {
    /// Before a configuration is read.
    pub(crate) const EMPTY: CoreConfig = CoreConfig {
        slot: 0,
        cores: 0,
        key: 0,
        leader: 0,
        above: 0,
        parent: None,
        child_number: 0,
        children: [0; CHILDREN_MAX],
        child_count: 0,
        run_block: 0,
        scalars: 0,
        segment_buffer: 0,
        segment_buffer_bytes: 0,
    };

    /// The words of the configuration.
    pub fn to_words(&self) -> [u32; CONFIG_WORDS] {
        let mut w = [0; CONFIG_WORDS];
        w[0] = self.slot | self.cores << 8 | self.child_number << 16 | self.child_count << 24;
        w[1] = self.key;
        w[2] = self.leader;
        w[14] = self.above;
        w[3] = self.parent.unwrap_or(u32::MAX);
        w[4..10].copy_from_slice(&self.children);
        w[10] = self.run_block;
        w[11] = self.scalars;
        w[12] = self.segment_buffer;
        w[13] = self.segment_buffer_bytes;
        w
    }

    /// Reads the words of a configuration; `None` if a number in it is out of range.
    pub fn from_words(w: &[u32; CONFIG_WORDS]) -> Option<CoreConfig> {
        let config = CoreConfig {
            slot: w[0] & 0xFF,
            cores: w[0] >> 8 & 0xFF,
            child_number: w[0] >> 16 & 0xFF,
            child_count: w[0] >> 24,
            key: w[1],
            leader: w[2],
            above: w[14],
            parent: (w[3] != u32::MAX).then_some(w[3]),
            children: [w[4], w[5], w[6], w[7], w[8], w[9]],
            run_block: w[10],
            scalars: w[11],
            segment_buffer: w[12],
            segment_buffer_bytes: w[13],
        };
        let sound = config.slot < config.cores
            && config.cores <= 32
            && config.child_count as usize <= CHILDREN_MAX
            && (config.child_number as usize) < CHILDREN_MAX
            && (config.slot == 0) == (config.key == config.leader)
            && [config.key, config.leader, config.above].iter().chain(&config.parent).all(|key| key & !KEY_BASE_MASK == 0)
            && config.children.iter().all(|key| key & !KEY_BASE_MASK == 0)
            && config.run_block.is_multiple_of(4)
            && config.scalars.is_multiple_of(4)
            && config.scalars <= memory::BUFFERS_END - 64
            && config.segment_buffer.is_multiple_of(4)
            && config.segment_buffer >= memory::BUFFERS_END
            && u64::from(config.segment_buffer) + u64::from(config.segment_buffer_bytes) <= memory::SEGMENTS_END.into()
            && config.segment_buffer_bytes.is_multiple_of(8)
            // The run block is read into it.
            && config.segment_buffer_bytes >= 4 * RUN_BLOCK_WORDS as u32;
        sound.then_some(config)
    }
}

/// What the host writes to SDRAM before each start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RunBlock {
    /// Number of the program.
    pub program: u32,
    /// Samples of this run on this chip.
    pub samples: u32,
    /// Number of the first of them in the whole batch.
    pub first_sample: u32,
    /// Seed of this run.
    pub seed: u64,
    /// Number of the training step.
    pub step: u32,
    /// Which of the two input buffers holds the inputs.
    pub input_buffer: u32,
    /// 1 / samples of the whole batch.
    pub inverse_batch: f32,
    /// What the program keeps in DTCM from run to run must be fetched anew: the first run, after another program, after new weights.
    pub fetch_kept: bool,
    /// Scalars for the kernels of this run (see `spidnn_kernels::optimizer`).
    pub scalars: [f32; 16],
}

impl Default for RunBlock {
    fn default() -> Self {
        RunBlock {
            program: 0,
            samples: 0,
            first_sample: 0,
            seed: 0,
            step: 0,
            input_buffer: 0,
            inverse_batch: 1.0,
            fetch_kept: true,
            scalars: [0.0; 16],
        }
    }
}

impl RunBlock {
    /// The words of the block.
    pub fn to_words(&self) -> [u32; RUN_BLOCK_WORDS] {
        let mut w = [0; RUN_BLOCK_WORDS];
        w[0] = MAGIC ^ VERSION;
        w[1] = self.program;
        w[2] = self.samples;
        w[3] = self.first_sample;
        w[4] = self.seed as u32;
        w[5] = (self.seed >> 32) as u32;
        w[6] = self.step;
        w[7] = self.input_buffer;
        w[8] = self.inverse_batch.to_bits();
        w[9] = self.fetch_kept.into();
        for (word, scalar) in w[16..].iter_mut().zip(&self.scalars) {
            *word = scalar.to_bits();
        }
        w
    }
}

/// Sets the registers as a run block says; its program, or `None` if it is not a run block of this version.
pub(crate) fn set_registers(block: &[u32; RUN_BLOCK_WORDS], registers: &mut [u32; reg::COUNT]) -> Option<u32> {
    let [magic, program, samples, first_sample, seed, seed_high, step, input_buffer, inverse_batch, fetch_kept, ..] =
        *block;
    if magic != MAGIC ^ VERSION {
        return None;
    }
    *registers = [0; reg::COUNT];
    registers[usize::from(reg::SAMPLES)] = samples;
    registers[usize::from(reg::FIRST_SAMPLE)] = first_sample;
    registers[usize::from(reg::SEED)] = seed;
    registers[usize::from(reg::SEED_HIGH)] = seed_high;
    registers[usize::from(reg::STEP)] = step;
    registers[usize::from(reg::INPUT_BUFFER)] = input_buffer;
    registers[usize::from(reg::INVERSE_BATCH)] = inverse_batch;
    registers[usize::from(reg::FETCH_KEPT)] = fetch_kept;
    Some(program)
}

/// First byte of SDRAM, and its size.
const SDRAM: (u64, u64) = (0x6000_0000, 128 << 20);

/// Whether words at an address are in SDRAM.
pub(crate) fn in_sdram(address: u32, bytes: u64) -> bool {
    let start = u64::from(address);
    address.is_multiple_of(4) && start >= SDRAM.0 && start.saturating_add(bytes) <= SDRAM.0 + SDRAM.1
}

/// Opcodes of commands; kernels are [`opcode::KERNEL`] plus the kernel's number.
pub(crate) mod opcode {
    pub const DMA: u32 = 1;
    pub const WAIT: u32 = 2;
    pub const BARRIER: u32 = 3;
    pub const LOOP: u32 = 4;
    #[cfg(feature = "exchanges")]
    pub const REDUCE_UP: u32 = 5;
    #[cfg(feature = "exchanges")]
    pub const BROADCAST_DOWN: u32 = 6;
    pub const KERNEL: u32 = 32;
}

#[cfg(any(test, feature = "alloc", feature = "std"))]
mod encode {
    use alloc::vec::Vec;

    use spidnn_kernels::call::CALL_WORDS_MAX;

    use super::*;
    use crate::command::{Command, Exchange, Item, Patch, Step, When};

    /// Why an image could not be encoded.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum EncodeError {
        /// A segment does not fit half the segment buffer.
        SegmentTooLong {
            /// Its words.
            words: usize,
            /// Words that half the buffer takes.
            limit: usize,
        },
        /// Loops are nested deeper than two, or a loop's number is not its depth.
        LoopDepth(u32),
        /// A loop's step or one of its divisors is 0.
        LoopStands,
        /// A command has more patches than can be counted.
        TooManyPatches(usize),
        /// A patch names a word or a register that does not exist.
        BadPatch(Patch),
        /// More than [`PROGRAMS`] programs.
        TooManyPrograms(usize),
    }

    impl core::fmt::Display for EncodeError {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            match self {
                EncodeError::SegmentTooLong { words, limit } => {
                    write!(f, "a segment has {words} words, the buffer takes {limit}")
                }
                EncodeError::LoopDepth(d) => write!(f, "a loop of depth {d} is not nested so"),
                EncodeError::LoopStands => write!(f, "a loop's step or divisor is 0"),
                EncodeError::TooManyPatches(n) => write!(f, "a command has {n} patches, 255 can be encoded"),
                EncodeError::BadPatch(p) => {
                    write!(f, "a patch changes word {} by register {}: one does not exist", p.word, p.register)
                }
                EncodeError::TooManyPrograms(n) => write!(f, "{n} programs, an image holds {PROGRAMS}"),
            }
        }
    }

    impl core::error::Error for EncodeError {}

    /// What a core is loaded with.
    #[derive(Debug, Clone, PartialEq)]
    pub struct CoreImage {
        /// Its place.
        pub config: CoreConfig,
        /// Programs, each in segments of items.
        pub programs: Vec<Vec<Vec<Item>>>,
    }

    impl Step {
        /// Words of the encoded command.
        pub fn word_count(&self) -> usize {
            let words = match &self.command {
                Command::Dma(_) => 10,
                Command::Wait { .. } => 1,
                Command::Kernel(call) => call.word_count(),
                Command::Barrier => 0,
                Command::ReduceUp(_) | Command::BroadcastDown(_) => 5,
            };
            1 + words + 2 * self.patches.len()
        }

        fn encode(&self, out: &mut Vec<u32>) -> Result<(), EncodeError> {
            let mut words = [0; CALL_WORDS_MAX];
            let exchange = |e: &Exchange| [e.sdram, e.words, e.scratch, e.scratch_bytes, e.spacing_cycles];
            let (opcode, n) = match &self.command {
                Command::Dma(d) => {
                    let all = [
                        d.out,
                        d.sdram,
                        d.dtcm,
                        d.row_bytes,
                        d.first as u32,
                        d.rows,
                        d.limit,
                        d.sdram_stride,
                        d.dtcm_stride,
                        d.tag,
                    ];
                    words[..10].copy_from_slice(&all);
                    (opcode::DMA, 10)
                }
                Command::Wait { tag } => {
                    words[0] = *tag;
                    (opcode::WAIT, 1)
                }
                Command::Kernel(call) => (opcode::KERNEL + call.number(), call.encode(&mut words)),
                Command::Barrier => (opcode::BARRIER, 0),
                Command::ReduceUp(e) => {
                    words[..5].copy_from_slice(&exchange(e));
                    (opcode::REDUCE_UP, 5)
                }
                Command::BroadcastDown(e) => {
                    words[..5].copy_from_slice(&exchange(e));
                    (opcode::BROADCAST_DOWN, 5)
                }
            };
            let when = match self.when {
                When::Always => 0,
                When::First => 1,
                When::Next => 2,
                When::Last => 3,
            };
            out.push(opcode | (n as u32) << 8 | (self.patches.len() as u32) << 16 | when << 24);
            out.extend_from_slice(&words[..n]);
            patches(&self.patches, n, out)
        }
    }

    /// Appends patches of a command with `words` words.
    fn patches(patches: &[Patch], words: usize, out: &mut Vec<u32>) -> Result<(), EncodeError> {
        if patches.len() > 0xFF {
            return Err(EncodeError::TooManyPatches(patches.len()));
        }
        for p in patches {
            if usize::from(p.word) >= words || usize::from(p.register) >= reg::COUNT {
                return Err(EncodeError::BadPatch(*p));
            }
            out.push(u32::from(p.word) | u32::from(p.register) << 8);
            out.push(p.scale as u32);
        }
        Ok(())
    }

    impl Item {
        /// Words of the encoded item.
        pub fn word_count(&self) -> usize {
            match self {
                Item::Do(step) => step.word_count(),
                Item::Loop(_, p, body) => {
                    2 + LOOP_WORDS + 2 * p.len() + body.iter().map(Item::word_count).sum::<usize>()
                }
            }
        }

        fn encode(&self, depth: u32, out: &mut Vec<u32>) -> Result<(), EncodeError> {
            match self {
                Item::Do(step) => step.encode(out)?,
                Item::Loop(l, p, body) => {
                    if l.depth != depth || depth > 1 {
                        return Err(EncodeError::LoopDepth(l.depth));
                    }
                    if l.step == 0 || l.total_divisor == 0 || l.divisor == 0 {
                        return Err(EncodeError::LoopStands);
                    }
                    out.push(opcode::LOOP | (LOOP_WORDS as u32 + 1) << 8 | (p.len() as u32) << 16);
                    let length: usize = body.iter().map(Item::word_count).sum();
                    out.extend([l.depth, l.start, l.step, l.total, l.total_divisor, l.divisor, l.end, length as u32]);
                    patches(p, LOOP_WORDS, out)?;
                    for item in body {
                        item.encode(depth + 1, out)?;
                    }
                }
            }
            Ok(())
        }
    }

    impl CoreImage {
        /// The words of the image.
        ///
        /// # Errors
        /// If a segment is too large, loops are nested wrongly, or a command has patches that cannot be.
        pub fn encode(&self) -> Result<Vec<u32>, EncodeError> {
            let limit = ((self.config.segment_buffer_bytes / 8) as usize).min(SEGMENT_WORDS_MAX);
            if self.programs.len() > PROGRAMS {
                return Err(EncodeError::TooManyPrograms(self.programs.len()));
            }
            let mut body: Vec<u32> = Vec::new();
            let mut programs = [0u32; 2 * PROGRAMS];
            for (i, program) in self.programs.iter().enumerate() {
                // Where the length of the segment being written has to be told.
                let mut length_at = None;
                for segment in program {
                    let start = body.len();
                    body.push(0);
                    for item in segment {
                        item.encode(0, &mut body)?;
                    }
                    let words = body.len() - start;
                    if words > limit {
                        return Err(EncodeError::SegmentTooLong { words, limit });
                    }
                    match length_at {
                        None => {
                            programs[2 * i] = (HEADER_WORDS + start) as u32;
                            programs[2 * i + 1] = words as u32;
                        }
                        Some(at) => body[at] = words as u32,
                    }
                    length_at = Some(start);
                }
            }
            let total = HEADER_WORDS + body.len();
            let mut image = Vec::with_capacity(total);
            image.extend([MAGIC, VERSION, total as u32, PROGRAMS as u32]);
            image.extend(self.config.to_words());
            image.extend(programs);
            image.extend(body);
            Ok(image)
        }
    }
}

/// Words of a loop that patches may change: all but the length of its body.
#[cfg(any(test, feature = "alloc", feature = "std"))]
const LOOP_WORDS: usize = 7;

#[cfg(any(test, feature = "alloc", feature = "std"))]
mod decode;
#[cfg(any(test, feature = "alloc", feature = "std"))]
pub use decode::ImageError;
#[cfg(any(test, feature = "alloc", feature = "std"))]
pub use encode::{CoreImage, EncodeError};
