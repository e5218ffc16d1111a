//! What lies where in data memory below the statics (`link.x`).

/// Bitmap of the words of a window that have come: two words for each block.
pub const WINDOW_BITS: u32 = 0x0040_0000;
/// Words that came by control packets.
pub const CONTROL: u32 = 0x0040_1000;
/// Blocks that come to the gate as packets; before them two words of the handler's. A hand has its own data on their way there.
pub const RING: u32 = 0x0040_2000;
/// Blocks in the ring.
pub const RING_BLOCKS: u32 = 64;
/// Blocks that the gate reads from its own chip.
pub const OWN: u32 = 0x0040_6000;
/// Bytes of a block.
pub const BLOCK_BYTES: u32 = 256;
/// Words of a block.
pub const BLOCK_WORDS: u32 = 64;
/// SDRAM, as cores see it.
const SDRAM: u32 = 0x6000_0000;
const SDRAM_END: u32 = 0x7000_0000;

/// Whether a piece of memory lies in SDRAM.
pub fn is_sdram(address: u32, words: u32) -> bool {
    let bytes = 4 * u64::from(words);
    address & 3 == 0 && address >= SDRAM && u64::from(address) + bytes <= u64::from(SDRAM_END)
}

/// Copies words.
pub fn copy(from: u32, to: u32, words: u32) {
    // SAFETY: both are memories that nothing in this program refers to otherwise; the callers check SDRAM's bounds.
    unsafe { core::ptr::copy_nonoverlapping(from as *const u32, to as *mut u32, words as usize) }
}
