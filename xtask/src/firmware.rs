//! `cargo xtask firmware`: builds the on-core firmware with the pinned compiler and packs it for the monitor's loader.
//! `cargo xtask size`: what it takes of a core's memories.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::{Object, ObjectSection, ObjectSymbol};
use spidnn_core::pages::COUNT;
use spidnn_core::pages::Page::{self, Exchange, Exponential, Gaussian, Gradient, Loss, Norm, Product, Shape, Update};
use spinnaker_wire::aplx::{self, ENTRY_BYTES, Entry, HEADER_BYTES};

use crate::pages;

/// The compiler whose output the committed artefacts are: Debian packages rustc-web, rust-web-src and lld.
const COMPILER: &str = "rustc 1.96.0";
/// Where the packages put it; `FIRMWARE_RUSTC` names another place.
const COMPILER_PATH: &str = "/usr/bin/rustc";
/// Target description in the firmware's folder.
const TARGET: &str = "thumbv5te-spinnaker";
/// The linker (Debian package lld); `FIRMWARE_LINKER` names another place.
const LINKER: &str = "ld.lld";
/// The firmware's variants: binary, features, its pages.
const VARIANTS: &[(&str, &str, &[Page])] = &[
    ("predict", "usual-units,exponential-units", &[]),
    ("predict_int8", "usual-units", &[Product, Loss, Norm]),
    ("predict_bfp16", "usual-units", &[]),
    (
        "train",
        "exchanges,all-units,units-apart",
        &[Product, Shape, Loss, Update, Norm, Exchange, Exponential, Gaussian],
    ),
    (
        "train_bfp16",
        "exchanges,all-units,units-apart",
        &[Product, Shape, Loss, Update, Norm, Exchange, Exponential, Gaussian, Gradient],
    ),
    ("kernels", "usual-units", &[]),
    ("kernels_train", "usual-units", &[]),
    ("kernels_formats", "usual-units", &[]),
    ("kernels_rest", "all-units", &[]),
    ("functions", "", &[]),
    ("stream", "", &[]),
];
/// Set in the environment of a compiler that is wrapped.
const WRAPPED: &str = "SPIDNN_FIRMWARE_WRAPPED";
/// Where the linker script wants the part that is written here.
const PAGES_MARK: &str = "/* PAGES";
/// Code that fits beside the monitor's loader, and what the runtime's own data may take of local memory: segments, statics, stacks.
const CODE_BYTES_MAX: u64 = aplx::CODE_BYTES_MAX as u64;
const DATA_BYTES_MAX: u64 = 12 << 10;
/// Of which the segment buffer takes (spidnn_core::program::memory).
const SEGMENT_BYTES: u64 = 8 << 10;

/// Memory of a built variant, in bytes.
struct Sizes {
    /// Resident code and the largest page.
    code: u64,
    pages: [u32; COUNT],
    statics: u64,
    stack: u64,
}

/// Builds every variant, or `only` one, and writes the artefacts, or (`check`) compares them with what is there. Problems, if there
/// are some.
pub fn build(root: &Path, check: bool, only: Option<&str>) -> Vec<String> {
    if let Err(problem) = compiler() {
        return vec![problem];
    }
    if let Some(unknown) = only.filter(|only| VARIANTS.iter().all(|v| v.0 != *only)) {
        return vec![format!("{unknown}: no such variant of the firmware")];
    }
    let mut problems = Vec::new();
    for &(name, features, variant_pages) in VARIANTS.iter().filter(|v| only.is_none_or(|only| v.0 == only)) {
        let packed = compile(root, name, features).and_then(|o| link(root, name, &o, variant_pages)).and_then(|elf| {
            let code = sizes_of(&elf)?.code;
            if code > CODE_BYTES_MAX {
                return Err(format!("{code} bytes of code, {CODE_BYTES_MAX} fit"));
            }
            pack(&elf)
        });
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
    for &(name, features, variant_pages) in VARIANTS {
        let elf = compile(root, name, features).and_then(|object| link(root, name, &object, variant_pages));
        match elf.and_then(|elf| sizes_of(&elf)) {
            Ok(s) => {
                let data = SEGMENT_BYTES + s.statics + s.stack;
                let _ = writeln!(
                    table,
                    "{name:<10} {:>6} {:>22} = segments {SEGMENT_BYTES} + statics {} + stack {}",
                    s.code, data, s.statics, s.stack
                );
                if s.pages.iter().any(|bytes| *bytes > 0) {
                    let _ = writeln!(table, "{:<10} of which the largest of the pages {:?}", "", s.pages);
                }
                if s.code > CODE_BYTES_MAX || data > DATA_BYTES_MAX {
                    problems.push(format!(
                        "{name}: beyond its budget: code {} of {CODE_BYTES_MAX}, data {data} of {DATA_BYTES_MAX} bytes",
                        s.code
                    ));
                }
            }
            Err(problem) => problems.push(format!("{name}: {problem}")),
        }
    }
    if problems.is_empty() {
        return Ok(table);
    }
    problems.insert(0, table);
    Err(problems)
}

/// Whether this process stands in for the compiler, as `RUSTC_WRAPPER` of [`compile`].
pub fn is_wrapper() -> bool {
    std::env::var_os(WRAPPED).is_some()
}

/// Runs the compiler that the arguments name. Cargo gives every crate a number that depends on the folder it lies in, and names and
/// order of functions depend on that number: here each crate gets one by its name, so that the same source gives the same bytes
/// in any folder.
pub fn wrap(arguments: &[String]) -> std::process::ExitCode {
    let Some((compiler, arguments)) = arguments.split_first() else { return std::process::ExitCode::FAILURE };
    let name = arguments.iter().skip_while(|a| *a != "--crate-name").nth(1).cloned().unwrap_or_default();
    let fixed = arguments.iter().map(|argument| match argument.strip_prefix("metadata=") {
        Some(_) if name.starts_with("spidnn") || VARIANTS.iter().any(|v| v.0 == name) => format!("metadata={name}"),
        _ => argument.clone(),
    });
    match Command::new(compiler).args(fixed).env_remove(WRAPPED).status() {
        Ok(status) if status.success() => std::process::ExitCode::SUCCESS,
        _ => std::process::ExitCode::FAILURE,
    }
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

/// Builds a variant as one object file, with all its sections.
fn compile(root: &Path, name: &str, features: &str) -> Result<PathBuf, String> {
    let folder = root.join("crates/spidnn-firmware");
    let sysroot = Command::new(compiler_path())
        .args(["--print", "sysroot"])
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string())
        .map_err(|e| e.to_string())?;
    // Nothing of this machine's folders gets into the binary.
    let flags = [
        format!("-Clinker={}", linker()),
        "-Clink-arg=-r".to_string(),
        "-Clink-arg=--no-gc-sections".to_string(),
        format!("--remap-path-prefix={}=", with_slash(root)),
        format!("--remap-path-prefix={}=", with_slash(Path::new(&sysroot))),
    ];
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(&folder)
        .env("RUSTC", compiler_path())
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env("RUSTC_WRAPPER", std::env::current_exe().map_err(|e| e.to_string())?)
        .env(WRAPPED, "1")
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
    Ok(built(root, name))
}

/// The object file of a variant; its ELF file lies beside it.
fn built(root: &Path, name: &str) -> PathBuf {
    root.join("crates/spidnn-firmware/target").join(TARGET).join("release").join(name)
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))
}

