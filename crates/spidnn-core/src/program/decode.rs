//! Images read back and printed: for reports, for tests, and to see what a core was told.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use spidnn_kernels::KernelCall;
use spidnn_kernels::call::CALL_WORDS_MAX;

use super::{
    CONFIG_WORDS, CoreConfig, CoreImage, HEADER_WORDS, LOOP_WORDS, MAGIC, PROGRAMS, SEGMENT_WORDS_MAX, VERSION, opcode,
};
use crate::command::{Command, Dma, Exchange, Item, Loop, Patch, Step, When, reg};

/// Why words are not an image. Places are words from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageError {
    /// The words begin otherwise, are of another version, or fewer than they say.
    Header,
    /// The configuration is out of range.
    Config,
    /// A segment leaves the image, or is longer than its buffer.
    Segment {
        /// Its place.
        place: usize,
    },
    /// No command can be read here.
    Command {
        /// Its place.
        place: usize,
        /// Its first word.
        word: u32,
    },
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageError::Header => f.write_str("these words are not an image of this version, or not all of it"),
            ImageError::Config => f.write_str("the configuration of the core is out of range"),
            ImageError::Segment { place } => write!(f, "the segment at word {place} leaves the image or its buffer"),
            ImageError::Command { place, word } => write!(f, "no command can be read at word {place} ({word:#010x})"),
        }
    }
}

impl core::error::Error for ImageError {}

impl CoreImage {
    /// Reads an image back; encoding the result gives the same words.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn decode(words: &[u32]) -> Result<CoreImage, ImageError> {
        let header: &[u32; HEADER_WORDS] = words.first_chunk().ok_or(ImageError::Header)?;
        if header[0] != MAGIC || header[1] != VERSION || header[3] as usize != PROGRAMS {
            return Err(ImageError::Header);
        }
        let words = words.get(..header[2] as usize).ok_or(ImageError::Header)?;
        let mut config = [0; CONFIG_WORDS];
        config.copy_from_slice(&header[4..4 + CONFIG_WORDS]);
        let config = CoreConfig::from_words(&config).ok_or(ImageError::Config)?;
        let limit = (config.segment_buffer_bytes as usize / 8).min(SEGMENT_WORDS_MAX);
        let mut programs = Vec::new();
        for program in header[4 + CONFIG_WORDS..].chunks_exact(2) {
            let (mut place, mut length) = (program[0] as usize, program[1] as usize);
            let mut segments = Vec::new();
            while length != 0 {
                let bad = ImageError::Segment { place };
                let segment = place.checked_add(length).and_then(|end| words.get(place..end)).ok_or(bad)?;
                if length > limit {
                    return Err(bad);
                }
                segments.push(items(&segment[1..], place + 1, 0)?);
                (place, length) = (place + length, segment[0] as usize);
            }
            programs.push(segments);
        }
        Ok(CoreImage { config, programs })
    }

    /// The command lists as text: one line for each command, bodies of loops indented.
    pub fn disassemble(&self) -> String {
        let mut text = String::new();
        for (p, segments) in self.programs.iter().enumerate() {
            for (s, segment) in segments.iter().enumerate() {
                let words = 1 + segment.iter().map(Item::word_count).sum::<usize>();
                text.push_str(&format!("program {p}, segment {s}, {words} words\n"));
                list(segment, 1, &mut text);
            }
        }
        text
    }
}

fn items(words: &[u32], base: usize, depth: u32) -> Result<Vec<Item>, ImageError> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let head = words[at];
        let bad = ImageError::Command { place: base + at, word: head };
        let (count, patch_count) = ((head >> 8 & 0xFF) as usize, (head >> 16 & 0xFF) as usize);
        let begin = at + 1 + count;
        let end = begin + 2 * patch_count;
        let (Some(parameters), Some(patch_words)) = (words.get(at + 1..begin), words.get(begin..end)) else {
            return Err(bad);
        };
        let code = head & 0xFF;
        let patchable = if code == opcode::LOOP { LOOP_WORDS } else { count };
        let patches =
            patch_words.chunks_exact(2).map(|w| patch(w, patchable)).collect::<Option<Vec<_>>>().ok_or(bad)?;
        let when = [When::Always, When::First, When::Next, When::Last];
        let when = *when.get((head >> 24) as usize).ok_or(bad)?;
        at = end;
        if code == opcode::LOOP {
            let &[number, start, step, total, total_divisor, divisor, end, length] = parameters else {
                return Err(bad);
            };
            let body = at.checked_add(length as usize).and_then(|end| words.get(at..end)).ok_or(bad)?;
            if number != depth || depth > 1 || step == 0 || total_divisor == 0 || divisor == 0 || when != When::Always {
                return Err(bad);
            }
            let of = Loop { depth, start, step, total, total_divisor, divisor, end };
            all.push(Item::Loop(of, patches, items(body, base + at, depth + 1)?));
            at += body.len();
        } else {
            let command = command(code, parameters).ok_or(bad)?;
            all.push(Item::Do(Step { command, when, patches }));
        }
    }
    Ok(all)
}

