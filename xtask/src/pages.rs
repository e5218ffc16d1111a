//! Which code of the firmware is resident and which is in pages, from what refers to what (see `spidnn_core::pages`).
//!
//! A page has what only its kernels reach. Everything else is resident: what several pages reach, and what nobody has thought of. So no
//! code in one page ever refers to another; [`verify`] shows it of the linked program. What only starts the core is a page, too,
//! which is there when the program is loaded, and never again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use object::{Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget, SectionFlags, SymbolIndex};
use spidnn_core::pages::{COUNT, EXCHANGES, KERNELS, Page};

/// Number of the page that is there at first.
pub const START: usize = COUNT;
/// Pages, with the one that is there at first.
pub const ALL: usize = COUNT + 1;
/// Functions that may call into pages, by parts of their mangled names: they have brought the page before, or run before all others.
const DISPATCHERS: &[&[&str]] = &[
    &["7Kernels5check"],
    &["7Kernels3run"],
    &["5apart3run"],
    &["7runtime", "8exchange"],
    &["5start3run"],
    &["7runtime3run"],
];
/// What runs once, before any page is brought.
const START_ROOTS: &[&[&str]] = &[&["5start7prepare"], &["7runtime", "9read_head"]];
/// Functions of exchanges between chips, which are in a page as a whole.
const EXCHANGE_ROOTS: &[&[&str]] = &[&["6stream", "9reduce_up"], &["6stream", "14broadcast_down"]];

/// What is apart from its kernels.
const EXPONENTIAL_ROOTS: &[&[&str]] = &[&["15spidnn_firmware5apart11exponential"]];
const GAUSSIAN_ROOTS: &[&[&str]] = &[&["15spidnn_firmware5apart8gaussian"]];

/// Flags of ELF sections, and types of relocations of branches (ELF for the Arm architecture, section 5.6).
const SHF_ALLOC: u64 = 2;
const SHF_MERGE: u64 = 16;
const R_ARM_THM_CALL: u32 = 10;
const R_ARM_CALL: u32 = 28;
const R_ARM_JUMP24: u32 = 29;
const R_ARM_THM_JUMP24: u32 = 30;

fn has(name: &str, parts: &[&[&str]]) -> bool {
    parts.iter().any(|all| all.iter().all(|part| name.contains(part)))
}

fn is_dispatcher(name: &str) -> bool {
    has(name, DISPATCHERS)
}

/// The page that begins with a function, by its mangled name: the check or the run of a kernel, an exchange, or a beginning.
fn root(name: &str) -> Option<usize> {
    if has(name, EXCHANGE_ROOTS) {
        return Some(EXCHANGES as usize);
    }
    if has(name, EXPONENTIAL_ROOTS) {
        return Some(Page::Exponential as usize);
    }
    if has(name, GAUSSIAN_ROOTS) {
        return Some(Page::Gaussian as usize);
    }
    if has(name, START_ROOTS) {
        return Some(START);
    }
    if !name.contains("15spidnn_firmware7accepts") && !name.contains("15spidnn_firmware7execute") {
        return None;
    }
    let (_, rest) = name.split_once("4call")?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let length: usize = rest[..digits].parse().ok()?;
    let kernel = rest.get(digits..digits + length)?;
    KERNELS.iter().find(|(name, _)| *name == kernel).map(|(_, page)| *page as usize)
}

/// Number of a section in its file.
type Number = usize;

/// What a section's relocations refer to.
fn targets(file: &object::File<'_>, section: &object::Section<'_, '_>) -> BTreeSet<Number> {
    let symbol = |index: SymbolIndex| Some(file.symbol_by_index(index).ok()?.section_index()?.0);
    section
        .relocations()
        .filter_map(|(_, relocation)| match relocation.target() {
            RelocationTarget::Symbol(index) => symbol(index),
            RelocationTarget::Section(index) => Some(index.0),
            _ => None,
        })
        .collect()
}

