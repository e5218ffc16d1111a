//! `cargo xtask firmware`: builds the on-core firmware with the pinned compiler and packs it for the monitor's loader.
//! `cargo xtask size`: what it takes of a core's memories.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::{Object, ObjectSection, ObjectSymbol};
use spinnaker_wire::aplx::{self, ENTRY_BYTES, Entry, HEADER_BYTES};

/// The compiler whose output the committed artefacts are: Debian packages rustc-web, rust-web-src and lld.
const COMPILER: &str = "rustc 1.96.0";
/// Where the packages put it; `FIRMWARE_RUSTC` names another place.
const COMPILER_PATH: &str = "/usr/bin/rustc";
/// Target description in the firmware's folder.
const TARGET: &str = "thumbv5te-spinnaker";
/// The firmware's variants: binary, features.
const VARIANTS: &[(&str, &str)] = &[("predict", "")];
/// Code that fits beside the monitor's loader, and what the runtime's own data may take of local memory: segments, statics, stacks.
const CODE_BYTES_MAX: u64 = aplx::CODE_BYTES_MAX as u64;
const DATA_BYTES_MAX: u64 = 12 << 10;
/// Of which the segment buffer takes (spidnn_core::program::memory).
const SEGMENT_BYTES: u64 = 8 << 10;

/// Memory of a built variant, in bytes.
struct Sizes {
    code: u64,
    statics: u64,
    stack: u64,
}

/// Builds every variant and writes the artefacts, or (`check`) compares them with what is there. Problems, if there are some.
pub fn build(root: &Path, check: bool) -> Vec<String> {
    if let Err(problem) = compiler() {
        return vec![problem];
    }
    let mut problems = Vec::new();
    for &(name, features) in VARIANTS {
        let packed = compile(root, name, features).and_then(|elf| pack(&elf));
        let file = root.join("crates/spidnn-firmware/artefacts").join(format!("{name}.aplx"));
        let outcome = packed.and_then(|bytes| if check { compare(&file, &bytes) } else { write(&file, &bytes) });
        problems.extend(outcome.err().map(|problem| format!("{name}: {problem}")));
    }
    problems
}

/// The sizes of every variant as a table, or the problems.
pub fn sizes(root: &Path) -> Result<String, Vec<String>> {
    compiler().map_err(|problem| vec![problem])?;
    let mut table =
        format!("{:<10} {:>6} of {CODE_BYTES_MAX} code  {:>6} of {DATA_BYTES_MAX} data  (bytes)\n", "variant", "", "");
    let mut problems = Vec::new();
    for &(name, features) in VARIANTS {
        match compile(root, name, features).and_then(|elf| sizes_of(&elf)) {
            Ok(s) => {
                let data = SEGMENT_BYTES + s.statics + s.stack;
                let _ = writeln!(
                    table,
                    "{name:<10} {:>6} {:>22} = segments {SEGMENT_BYTES} + statics {} + stack {}",
                    s.code, data, s.statics, s.stack
                );
                if s.code > CODE_BYTES_MAX || data > DATA_BYTES_MAX {
                    problems.push(format!("{name}: beyond its budget"));
                }
            }
            Err(problem) => problems.push(format!("{name}: {problem}")),
        }
    }
    if problems.is_empty() { Ok(table) } else { Err(problems) }
}

fn compiler_path() -> String {
    std::env::var("FIRMWARE_RUSTC").unwrap_or_else(|_| COMPILER_PATH.into())
}

/// Whether the pinned compiler is there.
fn compiler() -> Result<(), String> {
    let path = compiler_path();
    let hint = format!(
        "the firmware is built by {COMPILER} (Debian: apt-get install rustc-web rust-web-src lld); FIRMWARE_RUSTC names its place"
    );
    let output = Command::new(&path).arg("--version").output().map_err(|e| format!("{path}: {e}; {hint}"))?;
    let version = String::from_utf8_lossy(&output.stdout).into_owned();
    if version.starts_with(COMPILER) { Ok(()) } else { Err(format!("{path} is {}; {hint}", version.trim())) }
}

