//! SDRAM controller (ARM PL340). Data sheet section 13. Its settings are kept and do not change the memory's timing.

const STATE_CONFIG: u32 = 0;
const STATE_READY: u32 = 1;
const STATE_PAUSED: u32 = 2;
const STATE_LOW_POWER: u32 = 3;

pub(crate) struct Pl340 {
    state: u32,
    /// Words 0x00 to 0x3FF.
    registers: Box<[u32; 256]>,
}

impl Pl340 {
    pub fn new() -> Self {
        let mut registers = Box::new([0; 256]);
        // Reset values that the boot ROM's self test expects.
        registers[3] = 0x0001_0020;
        let timings = [0xA60, 0x6, 0x1, 0x2, 0x7, 0xB, 0x1D, 0x212, 0x1D, 0x2, 0x3, 0x2, 0x1, 0xA, 0x14, 0x2D1, 0x7];
        registers[4..4 + timings.len()].copy_from_slice(&timings);
        registers[0x80] = 0xFF00;
        registers[0x81] = 0xFF00;
        Self { state: STATE_CONFIG, registers }
    }

    /// As the boot ROM leaves it: the SDRAM works.
    pub fn initialise(&mut self) {
        self.state = STATE_READY;
        self.registers[0xC1] = 1 << 24;
    }

    /// Whether the SDRAM answers.
    pub fn ready(&self) -> bool {
        self.state != STATE_CONFIG
    }

    pub fn read(&self, offset: u32) -> u32 {
        match offset {
            // Fixed: width 32 bits, DDR type, 1 chip, 4 banks.
            0x000 => 0xB4 | self.state,
            // The delay-locked loop locks as soon as it is on.
            0x300 => (self.registers[0xC1] >> 24 & 1) << 18,
            0x004 | 0x008 => 0,
            _ => self.registers.get(offset as usize / 4).copied().unwrap_or(0),
        }
    }

    pub fn write(&mut self, offset: u32, value: u32) {
        match offset {
            0x004 => {
                self.state = match (value & 7, self.state) {
                    (0, STATE_CONFIG | STATE_PAUSED) => STATE_READY,
                    (1, STATE_PAUSED) => STATE_LOW_POWER,
                    (2, STATE_LOW_POWER) | (3 | 7, STATE_READY) => STATE_PAUSED,
                    (4, STATE_PAUSED) => STATE_CONFIG,
                    (_, state) => state,
                }
            }
            0x000 | 0x300 => {}
            _ => {
                if let Some(register) = self.registers.get_mut(offset as usize / 4) {
                    *register = value;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_of_the_system_software() {
        let mut pl340 = Pl340::new();
        assert_eq!((pl340.read(0x000), pl340.read(0x00C), pl340.read(0x04C)), (0xB4, 0x0001_0020, 0x2D1));
        pl340.initialise();
        pl340.write(0x004, 3);
        pl340.write(0x004, 4);
        pl340.write(0x304, 0);
        assert!(!pl340.ready());
        assert_eq!(pl340.read(0x300), 0);
        pl340.write(0x010, 1014);
        pl340.write(0x004, 0);
        pl340.write(0x304, 0x0100_0000);
        assert!(pl340.ready());
        assert_eq!((pl340.read(0x300), pl340.read(0x010), pl340.read(0x000)), (1 << 18, 1014, 0xB5));
    }
}
