//! Whole files in, whole files out: nothing is ever half written.

use std::io::{Read, Write};
use std::path::Path;

use crate::{ImportError, limits};

/// The bytes of a file, at most [`limits::FILE_BYTES_MAX`].
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ImportError> {
    let io = |source| ImportError::Io { path: path.to_owned(), doing: "read", source };
    let file = std::fs::File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if metadata.is_dir() {
        return Err(io(std::io::Error::other("it is a folder")));
    }
    let mut bytes = Vec::new();
    // The length on the label may lie (devices, pipes), so the reading itself is bounded.
    file.take(limits::FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > limits::FILE_BYTES_MAX {
        return Err(ImportError::too_large("the file's size in bytes", bytes.len() as u64, limits::FILE_BYTES_MAX)
            .in_file(path));
    }
    Ok(bytes)
}

/// Writes a file under a temporary name in the same folder, then renames it, so that a reader sees the old file or the
/// new one, and an error leaves the old one.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), ImportError> {
    let io = |source| ImportError::Io { path: path.to_owned(), doing: "write", source };
    if path.is_dir() {
        return Err(io(std::io::Error::other("it is a folder")));
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".spidnn-");
    // Temporary files are private by default; the finished one gets what `File::create` would give (the umask applies).
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder).map_err(io)?;
    file.write_all(bytes).map_err(io)?;
    file.as_file().sync_all().map_err(io)?;
    file.persist(path).map_err(|error| io(error.error))?;
    Ok(())
}
