//! Zip archives (`.keras`, `.npz`): entries by name, bounded, never written to disk. Names of entries are only ever
//! compared, never used as paths.

use std::io::{Cursor, Read, Write};

use crate::{ImportError, limits};

/// An archive in memory.
pub(crate) struct Archive {
    zip: zip::ZipArchive<Cursor<Vec<u8>>>,
}

impl Archive {
    /// Reads the directory. `what` names the archive in errors.
    pub(crate) fn open(what: &str, bytes: Vec<u8>) -> Result<Self, ImportError> {
        if !bytes.starts_with(b"PK") {
            return Err(ImportError::format(format!("{what} is not a zip archive: it does not start with `PK`")));
        }
        let zip = zip::ZipArchive::new(Cursor::new(bytes))
            .map_err(|error| ImportError::format(format!("{what} is not a readable zip archive: {error}")))?;
        if zip.len() > limits::ARCHIVE_ENTRIES_MAX {
            return Err(ImportError::too_large(
                format!("the number of entries of {what}"),
                zip.len() as u64,
                limits::ARCHIVE_ENTRIES_MAX as u64,
            ));
        }
        Ok(Self { zip })
    }

    /// Names of the entries, in the order of the archive.
    pub(crate) fn names(&self) -> Vec<String> {
        self.zip.file_names().filter_map(|name| name.ok().map(|name| name.into_owned())).collect()
    }

    /// The unpacked bytes of an entry, or `None` where there is none of that name.
    pub(crate) fn read(&mut self, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, ImportError> {
        let bad =
            |error: &dyn std::fmt::Display| ImportError::format(format!("entry `{name}` of the archive: {error}"));
        let entry = match self.zip.by_name(name) {
            Ok(entry) => entry,
            Err(zip::result::ZipError::FileNotFound) => return Ok(None),
            Err(error) => return Err(bad(&error)),
        };
        let (unpacked, packed) = (entry.size(), entry.compressed_size());
        limits::expansion(&format!("entry `{name}`"), unpacked, packed)?;
        if unpacked > bytes_max {
            return Err(ImportError::too_large(format!("the size of entry `{name}` in bytes"), unpacked, bytes_max));
        }
        let mut bytes = Vec::new();
        // The declared size may lie; one byte more than it is enough to see that.
        entry.take(unpacked + 1).read_to_end(&mut bytes).map_err(|error| bad(&error))?;
        if bytes.len() as u64 != unpacked {
            return Err(bad(&"its length is not the declared one"));
        }
        Ok(Some(bytes))
    }
}

/// Packs entries into an archive, stored (weights hardly compress) and with no time of day, so that equal models give
/// equal bytes.
pub(crate) fn pack<'a>(entries: impl IntoIterator<Item = (&'a str, Vec<u8>)>) -> Result<Vec<u8>, ImportError> {
    let bad = |error: zip::result::ZipError| ImportError::format(format!("cannot build the archive: {error}"));
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::DEFAULT)
        .unix_permissions(0o644);
    for (name, bytes) in entries {
        writer.start_file(name, options.large_file(bytes.len() as u64 > u64::from(u32::MAX) / 2)).map_err(bad)?;
        writer.write_all(&bytes).map_err(|error| ImportError::format(format!("cannot build the archive: {error}")))?;
    }
    Ok(writer.finish().map_err(bad)?.into_inner())
}
