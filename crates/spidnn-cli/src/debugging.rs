//! What `spidnn board` watches: breakpoints, traces, profile.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use spidnn::Error;
use spinnaker_machine::{ChipXy, Machine};
use spinnaker_sim::arm968::{TraceSink, Traced};
use spinnaker_sim::face::{CorePlace, CycleBoard};

use crate::args::{Board, Common};
use crate::profile::{self, Program};

/// Cores of a chip.
const CORES: u8 = 18;

/// What `--break` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Break {
    Packet { chip: ChipXy, key: u32, mask: u32 },
    Dma(CorePlace),
}

/// Everything that is watched, read from the command line; files are open.
pub struct Debugging {
    pub gdb: Option<CorePlace>,
    breaks: Vec<Break>,
    /// With `--profile`: the program, if one was given.
    profile: Option<Option<Program>>,
    instruction_traces: Vec<(CorePlace, PathBuf, File)>,
    timeline: Option<(PathBuf, File)>,
    limit: usize,
}

impl Debugging {
    /// Reads the options for a machine.
    ///
    /// # Errors
    /// Options that make no sense, files that cannot be had.
    pub fn new(options: &Board, common: &Common, machine: &Machine) -> Result<Self, Error> {
        let core = |option: &str, text: &str| core_place(text, machine).map_err(|e| argument(option, text, &e));
        let breaks = options.breaks.iter().map(|text| {
            let found = break_place(text, machine);
            found.map_err(|e| argument("--break", text, &e))
        });
        let instruction_traces = options.instruction_trace.iter().map(|text| {
            let (place, path) = text
                .split_once('=')
                .filter(|(_, path)| !path.is_empty())
                .ok_or_else(|| argument("--instruction-trace", text, "wants a core and a file, as 0,0,1=trace.txt"))?;
            Ok((core("--instruction-trace", place)?, PathBuf::from(path)))
        });
        let instruction_traces = instruction_traces.collect::<Result<Vec<_>, Error>>()?;
        let breaks = breaks.collect::<Result<_, _>>()?;
        let gdb = options.gdb.as_deref().map(|text| core("--gdb", text)).transpose()?;
        let profile = match &options.profile {
            None => None,
            Some(path) if path == Path::new("none") => Some(None),
            Some(path) => Some(Some(Program::read(path)?)),
        };
        // Files are made only when all else is right: what is there already is lost.
        one_file_each(&instruction_traces, common.trace.as_deref())?;
        let traced = instruction_traces.into_iter().map(|(place, path)| {
            let file = create("--instruction-trace", &path)?;
            Ok((place, path, file))
        });
        let instruction_traces = traced.collect::<Result<_, Error>>()?;
        let timeline = match &common.trace {
            None => None,
            Some(path) => Some((path.clone(), create("--trace", path)?)),
        };
        Ok(Self { gdb, breaks, profile, instruction_traces, timeline, limit: options.trace_limit })
    }

    /// Begins to watch a board.
    pub fn start(&mut self, board: &mut CycleBoard) {
        if self.timeline.is_some() {
            board.machine().set_timeline(Some(self.limit));
        }
        for &wanted in &self.breaks {
            match wanted {
                Break::Packet { chip, key, mask } => drop(board.machine().break_on_packet(chip, key, mask)),
                Break::Dma(place) => board.break_on_dma(place),
            }
        }
        if self.profile.is_some() {
            profile::start(board.machine());
        }
        for (place, path, file) in self.instruction_traces.drain(..) {
            board.trace_instructions(place, sink(file, path, self.limit));
        }
    }

    /// Writes what was watched.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn end(self, board: &mut CycleBoard) -> Result<(), Error> {
        if let Some(program) = &self.profile {
            eprint!("{}", profile::table(board.machine(), program.as_ref()));
        }
        let Some((path, file)) = self.timeline else { return Ok(()) };
        let mut out = BufWriter::new(file);
        let written = board.machine().write_timeline(&mut out).and_then(|size| out.flush().map(|()| size));
        let size = written.map_err(|e| Error::Argument(format!("--trace {}: {e}", path.display())))?;
        if size.lost > 0 {
            eprintln!(
                "--trace {}: {} spans, {} more did not fit (a larger --trace-limit holds more)",
                path.display(),
                size.spans,
                size.lost
            );
        }
        Ok(())
    }
}

fn argument(option: &str, text: &str, what: &str) -> Error {
    Error::Argument(format!("{option} {text}: {what}"))
}

/// A core has one trace, and a file one writer.
fn one_file_each(traces: &[(CorePlace, PathBuf)], timeline: Option<&Path>) -> Result<(), Error> {
    for (number, (place, path)) in traces.iter().enumerate() {
        let text = format!("{place}={}", path.display());
        let before = &traces[..number];
        if before.iter().any(|(other, _)| other == place) {
            return Err(argument("--instruction-trace", &text, "this core has a trace already"));
        }
        if before.iter().any(|(_, other)| other == path) || timeline == Some(path.as_path()) {
            return Err(argument("--instruction-trace", &text, "this file is written by another trace"));
        }
    }
    Ok(())
}

