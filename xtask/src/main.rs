//! Project commands beyond cargo: see [`USAGE`].
#![forbid(unsafe_code)]

mod firmware;
mod pages;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask COMMAND
  arrows             check that crates depend only downwards
  firmware           build the on-core firmware into crates/spidnn-firmware/artefacts
  firmware NAME      build one of its variants
  firmware --check   build it, and compare with what is there
  size               what the firmware takes of a core's memories";

/// Which of our crates each crate may use (see ARCHITECTURE.md).
const ARROWS: &[(&str, &[&str])] = &[
    ("spinnaker-machine", &[]),
    ("spinnaker-wire", &[]),
    ("spinnaker-host", &["spinnaker-wire"]),
    ("spinnaker-sim", &["spinnaker-machine", "spinnaker-wire"]),
    ("spidnn-kernels", &[]),
    ("spidnn-core", &["spidnn-kernels"]),
    ("spidnn-firmware", &["spidnn-core", "spidnn-kernels"]),
    ("spidnn-graph", &[]),
    ("spidnn-import", &["spidnn-graph"]),
    ("spidnn-compiler", &["spidnn-core", "spidnn-graph", "spidnn-kernels", "spinnaker-machine"]),
    (
        "spidnn",
        &[
            "spidnn-compiler",
            "spidnn-core",
            "spidnn-graph",
            "spidnn-import",
            "spidnn-kernels",
            "spinnaker-host",
            "spinnaker-machine",
            "spinnaker-sim",
            "spinnaker-wire",
        ],
    ),
    ("spidnn-truth", &["spidnn-kernels", "spinnaker-sim", "spinnaker-wire"]),
    (
        "spidnn-cli",
        &["spidnn", "spidnn-import", "spinnaker-host", "spinnaker-machine", "spinnaker-sim", "spinnaker-wire"],
    ),
    ("spidnn-python", &["spidnn"]),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if firmware::is_wrapper() {
        return firmware::wrap(&arguments);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let problems = match arguments[..] {
        ["arrows"] => arrows(&workspace().join("crates")),
        ["firmware"] => firmware::build(&workspace(), false, None),
        ["firmware", "--check"] => firmware::build(&workspace(), true, None),
        ["firmware", name] => firmware::build(&workspace(), false, Some(name)),
        ["size"] => match firmware::sizes(&workspace()) {
            Ok(table) => {
                print!("{table}");
                Vec::new()
            }
            Err(problems) => problems,
        },
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    for problem in &problems {
        eprintln!("{problem}");
    }
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Our crates among the `[dependencies]` of a manifest (tests may use what they like).
fn dependencies(manifest: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in manifest.lines() {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line == "[dependencies]";
        } else if inside && let Some((name, _)) = line.split_once('=') {
            let name = name.trim().trim_end_matches(".workspace").trim_matches('"');
            if name.starts_with("spidnn") || name.starts_with("spinnaker") {
                found.push(name.to_string());
            }
        }
    }
    found
}

/// Every dependency that points the wrong way, and every crate that the list does not know.
fn arrows(crates: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    let entries = match std::fs::read_dir(crates) {
        Ok(entries) => entries,
        Err(e) => return vec![format!("{}: {e}", crates.display())],
    };
    let mut names: Vec<String> =
        entries.filter_map(|e| e.ok()).map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    for name in names {
        let path = crates.join(&name).join("Cargo.toml");
        let Ok(manifest) = std::fs::read_to_string(&path) else { continue };
        let Some((_, allowed)) = ARROWS.iter().find(|(n, _)| *n == name) else {
            problems.push(format!("{name}: not on the map: add it to ARROWS in xtask and to ARCHITECTURE.md"));
            continue;
        };
        for dependency in dependencies(&manifest) {
            if !allowed.contains(&dependency.as_str()) {
                problems
                    .push(format!("{name} must not use {dependency}: arrows point downwards only (ARCHITECTURE.md)"));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_depend_only_downwards() {
        assert_eq!(arrows(&workspace().join("crates")), Vec::<String>::new());
    }

    #[test]
    fn an_upward_arrow_is_found() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\nspidnn = { workspace = true }\nndarray.workspace = true\n[dev-dependencies]\nspidnn-cli = \"1\"\n";
        assert_eq!(dependencies(manifest), vec!["spidnn".to_string()]);
        let dir = std::env::temp_dir().join(format!("spidnn-arrows-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("spidnn-kernels")).unwrap();
        std::fs::write(dir.join("spidnn-kernels/Cargo.toml"), manifest).unwrap();
        let problems = arrows(&dir);
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("spidnn-kernels must not use spidnn:"));
    }
}
