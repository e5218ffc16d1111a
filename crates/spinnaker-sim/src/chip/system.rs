//! System controller: resets, arbitration, locks, flags, clocks, pins. Data sheet section 14.

use super::clock::ClockRegisters;
use super::serial_rom::SerialRom;

/// Cores of a chip.
pub(crate) const CORES: usize = 18;
const ALL_CORES: u32 = (1 << CORES) - 1;
/// Upper 12 bits of a write to a guarded register.
const GUARD: u32 = 0x5EC;
/// The chip ID register: device 591, version 1, 2010, 18 cores.
pub(crate) const CHIP_ID: u32 = 0x5911_1012;

/// What a write asks of the rest of the chip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Effects {
    /// Interrupt lines of these cores may have changed.
    pub irq_cores: u32,
    /// These cores go into or out of reset or stall: look at [`System::held`].
    pub cores: u32,
    /// These cores are reset by a pulse.
    pub pulsed: u32,
    /// PLLs or multiplexer changed.
    pub clocks: bool,
    /// Link enables changed.
    pub links: bool,
    /// Subsystems reset, bits as in register 20.
    pub subsystems: u32,
    /// The router's wait begins anew.
    pub router_wait: bool,
}

impl Effects {
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    pub fn join(&mut self, other: Effects) {
        self.irq_cores |= other.irq_cores;
        self.cores |= other.cores;
        self.pulsed |= other.pulsed;
        self.clocks |= other.clocks;
        self.links |= other.links;
        self.subsystems |= other.subsystems;
        self.router_wait |= other.router_wait;
    }
}

/// The whole-chip reset in [`Effects::subsystems`].
pub(crate) const RESET_CHIP: u32 = 1 << 17;
/// The clocks' reset in [`Effects::subsystems`].
const RESET_CLOCKS: u32 = 1 << 16;

pub(crate) struct System {
    pub cpu_disable: u32,
    pub cpu_irq: u32,
    pub cpu_ok: u32,
    soft_reset: u32,
    hard_reset: u32,
    subsystem_reset: u32,
    pub reset_code: u32,
    pub monitor: u32,
    arbitration: bool,
    pub misc: u32,
    pull: u32,
    pub latch: u32,
    direction: u32,
    pub clocks: ClockRegisters,
    pub flags: u32,
    temperatures: [u32; 3],
    locks: u32,
    pub link_disable: u32,
    pub serial_rom: Option<SerialRom>,
    /// Bit per core in wait-for-interrupt.
    pub sleeping: u32,
}

impl System {
    pub fn new(serial_rom: Option<SerialRom>) -> Self {
        Self {
            cpu_disable: 0,
            cpu_irq: 0,
            cpu_ok: 0,
            soft_reset: 0,
            hard_reset: 0,
            subsystem_reset: 0,
            reset_code: 0,
            monitor: 0x1F,
            arbitration: true,
            misc: 0,
            pull: u32::MAX,
            latch: 0,
            direction: u32::MAX,
            clocks: ClockRegisters { pll1: 0, pll2: 0, mux: 0 },
            flags: 0,
            temperatures: [0; 3],
            locks: 0,
            link_disable: 0,
            serial_rom,
            sleeping: 0,
        }
    }

    /// As after a reset of the chip by software or watchdog: all but the monitor ID, and after one by software the boot
    /// area.
    pub fn reset(&mut self, code: u32) {
        let serial_rom = self.serial_rom.take();
        let (monitor, boot_area) = (self.monitor, if code == 3 { self.misc & 1 } else { 0 });
        *self = Self { reset_code: code, monitor, misc: boot_area, ..Self::new(serial_rom) };
    }

    /// Cores that are held in reset or stalled.
    pub fn held(&self) -> u32 {
        self.soft_reset | self.hard_reset | self.cpu_disable
    }

    /// Cores held in reset.
    pub fn in_reset(&self) -> u32 {
        self.soft_reset | self.hard_reset
    }

    /// The boot area shows system RAM instead of the ROM.
    pub fn boot_area_is_ram(&self) -> bool {
        self.misc & 1 != 0
    }

    fn pins(&self) -> u32 {
        // Serial ROM and self-test straps; bit 29 is tied high (SDRAM in the package).
        let mut inputs = 1 << 29;
        if let Some(rom) = &self.serial_rom {
            inputs |= 1 << 6 | u32::from(rom.output()) << 2;
        }
        self.latch & !self.direction | inputs & self.direction
    }

    fn drive_pins(&mut self) {
        let pins = self.latch & !self.direction | self.direction & 1 << 5;
        if let Some(rom) = &mut self.serial_rom {
            rom.pins(pins >> 5 & 1 != 0, pins >> 4 & 1 != 0, pins >> 3 & 1 != 0);
        }
    }