fn create(option: &str, path: &Path) -> Result<File, Error> {
    File::create(path).map_err(|e| Error::Argument(format!("{option} {}: {e}", path.display())))
}

/// Writes a line for each instruction, up to a number of them. What cannot be written ends it, and is told.
fn sink(file: File, path: PathBuf, limit: usize) -> TraceSink {
    let mut out = Some(BufWriter::new(file));
    let mut left = limit;
    Box::new(move |traced: &Traced| {
        let Some(file) = &mut out else { return };
        let result = match left {
            0 => writeln!(file, "... the limit of {limit} instructions is reached").and_then(|()| file.flush()),
            _ => writeln!(file, "{traced}"),
        };
        if let Err(e) = &result {
            eprintln!("--instruction-trace {}: {e}", path.display());
        }
        if left == 0 || result.is_err() {
            out = None;
        }
        left = left.saturating_sub(1);
    })
}

fn numbers<const N: usize>(text: &str) -> Option<[u8; N]> {
    let numbers: Vec<u8> = text.split(',').map(|part| part.trim().parse().ok()).collect::<Option<_>>()?;
    numbers.try_into().ok()
}

fn chip_place(x: u8, y: u8, machine: &Machine) -> Result<ChipXy, String> {
    let chip = ChipXy::new(x, y);
    if machine.chips.contains_key(&chip) { Ok(chip) } else { Err(format!("the machine has no chip {x},{y}")) }
}

fn core_place(text: &str, machine: &Machine) -> Result<CorePlace, String> {
    let [x, y, core] = numbers(text).ok_or("wants a core as X,Y,P (0,0,1)")?;
    let chip = chip_place(x, y, machine)?;
    if core >= CORES {
        return Err(format!("cores have the numbers 0 to {}", CORES - 1));
    }
    Ok(CorePlace { chip, core })
}

fn word(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn break_place(text: &str, machine: &Machine) -> Result<Break, String> {
    let form = "wants packet:KEY/MASK@X,Y (packet:0x1200/0xff00@0,0) or dma@X,Y,P (dma@0,0,1)";
    let (what, place) = text.split_once('@').ok_or(form)?;
    if what == "dma" {
        return core_place(place, machine).map(Break::Dma);
    }
    let (key, mask) = what.strip_prefix("packet:").and_then(|packet| packet.split_once('/')).ok_or(form)?;
    let (key, mask) = (word(key).ok_or(form)?, word(mask).ok_or(form)?);
    if key & !mask != 0 {
        return Err(format!("no packet can match: the key has ones where the mask has none ({:#x})", key & !mask));
    }
    let [x, y] = numbers(place).ok_or(form)?;
    Ok(Break::Packet { chip: chip_place(x, y, machine)?, key, mask })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_do_not_share_cores_or_files() {
        let trace = |core: u8, path: &str| (CorePlace { chip: ChipXy::new(0, 0), core }, PathBuf::from(path));
        let told = |traces: &[_], timeline: Option<&str>, word: &str| {
            let error = one_file_each(traces, timeline.map(Path::new)).expect_err(word).to_string();
            assert!(error.contains(word), "{error}");
        };
        told(&[trace(1, "a"), trace(1, "b")], None, "0,0,1=b: this core has a trace already");
        told(&[trace(1, "a"), trace(2, "a")], None, "0,0,2=a: this file is written by another trace");
        told(&[trace(1, "a")], Some("a"), "this file is written by another trace");
        assert!(one_file_each(&[trace(1, "a"), trace(2, "b")], Some(Path::new("c"))).is_ok());
    }

    #[test]
    fn breaks_are_read_or_refused_with_a_reason() {
        let machine = Machine::spin3();
        let at = |text| break_place(text, &machine);
        let chip = ChipXy::new(1, 0);
        assert_eq!(at("packet:0x1200/0xFF00@1,0"), Ok(Break::Packet { chip, key: 0x1200, mask: 0xFF00 }));
        assert_eq!(at("dma@1,0,17"), Ok(Break::Dma(CorePlace { chip, core: 17 })));
        for (text, word) in [
            ("", "wants"),
            ("packet:1@0,0", "wants"),
            ("packet:1/1@0", "wants"),
            ("packet:3/1@0,0", "no packet can match"),
            ("packet:1/1@7,7", "no chip 7,7"),
            ("dma@0,0", "wants a core"),
            ("dma@0,0,18", "0 to 17"),
            ("dma@0,0,256", "wants a core"),
        ] {
            let error = at(text).expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
