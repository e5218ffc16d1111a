//! Where the cycles of cores went, by the functions of an ELF file.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use object::{Object, ObjectSection, ObjectSymbol, SectionKind, SymbolKind};
use spidnn::Error;
use spinnaker_machine::ChipXy;
use spinnaker_sim::arm968::Spent;
use spinnaker_sim::cycle::CycleMachine;

/// Cores of a chip.
const CORES: u8 = 18;
/// Bytes of code that share a row where no function is known.
const BLOCK_BYTES: u32 = 64;
/// Rows of a core that are printed.
const ROWS_MAX: usize = 40;
/// Largest file that is taken for a program.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// A program's functions, and its code to know it by.
#[derive(Debug, Default)]
pub struct Program {
    /// First address of each function, ascending, with its end and name.
    functions: Vec<(u32, u32, String)>,
    /// Addresses and bytes of its code.
    code: Vec<(u32, Vec<u8>)>,
}

impl Program {
    /// Reads an ELF file for ARM.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bad = |what: String| Error::Argument(format!("--profile {}: {what}", path.display()));
        let length = std::fs::metadata(path).map_err(|e| bad(e.to_string()))?.len();
        if length > FILE_BYTES_MAX {
            return Err(bad(format!("{length} bytes are no program of a core")));
        }
        let bytes = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
        Self::parse(&bytes).map_err(|what| {
            bad(format!("{what}. Give the ELF file that the application was made from, or `none` for addresses alone"))
        })
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let file = object::File::parse(bytes).map_err(|e| format!("no ELF file ({e})"))?;
        if file.architecture() != object::Architecture::Arm || !file.is_little_endian() || file.is_64() {
            return Err("no program for a little-endian 32-bit ARM".into());
        }
        let mut program = Self::default();
        for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
            let data = section.data().map_err(|e| format!("a section cannot be read ({e})"))?;
            program.code.push((section.address() as u32, data.to_vec()));
        }
        let end_of = |address: u32| {
            let mut sections = program.code.iter();
            sections.find_map(|(start, data)| {
                let end = start.saturating_add(data.len() as u32);
                (*start..end).contains(&address).then_some(end)
            })
        };
        let mut starts = BTreeMap::new();
        for symbol in file.symbols().filter(|symbol| symbol.is_definition()) {
            // Assembly often leaves its labels without a type; `$a` and the like mark the kind of code.
            let wanted = matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Unknown | SymbolKind::Label);
            let address = symbol.address() as u32 & !1;
            let name = symbol.name().unwrap_or("");
            let Some(end) = end_of(address).filter(|_| wanted && !name.is_empty() && !name.starts_with('$')) else {
                continue;
            };
            let function = symbol.kind() == SymbolKind::Text;
            let end = if symbol.size() > 0 { address.saturating_add(symbol.size() as u32).min(end) } else { end };
            let known = starts.entry(address).or_insert_with(|| (end, name.to_string(), function));
            if function && !known.2 {
                *known = (end, name.to_string(), true);
            }
        }
        if starts.is_empty() {
            return Err("it has no symbols".into());
        }
        program.functions = starts.into_iter().map(|(start, (end, name, _))| (start, end, name)).collect();
        Ok(program)
    }

    fn function(&self, address: u32) -> Option<&str> {
        let before = self.functions.partition_point(|&(start, ..)| start <= address);
        let (_, end, name) = self.functions.get(before.checked_sub(1)?)?;
        (address < *end).then_some(name)
    }

    /// Whether a core's instruction memory holds this program: nine bytes in ten of it are the same.
    fn is_in(&self, memory: &[u8]) -> bool {
        let (mut same, mut all) = (0usize, 0usize);
        for (start, data) in &self.code {
            let Some(there) = memory.get(*start as usize..).filter(|there| there.len() >= data.len()) else { continue };
            all += data.len();
            same += data.iter().zip(there).filter(|(a, b)| a == b).count();
        }
        all > 0 && same * 10 >= all * 9
    }
}

/// Has all cores count.
pub fn start(machine: &mut CycleMachine) {
    for chip in machine.places().to_vec() {
        for core in 0..CORES {
            machine.settle(chip, core);
            if let Some(cpu) = machine.cpu(chip, core) {
                cpu.set_profile(true);
            }
        }
    }
}

/// What a core spent.
struct CoreProfile {
    chip: ChipXy,
    core: u8,
    known: bool,
    total: Spent,
    rows: Vec<(String, Spent)>,
}