/// Builds a variant; its ELF file.
fn compile(root: &Path, name: &str, features: &str) -> Result<Vec<u8>, String> {
    let folder = root.join("crates/spidnn-firmware");
    let sysroot = Command::new(compiler_path())
        .args(["--print", "sysroot"])
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string())
        .map_err(|e| e.to_string())?;
    // Nothing of this machine's folders gets into the binary.
    let flags = [
        "-Clinker=ld.lld".to_string(),
        "-Clink-arg=-Tlink.x".to_string(),
        format!("--remap-path-prefix={}=", with_slash(root)),
        format!("--remap-path-prefix={}=", with_slash(Path::new(&sysroot))),
    ];
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(&folder)
        .env("RUSTC", compiler_path())
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO_TARGET_DIR")
        .args(["build", "--release", "--locked", "--bin", name, "--features", features])
        .args(["--target", &format!("./{TARGET}.json"), "-Z", "json-target-spec"])
        .args(["-Z", "build-std=core", "-Z", "build-std-features=compiler-builtins-mem"])
        .status()
        .map_err(|e| format!("cargo: {e}"))?;
    if !status.success() {
        return Err("does not build".into());
    }
    let elf: PathBuf = folder.join("target").join(TARGET).join("release").join(name);
    std::fs::read(&elf).map_err(|e| format!("{}: {e}", elf.display()))
}

fn with_slash(path: &Path) -> String {
    format!("{}/", path.display())
}

/// A section's address and size, and its content if it has some.
fn section<'a>(file: &object::File<'a>, name: &str) -> Option<(u64, u64, &'a [u8])> {
    let section = file.section_by_name(name)?;
    Some((section.address(), section.size(), section.data().unwrap_or_default()))
}

/// Packs an ELF file as the monitor's loader takes it.
fn pack(elf: &[u8]) -> Result<Vec<u8>, String> {
    let file = object::File::parse(elf).map_err(|e| e.to_string())?;
    let (_, _, code) = section(&file, ".text").ok_or("no code")?;
    let mut entries =
        vec![Entry::RelativeCopy { destination: 0, offset: HEADER_BYTES as i32, length_bytes: code.len() as u32 }];
    let data = section(&file, ".data").filter(|(_, size, _)| *size > 0);
    if let Some((address, size, _)) = data {
        let offset = (HEADER_BYTES + code.len() - ENTRY_BYTES * entries.len()) as i32;
        entries.push(Entry::RelativeCopy { destination: address as u32, offset, length_bytes: size as u32 });
    }
    if let Some((address, size, _)) = section(&file, ".bss").filter(|(_, size, _)| *size > 0) {
        entries.push(Entry::Fill { destination: address as u32, length_bytes: size as u32, word: 0 });
    }
    entries.push(Entry::Execute { address: 0 });
    entries.resize(HEADER_BYTES / ENTRY_BYTES, Entry::End { code: 0 });
    let mut packed = vec![0; HEADER_BYTES];
    for (entry, place) in entries.iter().zip(packed.chunks_exact_mut(ENTRY_BYTES)) {
        entry.emit(place).map_err(|e| e.to_string())?;
    }
    packed.extend_from_slice(code);
    packed.extend_from_slice(data.map_or(&[][..], |(_, _, bytes)| bytes));
    packed.resize(packed.len().next_multiple_of(4), 0);
    Ok(packed)
}

fn sizes_of(elf: &[u8]) -> Result<Sizes, String> {
    let file = object::File::parse(elf).map_err(|e| e.to_string())?;
    let size = |name| section(&file, name).map_or(0, |(_, size, _)| size);
    let symbol = |name: &str| {
        let found = file.symbols().find(|symbol| symbol.name() == Ok(name));
        found.map(|symbol| symbol.address()).ok_or(format!("no symbol {name}"))
    };
    let statics = size(".ring") + size(".data") + size(".bss");
    Ok(Sizes { code: size(".text"), statics, stack: symbol("stack_top")? - symbol("stack_end")? })
}

fn compare(file: &Path, built: &[u8]) -> Result<(), String> {
    let committed = std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
    if committed == built {
        return Ok(());
    }
    let at = committed.iter().zip(built).position(|(a, b)| a != b).unwrap_or(committed.len().min(built.len()));
    Err(format!(
        "{} is not what its source gives (from byte {at} of {}, built {}): run `cargo xtask firmware` and commit",
        file.display(),
        committed.len(),
        built.len()
    ))
}

/// Writes by way of a temporary file, so that an interruption leaves the old one.
fn write(file: &Path, bytes: &[u8]) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", file.display());
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let new = file.with_extension("new");
    std::fs::write(&new, bytes).map_err(failed)?;
    std::fs::rename(&new, file).map_err(failed)?;
    println!("{}: {} bytes", file.display(), bytes.len());
    Ok(())
}