fn linker() -> String {
    std::env::var("FIRMWARE_LINKER").unwrap_or_else(|_| LINKER.into())
}

/// Links a variant: what its pages are, where everything lies, and that no page refers to another.
fn link(root: &Path, name: &str, object: &Path, variant_pages: &[Page]) -> Result<Vec<u8>, String> {
    let plan = match variant_pages {
        [] => Default::default(),
        some => pages::plan(&read(object)?, some)?,
    };
    let template = String::from_utf8(read(&root.join("crates/spidnn-firmware/link.x"))?).map_err(|e| e.to_string())?;
    if !template.contains(PAGES_MARK) {
        return Err(format!("link.x has no place for `{PAGES_MARK}`"));
    }
    let (script, elf) = (built(root, &format!("{name}.x")), built(root, &format!("{name}.elf")));
    let text = template.replace(&format!("    {PAGES_MARK}"), &format!("{}    {PAGES_MARK}", pages::script(&plan)));
    std::fs::write(&script, text).map_err(|e| format!("{}: {e}", script.display()))?;
    let status = Command::new(linker())
        .args(["--gc-sections", "--emit-relocs", "--no-check-sections", "-o"])
        .arg(&elf)
        .arg("-T")
        .arg(&script)
        .arg(object)
        .status()
        .map_err(|e| format!("{}: {e}", linker()))?;
    if !status.success() {
        return Err("does not link".into());
    }
    let elf = read(&elf)?;
    pages::verify(&elf)?;
    Ok(elf)
}

fn with_slash(path: &Path) -> String {
    format!("{}/", path.display())
}

/// A section's address and size, and its content if it has some.
fn section<'a>(file: &object::File<'a>, name: &str) -> Option<(u64, u64, &'a [u8])> {
    let section = file.section_by_name(name)?;
    Some((section.address(), section.size(), section.data().unwrap_or_default()))
}

/// Packs an ELF file as the monitor's loader takes it: vectors, what starts the core, resident code, data; and behind it what the loader does not look at:
/// the pages.
fn pack(elf: &[u8]) -> Result<Vec<u8>, String> {
    let sizes = sizes_of(elf)?;
    if sizes.code > CODE_BYTES_MAX {
        return Err(format!("{} bytes of code, {CODE_BYTES_MAX} fit", sizes.code));
    }
    let file = object::File::parse(elf).map_err(|e| e.to_string())?;
    let mut entries: Vec<Entry> = Vec::new();
    let mut content = Vec::new();
    // What follows on what was before needs no entry of its own: there are four.
    let mut end = None;
    for name in [".vectors", &format!(".page{}", pages::START), ".text", ".data"] {
        let Some((address, size, bytes)) = section(&file, name).filter(|(_, size, _)| *size > 0) else { continue };
        let offset = (HEADER_BYTES + content.len() - ENTRY_BYTES * entries.len()) as i32;
        match entries.last_mut() {
            Some(Entry::RelativeCopy { length_bytes, .. }) if end == Some(address) => *length_bytes += size as u32,
            _ => entries.push(Entry::RelativeCopy { destination: address as u32, offset, length_bytes: size as u32 }),
        }
        end = Some(address + size);
        content.extend_from_slice(bytes);
        content.resize(content.len().next_multiple_of(4), 0);
    }
    entries.push(Entry::Execute { address: 0 });
    if entries.len() > HEADER_BYTES / ENTRY_BYTES {
        return Err("more pieces than the loader's table has entries".into());
    }
    entries.resize(HEADER_BYTES / ENTRY_BYTES, Entry::End { code: 0 });
    let mut packed = vec![0; HEADER_BYTES];
    for (entry, place) in entries.iter().zip(packed.chunks_exact_mut(ENTRY_BYTES)) {
        entry.emit(place).map_err(|e| e.to_string())?;
    }
    packed.extend(content);
    packed.extend(pages::content(&file).1);
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
    let code = symbol("page_end")? + size(".text");
    Ok(Sizes { code, pages: pages::content(&file).0, statics, stack: symbol("stack_top")? - symbol("stack_end")? })
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
