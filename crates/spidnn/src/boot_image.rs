//! The official boot image (SC&MP), which is not part of this project: where it is found.

use std::path::PathBuf;
use std::process::Command;

use crate::Error;

/// Environment variable that names the image.
pub const VARIABLE: &str = "SPINNAKER_BOOT_IMAGE";
/// Prints the folder of an installed SpiNNMan.
const SCRIPT: &str = "import importlib.util as u; print(u.find_spec('spinnman').submodule_search_locations[0])";
/// Place of the image there.
const PLACE: &str = "messages/spinnaker_boot/boot_data/scamp.boot";

/// The image's file: what the environment variable `SPINNAKER_BOOT_IMAGE` names, else that of an installed SpiNNMan (the official Python
/// package).
///
/// # Errors
/// If there is none.
pub fn path() -> Result<PathBuf, Error> {
    let named = std::env::var_os(VARIABLE).map(PathBuf::from);
    named.or_else(installed).ok_or_else(|| {
        Error::Argument(format!(
            "blank boards, those of fidelity=cycle too, are booted with the official monitor, whose image is not part of SpiDNN: name it by {VARIABLE}=FILE, or install the package that has it (pip install SpiNNMan)"
        ))
    })
}

/// The content of [`path`].
///
/// # Errors
/// If there is none, or it cannot be read.
pub fn find() -> Result<Vec<u8>, Error> {
    let path = path()?;
    std::fs::read(&path).map_err(|e| Error::Argument(format!("boot image {}: {e}", path.display())))
}

fn installed() -> Option<PathBuf> {
    let output = Command::new("python3").args(["-c", SCRIPT]).output().ok().filter(|output| output.status.success())?;
    let folder = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(folder.trim()).join(PLACE)).filter(|path| path.exists())
}