/// The profile of all cores that executed anything, those with most cycles first.
pub fn table(machine: &mut CycleMachine, program: Option<&Program>) -> String {
    let mut cores: Vec<CoreProfile> = Vec::new();
    for chip in machine.places().to_vec() {
        for core in 0..CORES {
            cores.extend(core_profile(machine, chip, core, program));
        }
    }
    cores.sort_by_key(|core| (std::cmp::Reverse(core.total.cycles), core.chip, core.core));
    let mut text = String::from("profile: cycles by core and function (physical core numbers; sleep not counted)\n");
    for core in &cores {
        let Spent { instructions, cycles } = core.total;
        let other = if program.is_some() && !core.known { ", another program" } else { "" };
        let (x, y) = (core.chip.x, core.chip.y);
        let _ = writeln!(text, "core {x},{y},{}: {cycles} cycles, {instructions} instructions{other}", core.core);
        for (name, spent) in core.rows.iter().take(ROWS_MAX) {
            let part = spent.cycles as f64 * 100.0 / cycles.max(1) as f64;
            let _ = writeln!(text, "{:>14} {part:5.1} % {:>12} instructions  {name}", spent.cycles, spent.instructions);
        }
        if let Some(rest) = core.rows.get(ROWS_MAX..).filter(|rest| !rest.is_empty()) {
            let cycles: u64 = rest.iter().map(|(_, spent)| spent.cycles).sum();
            let _ = writeln!(text, "{cycles:>14} in {} others", rest.len());
        }
    }
    text
}