/// The sections of each of the pages that a variant has, by name, from an object file of the whole program.
///
/// # Errors
/// If the file is none, or something other than a dispatcher calls what is in a page.
pub fn plan(object: &[u8], variant_pages: &[Page]) -> Result<[Vec<String>; ALL], String> {
    let file = object::File::parse(object).map_err(|e| e.to_string())?;
    let mut names = BTreeMap::new();
    let mut edges = BTreeMap::new();
    let mut movable = BTreeSet::new();
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags, .. } = section.flags() else { continue };
        let name = section.name().map_err(|e| e.to_string())?;
        if sh_flags.0 & SHF_ALLOC == 0 || name.starts_with(".ARM.ex") {
            continue;
        }
        names.insert(section.index().0, name.to_string());
        edges.insert(section.index().0, targets(&file, &section));
        if sh_flags.0 & SHF_MERGE == 0 && (name.starts_with(".text.") || name.starts_with(".rodata.")) {
            movable.insert(section.index().0);
        }
    }
    let has_page = |page: usize| page == START || variant_pages.iter().any(|p| *p as usize == page);
    let roots: BTreeMap<Number, usize> = names
        .iter()
        .filter_map(|(index, name)| root(name).map(|page| (*index, page)))
        .filter(|(_, page)| has_page(*page))
        .collect();
    let reach = |from: Vec<Number>| {
        let mut seen: BTreeSet<Number> = from.iter().copied().collect();
        let mut open = from;
        while let Some(index) = open.pop() {
            let calls_pages = is_dispatcher(&names[&index]);
            for next in edges[&index].iter().filter(|next| names.contains_key(next)) {
                if !(calls_pages && roots.contains_key(next)) && seen.insert(*next) {
                    open.push(*next);
                }
            }
        }
        seen
    };
    let starts = names.iter().filter(|(_, name)| [".vectors", ".trailer"].contains(&name.as_str()));
    let resident = reach(starts.map(|(index, _)| *index).collect());
    let of_page = |page: usize| reach(roots.iter().filter(|(_, p)| **p == page).map(|(index, _)| *index).collect());
    let reached: Vec<BTreeSet<Number>> = (0..ALL).map(of_page).collect();
    for (index, page) in &roots {
        let others = reached.iter().enumerate().filter(|(number, _)| *number != *page);
        if resident.contains(index) || others.into_iter().any(|(_, set)| set.contains(index)) {
            return Err(format!("{} is in a page, and called by more than its dispatcher", names[index]));
        }
    }
    Ok(std::array::from_fn(|page| {
        let elsewhere = |index: &Number| {
            resident.contains(index) || (0..ALL).any(|other| other != page && reached[other].contains(index))
        };
        let own = reached[page].iter().filter(|index| movable.contains(index) && !elsewhere(index));
        own.map(|index| names[index].clone()).collect()
    }))
}

/// The part of the linker script for pages (empty ones: everything is resident).
pub fn script(plan: &[Vec<String>; ALL]) -> String {
    let mut text = String::from("    page_base = ALIGN(SIZEOF(.vectors), 8);\n");
    let mut end = String::from("page_base");
    for (page, sections) in plan.iter().enumerate() {
        if sections.is_empty() {
            let _ = writeln!(text, "    page_{page}_bytes = 0;");
            continue;
        }
        let _ = writeln!(text, "    .page{page} page_base :\n    {{");
        for section in sections {
            let _ = writeln!(text, "        *({section})");
        }
        let _ =
            writeln!(text, "        . = ALIGN(8);\n    }} > PAGE{page}\n    page_{page}_bytes = SIZEOF(.page{page});");
        end = format!("MAX({end}, page_base + SIZEOF(.page{page}))");
    }
    let _ = writeln!(text, "    page_end = {end};");
    text
}

/// Where something is: in a page, or resident.
type Place = Option<usize>;

/// The page of a section, by its name.
fn place(section: &str) -> Place {
    section.strip_prefix(".page").and_then(|number| number.parse().ok())
}

/// Functions of the linked program: place and address, name.
struct Functions(BTreeMap<(Place, u64), String>);

impl Functions {
    fn of(file: &object::File<'_>) -> Functions {
        let mut all = BTreeMap::new();
        for symbol in file.symbols() {
            let section = symbol.section_index().and_then(|index| file.section_by_index(index).ok());
            let (Some(section), Ok(name)) = (section, symbol.name()) else { continue };
            if !name.is_empty() && !name.starts_with('$') {
                let at = (place(section.name().unwrap_or_default()), symbol.address() & !1);
                all.entry(at).or_insert_with(|| name.to_string());
            }
        }
        Functions(all)
    }

    /// The function around an address.
    fn around(&self, at: (Place, u64)) -> &str {
        self.0.range((at.0, 0)..=at).next_back().map_or("", |(_, name)| name)
    }
}

/// Where a branch goes, from its instruction; `None` for something else.
fn branch_target(kind: u32, address: u64, bytes: &[u8]) -> Option<u64> {
    let word = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
    let to = |base: u64, offset: i32| base.wrapping_add_signed(offset.into()) & 0xFFFF_FFFF;
    match kind {
        R_ARM_CALL | R_ARM_JUMP24 => {
            // BLX to Thumb code has half a word in bit 24.
            let half = if word >> 28 == 15 { word >> 23 & 2 } else { 0 };
            Some(to(address + 8, ((word << 8) as i32 >> 6) | half as i32))
        }
        R_ARM_THM_CALL | R_ARM_THM_JUMP24 => {
            // Two halves of 11 bits each: BL, or BLX to ARM code, whose address is aligned.
            let (high, low) = (word & 0x7FF, word >> 16);
            let offset = ((high << 21) as i32 >> 9) | ((low & 0x7FF) << 1) as i32;
            let target = to(address + 4, offset);
            Some(if low & 0x1000 == 0 { target & !3 } else { target })
        }
        _ => None,
    }
}