    /// Whether reading it changes something.
    pub fn read_has_effect(offset: u32) -> bool {
        (0x80..0x200).contains(&offset)
    }

    /// Reads a register. Locks and arbiter words change by it.
    pub fn read(&mut self, offset: u32) -> u32 {
        match offset {
            0x00 => CHIP_ID,
            0x04 => self.cpu_disable,
            0x08 | 0x0C => self.cpu_irq,
            0x10 | 0x14 => self.cpu_ok,
            0x18 | 0x24 => self.soft_reset,
            0x1C | 0x28 => self.hard_reset,
            0x20 | 0x2C => self.subsystem_reset,
            0x30 => self.reset_code,
            0x34 => self.monitor,
            0x38 => self.misc,
            0x3C => self.pull,
            0x40 => self.latch,
            0x44 => self.direction,
            0x48 | 0x4C => self.pins(),
            0x50 => self.clocks.pll1,
            0x54 => self.clocks.pll2,
            0x58 | 0x5C => self.flags,
            0x60 => self.clocks.mux,
            0x64 => self.sleeping,
            0x68..=0x73 => self.temperature((offset as usize - 0x68) / 4),
            0x80..=0xFF => self.arbitrate((offset - 0x80) / 4),
            0x100..=0x17F => self.lock((offset - 0x100) / 4, true),
            0x180..=0x1FF => self.lock((offset - 0x180) / 4, false),
            0x200 => self.link_disable,
            _ => 0,
        }
    }

    /// A measurement is finished as soon as it is started. The readings are those of a warm chip in no real unit.
    fn temperature(&self, sensor: usize) -> u32 {
        let started = self.temperatures[sensor] >> 31 & 1;
        self.temperatures[sensor] | started << 24 | if started != 0 { 0x2000 } else { 0 }
    }

    /// The first core to ask while the arbitration bit is set becomes monitor.
    fn arbitrate(&mut self, core: u32) -> u32 {
        if !self.arbitration || core == self.monitor {
            return 0;
        }
        (self.monitor, self.arbitration) = (core, false);
        1 << 31
    }

    fn lock(&mut self, number: u32, set: bool) -> u32 {
        let old = self.locks >> number & 1;
        self.locks = self.locks & !(1 << number) | u32::from(set) << number;
        old << 31
    }

    /// Writes a register; says what the rest of the chip has to do.
    pub fn write(&mut self, offset: u32, value: u32) -> Effects {
        let mut effects = Effects::default();
        let guarded = matches!(offset, 0x04..=0x0C | 0x18..=0x2C | 0x34 | 0x200);
        if guarded && value >> 20 != GUARD {
            return effects;
        }
        let cores = value & ALL_CORES;
        match offset {
            0x04 => {
                effects.cores = self.cpu_disable ^ cores;
                self.cpu_disable = cores;
            }
            0x08 | 0x0C => {
                let new = if offset == 0x08 { self.cpu_irq | cores } else { self.cpu_irq & !cores };
                effects.irq_cores = self.cpu_irq ^ new;
                self.cpu_irq = new;
            }
            0x10 => self.cpu_ok |= value,
            0x14 => self.cpu_ok &= !value,
            0x18 => {
                effects.cores = self.soft_reset ^ cores;
                self.soft_reset = cores;
            }
            0x1C => {
                effects.cores = self.hard_reset ^ cores;
                self.hard_reset = cores;
            }
            0x20 => {
                effects.subsystems = value & 0x1_FFFF & !self.subsystem_reset;
                self.subsystem_reset = value & 0x1_FFFF;
            }
            0x24 | 0x28 => effects.pulsed = cores,
            0x2C => effects.subsystems = value & 0x3_FFFF,
            0x34 => self.set_monitor(value),
            0x38 => self.misc = value & 0x001F_801F,
            0x3C => self.pull = value,
            0x40 => self.latch = value,
            0x44 => self.direction = value,
            0x48 => self.latch |= value,
            0x4C => self.latch &= !value,
            0x50 | 0x54 | 0x60 => effects.clocks = self.set_clock(offset, value),
            0x58 => self.flags |= value,
            0x5C => self.flags &= !value,
            0x68..=0x73 => self.temperatures[(offset as usize - 0x68) / 4] = value & 0x8000_0000,
            0x200 => {
                self.link_disable = value & 0x1_3F3F;
                effects.links = true;
            }
            _ => {}
        }
        if (0x40..=0x4C).contains(&offset) {
            self.drive_pins();
        }
        if effects.subsystems & RESET_CLOCKS != 0 {
            self.clocks = ClockRegisters { pll1: 0, pll2: 0, mux: 0 };
            effects.clocks = true;
        }
        effects
    }

