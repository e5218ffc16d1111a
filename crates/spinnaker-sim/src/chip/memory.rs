//! Memories of a chip: sparse SDRAM, and system RAM.

const PAGE_BYTES: usize = 64 << 10;

/// Bytes of system RAM, and of the boot ROM.
pub(crate) const SYSTEM_RAM_BYTES: u32 = 32 << 10;

/// A memory of which only the pages that were written take room. What was never written is zero: the machine's content
/// at power on is undefined, and zero is as good as any and the same each time.
pub(crate) struct Memory {
    pages: Vec<Option<Box<[u8; PAGE_BYTES]>>>,
    bytes: u32,
}

impl Memory {
    /// `bytes` must be a power of two: addresses beyond wrap around.
    pub fn new(bytes: u32) -> Self {
        let pages = (bytes as usize).div_ceil(PAGE_BYTES);
        Self { pages: (0..pages).map(|_| None).collect(), bytes }
    }

    pub fn bytes(&self) -> u32 {
        self.bytes
    }

    fn place(&self, offset: u32) -> (usize, usize) {
        let offset = (offset & (self.bytes - 1)) as usize;
        (offset / PAGE_BYTES, offset % PAGE_BYTES)
    }

    /// A word; the low two bits of the offset are ignored.
    pub fn word(&self, offset: u32) -> u32 {
        let (page, at) = self.place(offset & !3);
        match &self.pages[page] {
            Some(page) => u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]),
            None => 0,
        }
    }

    pub fn set_word(&mut self, offset: u32, value: u32) {
        let (page, at) = self.place(offset & !3);
        if value == 0 && self.pages[page].is_none() {
            return;
        }
        self.page(page)[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn page(&mut self, page: usize) -> &mut [u8; PAGE_BYTES] {
        self.pages[page].get_or_insert_with(|| Box::new([0; PAGE_BYTES]))
    }

    /// Reads bytes; wraps around at the end.
    pub fn read(&self, mut offset: u32, mut out: &mut [u8]) {
        while !out.is_empty() {
            let (page, at) = self.place(offset);
            let (part, rest) = out.split_at_mut(out.len().min(PAGE_BYTES - at).min(self.bytes as usize));
            match &self.pages[page] {
                Some(page) => part.copy_from_slice(&page[at..at + part.len()]),
                None => part.fill(0),
            }
            offset = offset.wrapping_add(part.len() as u32);
            out = rest;
        }
    }

    /// Writes bytes; wraps around at the end.
    pub fn write(&mut self, mut offset: u32, mut data: &[u8]) {
        while !data.is_empty() {
            let (page, at) = self.place(offset);
            let (part, rest) = data.split_at(data.len().min(PAGE_BYTES - at).min(self.bytes as usize));
            if self.pages[page].is_some() || part.iter().any(|&byte| byte != 0) {
                self.page(page)[at..at + part.len()].copy_from_slice(part);
            }
            offset = offset.wrapping_add(part.len() as u32);
            data = rest;
        }
    }

    /// Bytes of host memory that the content takes.
    pub fn host_bytes(&self) -> usize {
        self.pages.iter().flatten().count() * PAGE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_over_pages_and_around_the_end() {
        let mut memory = Memory::new(1 << 20);
        assert_eq!((memory.word(0xFFFFC), memory.host_bytes()), (0, 0));
        memory.write(0xFFFE, &[1, 2, 3, 4]);
        assert_eq!((memory.word(0xFFFC), memory.word(0x10000)), (0x0201_0000, 0x0403));
        memory.set_word(0x10_0000 + 4, 7);
        assert_eq!(memory.word(4), 7);
        let mut out = [9; 6];
        memory.read(0xFFFFE, &mut out);
        assert_eq!(out, [0; 6]);
        memory.set_word(0x40000, 0);
        assert_eq!(memory.host_bytes(), 2 * PAGE_BYTES);
    }
}