/// Checks that nothing in a linked program (with its relocations) refers into a page, but its own page and its dispatcher.
///
/// # Errors
/// What does.
pub fn verify(elf: &[u8]) -> Result<(), String> {
    let file = object::File::parse(elf).map_err(|e| e.to_string())?;
    let functions = Functions::of(&file);
    let sections: Vec<_> = file.sections().collect();
    let paged = |section: &&object::Section<'_, '_>| place(section.name().unwrap_or_default()).is_some();
    let area = sections.iter().filter(paged).map(|s| (s.address(), s.address() + s.size()));
    let Some((base, end)) = area.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) else { return Ok(()) };
    let mut references = 0;
    for section in &sections {
        let SectionFlags::Elf { sh_flags, .. } = section.flags() else { continue };
        let name = section.name().map_err(|e| e.to_string())?;
        if sh_flags.0 & SHF_ALLOC == 0 || name.starts_with(".ARM.ex") {
            continue;
        }
        let own = place(name);
        let data = section.data().unwrap_or_default();
        for (address, relocation) in section.relocations() {
            references += 1;
            let RelocationTarget::Symbol(index) = relocation.target() else { continue };
            let Ok(symbol) = file.symbol_by_index(index) else { continue };
            let target_section = symbol.section_index().and_then(|index| file.section_by_index(index).ok());
            let target = target_section.and_then(|s| s.name().ok().and_then(place));
            let caller = functions.around((own, address));
            let allowed = |to: usize| own == Some(to) || (own.is_none() && is_dispatcher(caller));
            if let Some(page) = target
                && !allowed(page)
            {
                return Err(format!("{caller} refers to page {page}, where {} is", symbol.name().unwrap_or("?")));
            }
            // By way of another page's thunk, perhaps.
            let RelocationFlags::Elf { r_type } = relocation.flags() else { continue };
            let bytes = data.get((address - section.address()) as usize..).unwrap_or_default();
            let Some(to) = branch_target(r_type.0, address, bytes) else { continue };
            let there = |page: Place| functions.0.contains_key(&(page, to & !1));
            let arrives = match own {
                _ if !(base..end).contains(&to) => true,
                Some(page) => there(Some(page)),
                None => target.is_some_and(|page| is_dispatcher(caller) && there(Some(page))),
            };
            if !arrives {
                return Err(format!("{caller} branches to {to:#x}, where nothing of its own begins"));
            }
        }
    }
    if references == 0 { Err("no relocations to check".into()) } else { Ok(()) }
}

/// Bytes of each page in a linked program, and their content, one after the other.
pub fn content(file: &object::File<'_>) -> ([u32; COUNT], Vec<u8>) {
    let mut all = Vec::new();
    let lengths = std::array::from_fn(|page| {
        let section = file.section_by_name(&format!(".page{page}"));
        let data = section.as_ref().map_or(&[][..], |section| section.data().unwrap_or_default());
        all.extend_from_slice(data);
        data.len() as u32
    });
    (lengths, all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_are_read_as_the_core_does() {
        // From disassemblies: `bl 0x70b4` and `blx 0x1a14` in Thumb code, `b 0x18c` and `bl 0x2000` in ARM code.
        assert_eq!(branch_target(R_ARM_THM_CALL, 0x266, &[0x06, 0xF0, 0x25, 0xFF]), Some(0x70B4));
        assert_eq!(branch_target(R_ARM_THM_CALL, 0x3A4, &[0x01, 0xF0, 0x36, 0xEB]), Some(0x1A14));
        assert_eq!(branch_target(R_ARM_JUMP24, 0, &[0x61, 0, 0, 0xEA]), Some(0x18C));
        assert_eq!(branch_target(R_ARM_CALL, 0x2008, &[0xFC, 0xFF, 0xFF, 0xEB]), Some(0x2000));
        assert_eq!(branch_target(R_ARM_CALL, 0x2008, &[0xFC, 0xFF, 0xFF, 0xFB]), Some(0x2002), "blx to a half-word");
        assert_eq!(branch_target(2, 0, &[0; 4]), None);
    }

    #[test]
    fn pages_begin_with_checks_and_runs_of_their_kernels() {
        let name = |verb: &str, kernel: &str| {
            format!(".text._RINvCs1_15spidnn_firmware{verb}NtNtCs2_14spidnn_kernels4call{kernel}ECs3_5train")
        };
        assert_eq!(root(&name("7execute", "4Loss")), Some(2));
        assert_eq!(root(&name("7accepts", "13OptimizerStep")), Some(3));
        assert_eq!(root(&name("7execute", "4Gemm")), None);
        assert_eq!(root(&name("7execute", "8CopyRows")), None);
        assert_eq!(root(".text._RINvMsj_NtNtCs9_11spidnn_core8exchange6streamNtB8_5Links9reduce_upE"), Some(5));
        assert_eq!(root(".text._RNvNtCs1_15spidnn_firmware5apart8gaussian"), Some(7));
        assert_eq!(root(".text._RNvNtCs1_15spidnn_firmware5start7prepare"), Some(START));
    }
}