    fn set_monitor(&mut self, value: u32) {
        self.monitor = value & 0x1F;
        self.arbitration |= value >> 8 & 1 != 0;
    }

    fn set_clock(&mut self, offset: u32, value: u32) -> bool {
        let before = self.clocks;
        match offset {
            0x50 => self.clocks.pll1 = value & 0x0107_3F3F,
            0x54 => self.clocks.pll2 = value & 0x0107_3F3F,
            _ => self.clocks.mux = value & 0x80F7_BDEF,
        }
        self.clocks != before
    }

    /// What the GPIO pins are driven to by software.
    pub fn latch(&self) -> u32 {
        self.latch
    }

    /// Whether a write to a register sets or clears GPIO pins that are so already.
    pub fn leaves_pins(&self, offset: u32, value: u32) -> bool {
        match offset {
            0x48 => value & !self.latch == 0,
            0x4C => value & self.latch == 0,
            _ => false,
        }
    }

    /// Levels of the LEDs that the pins 0, 1, 6 and 7 drive (lit when low and an output).
    pub fn leds(&self) -> u32 {
        !self.latch & !self.direction & 0xC3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system() -> System {
        System::new(None)
    }

    #[test]
    fn guarded_registers_need_the_code() {
        let mut system = system();
        for offset in [0x04, 0x08, 0x18, 0x1C, 0x20, 0x24, 0x34, 0x200] {
            assert_eq!(system.write(offset, 0x3), Effects::default(), "{offset:#x}");
        }
        assert_eq!((system.held(), system.monitor, system.cpu_irq), (0, 0x1F, 0));
        assert_eq!(system.write(0x08, 0x5EC0_0005).irq_cores, 5);
        assert_eq!(system.write(0x0C, 0x5EC0_0001).irq_cores, 1);
        assert_eq!(system.read(0x08), 4);
        assert_eq!(system.write(0x18, 0x5EC0_0006).cores, 6);
        assert_eq!(system.write(0x18, 0x5EC0_0000).cores, 6);
        system.write(0x34, 0x5EC0_0003);
        assert_eq!(system.read(0x34), 3);
    }

    #[test]
    fn one_core_wins_the_arbitration() {
        let mut system = system();
        assert_eq!(system.read(0x80 + 4 * 5), 1 << 31);
        assert_eq!((system.read(0x80 + 4 * 6), system.read(0x34)), (0, 5));
        system.write(0x34, 0x5EC0_0100 | 5);
        // The monitor itself does not win again.
        assert_eq!((system.read(0x80 + 4 * 5), system.read(0x80 + 4 * 7)), (0, 1 << 31));
    }

    #[test]
    fn locks_are_taken_once() {
        let mut system = system();
        assert_eq!((system.read(0x10C), system.read(0x10C), system.read(0x108)), (0, 1 << 31, 0));
        assert_eq!((system.read(0x18C), system.read(0x18C), system.read(0x10C)), (1 << 31, 0, 0));
    }

    #[test]
    fn ok_bits_flags_and_pins_set_and_clear() {
        let mut system = system();
        for (set, clear) in [(0x10, 0x14), (0x58, 0x5C)] {
            system.write(set, 0x8000_0003);
            system.write(clear, 1);
            assert_eq!((system.read(set), system.read(clear)), (0x8000_0002, 0x8000_0002));
        }
        system.write(0x48, 0xC3);
        system.write(0x44, !0xC3);
        system.write(0x4C, 1);
        assert_eq!((system.read(0x48) & 0xC3, system.leds()), (0xC2, 1));
        assert_eq!(system.read(0x00), CHIP_ID);
    }

    #[test]
    fn resets_keep_what_the_data_sheet_says() {
        let mut system = system();
        system.read(0x80);
        system.write(0x38, 0x0F);
        system.reset(1);
        assert_eq!((system.monitor, system.misc, system.reset_code), (0, 0, 1));
        system.write(0x38, 0x0F);
        system.reset(3);
        assert_eq!((system.misc, system.read(0x30)), (1, 3));
        assert_eq!(system.write(0x2C, 0x5EC0_0000 | RESET_CHIP).subsystems, RESET_CHIP);
        assert!(system.write(0x60, 0x8094_88A5).clocks);
        assert!(!system.write(0x60, 0x8094_88A5).clocks);
        assert_eq!(system.read(0x60), 0x8094_88A5);
    }
}