fn patch(words: &[u32], patchable: usize) -> Option<Patch> {
    let (word, register) = (words[0] & 0xFF, words[0] >> 8);
    ((word as usize) < patchable && (register as usize) < reg::COUNT).then_some(Patch {
        word: word as u8,
        register: register as u8,
        scale: words[1] as i32,
    })
}

fn command(code: u32, parameters: &[u32]) -> Option<Command> {
    Some(match (code, parameters) {
        (opcode::DMA, &[out, sdram, dtcm, row_bytes, first, rows, limit, sdram_stride, dtcm_stride, tag]) => {
            let first = first as i32;
            Command::Dma(Dma { out, sdram, dtcm, row_bytes, first, rows, limit, sdram_stride, dtcm_stride, tag })
        }
        (opcode::WAIT, &[tag]) => Command::Wait { tag },
        (opcode::BARRIER, []) => Command::Barrier,
        (opcode::REDUCE_UP, &[sdram, words, scratch, scratch_bytes, spacing_cycles]) => {
            Command::ReduceUp(Exchange { sdram, words, scratch, scratch_bytes, spacing_cycles })
        }
        (opcode::BROADCAST_DOWN, &[sdram, words, scratch, scratch_bytes, spacing_cycles]) => {
            Command::BroadcastDown(Exchange { sdram, words, scratch, scratch_bytes, spacing_cycles })
        }
        (code, parameters) if code >= opcode::KERNEL => {
            Command::Kernel(KernelCall::decode(code - opcode::KERNEL, parameters).ok()?)
        }
        _ => return None,
    })
}

fn list(items: &[Item], indent: usize, text: &mut String) {
    for item in items {
        text.push_str(&"  ".repeat(indent));
        match item {
            Item::Do(step) => text.push_str(&format!("{step}\n")),
            Item::Loop(of, patches, body) => {
                text.push_str(&format!("loop {} from {} step {} below {}", of.depth, of.start, of.step, of.total));
                if of.total_divisor != 1 {
                    text.push_str(&format!(" / {}", of.total_divisor));
                }
                if of.end != Loop::NO_END {
                    text.push_str(&format!(" and {}", of.end));
                }
                text.push_str(&format!(", sample and block by {}", of.divisor));
                for patch in patches {
                    text.push_str(&format!(" {patch}"));
                }
                text.push('\n');
                list(body, indent + 1, text);
            }
        }
    }
}

impl fmt::Display for Patch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] += r{} * {}", self.word, self.register, self.scale)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.command {
            Command::Dma(d) => {
                let way = if d.out == 0 { "in " } else { "out" };
                write!(f, "dma {way} sdram {:#x} dtcm {:#x} row {} bytes", d.sdram, d.dtcm, d.row_bytes)?;
                write!(f, " rows {}+{} below {}", d.first, d.rows, d.limit)?;
                write!(f, " strides {} {} tag {}", d.sdram_stride, d.dtcm_stride, d.tag)?;
            }
            Command::Wait { tag } => write!(f, "wait {tag}")?,
            Command::Kernel(call) => {
                let mut words = [0; CALL_WORDS_MAX];
                let count = call.encode(&mut words);
                write!(f, "{}", call.name())?;
                for word in &words[..count] {
                    write!(f, " {word:#x}")?;
                }
            }
            Command::Barrier => f.write_str("barrier")?,
            Command::ReduceUp(e) => write!(f, "reduce up sdram {:#x} {} words", e.sdram, e.words)?,
            Command::BroadcastDown(e) => write!(f, "broadcast down sdram {:#x} {} words", e.sdram, e.words)?,
        }
        match self.when {
            When::Always => {}
            When::First => f.write_str(", first turn")?,
            When::Next => f.write_str(", if a turn follows")?,
            When::Last => f.write_str(", last turn")?,
        }
        for patch in &self.patches {
            write!(f, " {patch}")?;
        }
        Ok(())
    }
}
