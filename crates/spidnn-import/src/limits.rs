//! How much a file may ask for. Files are untrusted: every length in them is checked against these before memory is taken.

/// Largest file, and largest unpacked entry of an archive, in bytes.
pub const FILE_BYTES_MAX: u64 = 2 << 30;
/// Largest JSON text, in bytes.
pub const JSON_BYTES_MAX: u64 = 256 << 20;
/// Entries of an archive.
pub const ARCHIVE_ENTRIES_MAX: usize = 20_000;
/// An unpacked size up to this many bytes is taken whatever the compression.
pub const EXPANSION_FLOOR_BYTES: u64 = 64 << 20;
/// Beyond [`EXPANSION_FLOOR_BYTES`], unpacked bytes for each packed byte (real weights compress by 1.1 to 2).
pub const EXPANSION_MAX: u64 = 100;
/// Elements of one array, and of all parameters together (1 GiB of float32).
pub const ELEMENTS_MAX: u64 = 1 << 28;
/// Dimensions of an array.
pub const RANK_MAX: usize = 16;
/// Any one size in a layer's arguments (units, filters, pixels).
pub const SIZE_MAX: i64 = 1 << 24;
/// Layers of a model, those of nested models included.
pub const LAYERS_MAX: usize = 10_000;
/// Calls of layers in a model, after nested models are unfolded.
pub const NODES_MAX: usize = 20_000;
/// Models inside models.
pub const NESTING_MAX: usize = 16;

/// The number of elements of a shape, or what is wrong with the shape.
pub(crate) fn elements(what: &str, shape: &[u64]) -> Result<usize, crate::ImportError> {
    if shape.len() > RANK_MAX {
        return Err(crate::ImportError::too_large(
            format!("the number of dimensions of {what}"),
            shape.len() as u64,
            RANK_MAX as u64,
        ));
    }
    // A zero anywhere makes the product zero, so the others are bounded on their own too.
    let found = shape.iter().fold(1u64, |product, &size| product.saturating_mul(size));
    let largest = shape.iter().copied().max().unwrap_or(1).max(found);
    if largest > ELEMENTS_MAX {
        return Err(crate::ImportError::too_large(format!("the number of elements of {what}"), largest, ELEMENTS_MAX));
    }
    Ok(found as usize)
}

/// Refuses an unpacked size that the packed bytes make implausible.
pub(crate) fn expansion(what: &str, unpacked: u64, packed: u64) -> Result<(), crate::ImportError> {
    let limit = EXPANSION_FLOOR_BYTES.max(packed.saturating_mul(EXPANSION_MAX)).min(FILE_BYTES_MAX);
    if unpacked > limit {
        return Err(crate::ImportError::too_large(format!("the unpacked size of {what} in bytes"), unpacked, limit));
    }
    Ok(())
}
