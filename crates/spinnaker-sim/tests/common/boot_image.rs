//! Where tests find the official boot image; `spinnaker-host` has this file, too.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The content of what the environment variable `SPINNAKER_BOOT_IMAGE` names, else of the image of an installed SpiNNMan.
pub fn boot_image() -> Option<Vec<u8>> {
    const SCRIPT: &str = "import importlib.util as u; print(u.find_spec('spinnman').submodule_search_locations[0])";
    let installed = || {
        let output = Command::new("python3").args(["-c", SCRIPT]).output().ok()?;
        let folder = String::from_utf8(output.stdout).ok()?;
        Some(Path::new(folder.trim()).join("messages/spinnaker_boot/boot_data/scamp.boot"))
    };
    let named = std::env::var_os("SPINNAKER_BOOT_IMAGE").map(PathBuf::from);
    std::fs::read(named.or_else(installed)?).ok()
}
