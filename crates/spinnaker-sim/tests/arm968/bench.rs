//! A core on a bus of plain memory, and assembly that is assembled here and now by hand.

use spinnaker_sim::arm968::{Access, Bus, BusError, Cpu, Size};

/// Where programs may use memory on the bus.
pub const BUS_START: u32 = 0x6000_0000;
/// Bytes of it.
pub const BUS_BYTES: u32 = 0x1_0000;

/// Plain memory on the bus; everything else is a bus error.
pub struct Memory {
    /// Its content.
    pub bytes: Vec<u8>,
    /// Cycles of a read.
    pub read_wait: u32,
    /// Cycles of a write.
    pub write_wait: u32,
    /// Every access: address, whether a write, time.
    pub log: Vec<(u32, bool, u64)>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { bytes: vec![0; BUS_BYTES as usize], read_wait: 0, write_wait: 0, log: Vec::new() }
    }
}

impl Memory {
    fn at(&mut self, address: u32, size: Size) -> Result<&mut [u8], BusError> {
        let offset = address.wrapping_sub(BUS_START) as usize;
        let end = offset.checked_add(size.bytes() as usize).ok_or(BusError)?;
        self.bytes.get_mut(offset..end).ok_or(BusError)
    }
}

impl Bus for Memory {
    fn read(&mut self, address: u32, size: Size, at: u64) -> Result<Access, BusError> {
        let bytes = self.at(address, size)?;
        let value = bytes.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte));
        self.log.push((address, false, at));
        Ok(Access { value, wait: self.read_wait })
    }

    fn write(&mut self, address: u32, size: Size, value: u32, at: u64) -> Result<u32, BusError> {
        let bytes = self.at(address, size)?;
        let count = bytes.len();
        bytes.copy_from_slice(&value.to_le_bytes()[..count]);
        self.log.push((address, true, at));
        Ok(self.write_wait)
    }

    fn fetch(&mut self, address: u32, at: u64) -> Result<Access, BusError> {
        self.read(address, Size::Word, at)
    }
}

/// Bytes of ARM instructions.
pub fn words(code: &[u32]) -> Vec<u8> {
    code.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Bytes of Thumb instructions.
pub fn halves(code: &[u16]) -> Vec<u8> {
    code.iter().flat_map(|half| half.to_le_bytes()).collect()
}

/// A core in System mode with code at an address, about to execute it.
pub fn cpu(address: u32, code: &[u8], thumb: bool) -> Cpu {
    let mut cpu = Cpu::new();
    cpu.set_control(0x1f7e);
    cpu.set_cpsr(0x1f | if thumb { 0x20 } else { 0 });
    cpu.write_tcm(address, code).expect("code fits");
    cpu.set_pc(address);
    cpu
}

/// Wait for interrupt: MCR p15, 0, r6, c7, c0, 4. Programs end with it.
pub const WAIT: u32 = 0xee07_6f90;
/// Cycles of [`WAIT`] by the table, without the sleep.
pub const WAIT_CYCLES: u64 = 3;
