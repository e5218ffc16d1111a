//! The Python package, imported by a Python with NumPy: `python/spidnn` beside the library that cargo has built for this test.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The built extension: beside this test's executable.
fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().unwrap();
    folder.join(format!("{}spidnn_python{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX))
}

fn has_numpy(python: &str) -> bool {
    let script = "import sys, numpy; assert sys.version_info >= (3, 10)";
    Command::new(python).args(["-c", script]).output().is_ok_and(|output| output.status.success())
}

#[test]
fn the_package_predicts_trains_and_streams() {
    let candidates = [std::env::var("SPINNAKER_PYTHON").unwrap_or_default(), "python3".into()];
    let Some(python) = candidates.iter().find(|python| !python.is_empty() && has_numpy(python)) else {
        eprintln!("not run: there is no Python 3.10 or newer with NumPy (SPINNAKER_PYTHON, python3)");
        return;
    };
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let package = folder.path().join("spidnn");
    std::fs::create_dir(&package).unwrap();
    for file in std::fs::read_dir(here.join("python/spidnn")).unwrap() {
        let file = file.unwrap().path();
        if file.is_file() {
            std::fs::copy(&file, package.join(file.file_name().unwrap())).unwrap();
        }
    }
    let extension = if cfg!(windows) { "_native.pyd" } else { "_native.abi3.so" };
    std::fs::copy(library(), package.join(extension)).unwrap();
    let output = Command::new(python)
        .args(["-m", "unittest", "-v", "test_spidnn"])
        .current_dir(here.join("tests"))
        .env("PYTHONPATH", folder.path())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !text.contains("Ran 0 tests"), "{text}");
}