fn core_profile(machine: &mut CycleMachine, chip: ChipXy, core: u8, program: Option<&Program>) -> Option<CoreProfile> {
    let cpu = machine.cpu(chip, core)?;
    let program = program.filter(|program| program.is_in(cpu.itcm()));
    let mut rows: BTreeMap<String, Spent> = BTreeMap::new();
    let mut total = Spent::default();
    for (&address, spent) in cpu.profile()? {
        let name = match program.and_then(|program| program.function(address)) {
            Some(name) => name.to_string(),
            None => {
                let start = address & !(BLOCK_BYTES - 1);
                format!("{start:08x}..{:08x}", start.saturating_add(BLOCK_BYTES))
            }
        };
        for sum in [&mut total, rows.entry(name).or_default()] {
            sum.cycles += spent.cycles;
            sum.instructions += spent.instructions;
        }
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by(|(a_name, a), (b_name, b)| b.cycles.cmp(&a.cycles).then_with(|| a_name.cmp(b_name)));
    (total.instructions > 0).then_some(CoreProfile { chip, core, known: program.is_some(), total, rows })
}

#[cfg(test)]
mod tests {
    use super::*;
    use spinnaker_machine::Machine;
    use spinnaker_sim::cycle::{BOOT_PORT, CycleConfig, Datagram};

    const MS: u64 = 1_000_000;

    /// Counts, and calls a function each time: main at 0x20, its loop at 0x28, the function at 0x40.
    fn counting() -> Vec<u8> {
        let mut words = vec![0xEAFF_FFFEu32; 256];
        words[0] = 0xEA00_0006;
        words[8..14].copy_from_slice(&[0xE3A0_0000, 0xE3A0_4501, 0xE280_0001, 0xE584_0000, 0xEB00_0002, 0xEAFF_FFFB]);
        words[16..18].copy_from_slice(&[0xE080_1000, 0xE12F_FF1E]);
        words.into_iter().flat_map(u32::to_le_bytes).collect()
    }

    /// An ELF file with this code at 0 and symbols: name, address, size, type.
    fn elf(code: &[u8], symbols: &[(&str, u32, u32, u8)]) -> Vec<u8> {
        let (mut names, mut table) = (vec![0u8], vec![0u8; 16]);
        for &(name, address, size, kind) in symbols {
            for word in [names.len() as u32, address, size] {
                table.extend_from_slice(&word.to_le_bytes());
            }
            table.extend_from_slice(&[0x10 | kind, 0, 1, 0]);
            names.extend_from_slice(name.as_bytes());
            names.push(0);
        }
        let section_names = b"\0.text\0.symtab\0.strtab\0";
        let parts: [&[u8]; 4] = [code, &table, &names, section_names];
        let mut file = vec![0x7F, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let headers_at = 52 + parts.iter().map(|part| part.len().next_multiple_of(4)).sum::<usize>();
        for half in [2u16, 40] {
            file.extend_from_slice(&half.to_le_bytes());
        }
        for word in [1, 0, 0, headers_at as u32, 0x0500_0000] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        for half in [52u16, 32, 0, 40, 5, 4] {
            file.extend_from_slice(&half.to_le_bytes());
        }
        let mut headers = vec![0u8; 40];
        // Name, type, flags, and for the symbols the section of their names and the size of one.
        let kinds = [(1, 1, 6, 0, 0), (7, 2, 0, 3, 16), (15, 3, 0, 0, 0), (0, 3, 0, 0, 0)];
        for (part, (name, kind, flags, link, entry)) in parts.iter().zip(kinds) {
            let (at, length) = (file.len() as u32, part.len() as u32);
            for word in [name, kind, flags, 0, at, length, link, u32::from(kind == 2), 4, entry] {
                headers.extend_from_slice(&word.to_le_bytes());
            }
            file.extend_from_slice(part);
            file.resize(file.len().next_multiple_of(4), 0);
        }
        file.extend_from_slice(&headers);
        file
    }

    fn boot(machine: &mut CycleMachine, image: &[u8]) {
        machine.run_for(150 * MS);
        let message = |words: [u32; 4], block: &[u8]| {
            let mut data = vec![0, 1];
            data.extend(words.into_iter().flat_map(u32::to_be_bytes));
            data.extend(block.chunks_exact(4).flat_map(|word| [word[3], word[2], word[1], word[0]]));
            data
        };
        for data in [message([1, 0, 0, 0], &[]), message([3, 255 << 8, 0, 0], image), message([5, 1, 0, 0], &[])] {
            let host = "192.168.240.254:12345".parse().expect("an address");
            machine.send(&Datagram { board: ChipXy::new(0, 0), host, port: BOOT_PORT, time_ns: 0, data });
            machine.run_for(MS);
        }
    }

    #[test]
    fn cycles_are_told_by_function() {
        let code = counting();
        let symbols = [("$a", 0, 0, 0), ("main", 0x20, 0x18, 2), ("double", 0x40, 0, 2), ("label", 0x40, 0, 0)];
        let program = Program::parse(&elf(&code, &symbols)).expect("a program");
        assert_eq!(
            [0x1C, 0x20, 0x37, 0x38, 0x40, 0x3FF, 0x400].map(|address| program.function(address)),
            [None, Some("main"), Some("main"), None, Some("double"), Some("double"), None]
        );
        let mut machine = CycleMachine::new(&Machine::spin3(), &CycleConfig::default());
        boot(&mut machine, &code);
        start(&mut machine);
        machine.run_for(MS);
        let text = table(&mut machine, Some(&program));
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows.len(), 4, "one core, two functions: {text}");
        assert_eq!((rows[2].last(), rows[3].last()), (Some(&"main"), Some(&"double")), "{text}");
        let number = |row: usize, at: usize| rows[row][at].parse::<f64>().expect("a number");
        // The loop: add, str, bl, b are 1 + 1 + 3 + 3 cycles, the function's add and bx 1 + 3.
        assert!((number(2, 0) / number(3, 0) - 2.0).abs() < 0.01, "{text}");
        assert!((number(2, 3) / number(3, 3) - 2.0).abs() < 0.01, "{text}");
        assert_eq!(number(1, 2), number(2, 0) + number(3, 0));

        // Another program's symbols are not taken for this one's.
        let other = Program::parse(&elf(&[0; 1024], &[("main", 0x20, 0x18, 2)])).expect("a program");
        let text = table(&mut machine, Some(&other));
        assert!(
            text.contains("another program") && !text.contains("main") && text.contains("00000000..00000040"),
            "{text}"
        );
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let refused = |bytes: &[u8], word: &str| {
            let error = Program::parse(bytes).expect_err("refused");
            assert!(error.contains(word), "{error}");
        };
        refused(b"", "no ELF file");
        refused(b"not an ELF file at all, only some text that is long enough to look at", "no ELF file");
        let mut other = elf(&counting(), &[("main", 0x20, 8, 2)]);
        refused(&elf(&counting(), &[]), "no symbols");
        for length in 0..other.len() {
            let _ = Program::parse(&other[..length]);
        }
        other[18] = 62;
        refused(&other, "32-bit ARM");
    }
}
