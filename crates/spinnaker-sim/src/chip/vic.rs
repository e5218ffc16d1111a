//! Vectored interrupt controller (ARM PL190), one per core. Data sheet section 5.

/// Interrupt sources, by number.
pub(crate) mod source {
    pub const WATCHDOG: u32 = 0;
    pub const TIMER1: u32 = 4;
    pub const TIMER2: u32 = 5;
    pub const CC_RECEIVED: u32 = 6;
    pub const CC_PARITY: u32 = 7;
    pub const CC_FRAMING: u32 = 8;
    pub const CC_TX_FULL: u32 = 9;
    pub const CC_TX_OVERRUN: u32 = 10;
    pub const CC_TX_EMPTY: u32 = 11;
    pub const DMA_DONE: u32 = 12;
    pub const DMA_ERROR: u32 = 13;
    pub const DMA_TIMEOUT: u32 = 14;
    pub const ROUTER_DIAGNOSTIC: u32 = 15;
    pub const ROUTER_DUMP: u32 = 16;
    pub const ROUTER_ERROR: u32 = 17;
    pub const SYSTEM_CONTROLLER: u32 = 18;
    pub const ETHERNET_TX: u32 = 19;
    pub const ETHERNET_RX: u32 = 20;
    pub const SLOW_CLOCK: u32 = 22;
    pub const CC_TX_NOT_FULL: u32 = 23;
    pub const CC_MC: u32 = 24;
    pub const CC_P2P: u32 = 25;
    pub const CC_NN: u32 = 26;
    pub const CC_FR: u32 = 27;
}

/// Levels: 16 vectors, then what has no vector of its own.
const LEVELS: usize = 17;
/// Nothing in service.
const IDLE: u8 = LEVELS as u8;

/// The registers, and which interrupts are in service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vic {
    /// Sources as the devices have them.
    lines: u32,
    soft: u32,
    select: u32,
    enable: u32,
    protection: u32,
    vectors: [u32; 16],
    controls: [u32; 16],
    default_vector: u32,
    /// Level in service.
    level: u8,
    /// Level that was in service before, for each level.
    before: [u8; LEVELS],
}

impl Vic {
    pub fn new() -> Self {
        Self {
            lines: 0,
            soft: 0,
            select: 0,
            enable: 0,
            protection: 0,
            vectors: [0; 16],
            controls: [0; 16],
            default_vector: 0,
            level: IDLE,
            before: [IDLE; LEVELS],
        }
    }

    /// The devices' sources.
    pub fn set_lines(&mut self, lines: u32) {
        self.lines = lines;
    }

    /// One of them.
    pub fn set_line(&mut self, source: u32, on: bool) {
        self.lines = self.lines & !(1 << source) | u32::from(on) << source;
    }

    /// Whether a source may interrupt.
    pub fn enabled(&self, source: u32) -> bool {
        self.enable >> source & 1 != 0
    }

    /// Whether only privileged modes reach its registers.
    pub fn is_protected(&self) -> bool {
        self.protection & 1 != 0
    }

    fn raw(&self) -> u32 {
        self.lines | self.soft
    }

    fn irqs(&self) -> u32 {
        self.raw() & self.enable & !self.select
    }

    /// Outputs: IRQ, FIQ.
    pub fn outputs(&self) -> (bool, bool) {
        let active = self.raw() & self.enable;
        (active & !self.select != 0 && self.pending_level() < self.level, active & self.select != 0)
    }

    /// The highest level with an interrupt pending; [`IDLE`] without one.
    fn pending_level(&self) -> u8 {
        let irqs = self.irqs();
        if irqs == 0 {
            return IDLE;
        }
        let wants = |control: u32| control & 0x20 != 0 && irqs >> (control & 0x1F) & 1 != 0;
        self.controls.iter().position(|&control| wants(control)).unwrap_or(16) as u8
    }

    /// Reads a register, without effect but for the vector address; `None` where there is none.
    pub fn read(&mut self, offset: u32) -> u32 {
        match offset {
            0x00 => self.irqs(),
            0x04 => self.raw() & self.enable & self.select,
            0x08 => self.raw(),
            0x0C => self.select,
            0x10 => self.enable,
            0x18 => self.soft,
            0x20 => self.protection,
            0x30 => self.begin(),
            0x34 => self.default_vector,
            0x100..=0x13F => self.vectors[(offset as usize - 0x100) / 4],
            0x200..=0x23F => self.controls[(offset as usize - 0x200) / 4],
            0xFE0 => 0x90,
            0xFE4 => 0x11,
            0xFE8 => 0x04,
            _ => 0,
        }
    }

    pub fn write(&mut self, offset: u32, value: u32) {
        match offset {
            0x0C => self.select = value,
            0x10 => self.enable |= value,
            0x14 => self.enable &= !value,
            0x18 => self.soft |= value,
            0x1C => self.soft &= !value,
            0x20 => self.protection = value & 1,
            0x30 => self.end(),
            0x34 => self.default_vector = value,
            0x100..=0x13F => self.vectors[(offset as usize - 0x100) / 4] = value,
            0x200..=0x23F => self.controls[(offset as usize - 0x200) / 4] = value & 0x3F,
            _ => {}
        }
    }

    /// The highest pending interrupt comes into service. Without one (it went away meanwhile) there is only the
    /// default address.
    fn begin(&mut self) -> u32 {
        let pending = self.pending_level();
        if pending < self.level {
            self.before[usize::from(pending)] = self.level;
            self.level = pending;
        } else if pending == IDLE || self.level == IDLE {
            return self.default_vector;
        }
        self.vectors.get(usize::from(self.level)).copied().unwrap_or(self.default_vector)
    }

    /// The interrupt in service ends; the one that it interrupted is in service again.
    fn end(&mut self) {
        if let Some(&before) = self.before.get(usize::from(self.level)) {
            self.level = before;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vic() -> Vic {
        let mut vic = Vic::new();
        for slot in 0..4 {
            vic.write(0x100 + 4 * slot, 0x1000 + slot);
            vic.write(0x200 + 4 * slot, 0x20 | (10 + slot));
        }
        vic.write(0x34, 0xDEF);
        vic.write(0x10, 0xFFFF_FFFF);
        vic
    }

    #[test]
    fn higher_slots_interrupt_lower_ones_and_levels_come_back() {
        let mut vic = vic();
        vic.set_lines(1 << 12);
        assert_eq!(vic.outputs(), (true, false));
        assert_eq!(vic.read(0x30), 0x1002);
        assert_eq!(vic.outputs(), (false, false));
        vic.set_lines(1 << 12 | 1 << 13);
        assert_eq!(vic.outputs(), (false, false));
        vic.set_lines(1 << 12 | 1 << 10);
        assert_eq!(vic.outputs(), (true, false));
        assert_eq!(vic.read(0x30), 0x1000);
        vic.set_lines(1 << 12 | 1 << 13 | 1 << 11);
        assert_eq!(vic.outputs(), (false, false));
        vic.write(0x30, 0);
        assert_eq!(vic.outputs(), (true, false));
        assert_eq!(vic.read(0x30), 0x1001);
        vic.write(0x30, 0);
        vic.write(0x30, 0);
        vic.set_lines(1 << 13);
        assert_eq!(vic.read(0x30), 0x1003);
    }

    #[test]
    fn unvectored_sources_come_last_and_share_the_default() {
        let mut vic = vic();
        vic.set_lines(1 << 6);
        assert_eq!(vic.outputs(), (true, false));
        vic.set_lines(1 << 6 | 1 << 13);
        assert_eq!(vic.read(0x30), 0x1003);
        vic.write(0x30, 0);
        vic.set_lines(1 << 6);
        assert_eq!(vic.read(0x30), 0xDEF);
        vic.set_lines(1 << 6 | 1 << 11);
        assert_eq!(vic.outputs(), (true, false));
        // Nothing pending and nothing in service: the default, and no level is raised.
        vic.write(0x30, 0);
        vic.set_lines(0);
        assert_eq!(vic.read(0x30), 0xDEF);
        vic.set_lines(1 << 13);
        assert_eq!(vic.read(0x30), 0x1003);
    }

    #[test]
    fn fiq_and_soft_interrupts() {
        let mut vic = vic();
        vic.write(0x0C, 1 << 24);
        vic.set_lines(1 << 24);
        assert_eq!(vic.outputs(), (false, true));
        assert_eq!((vic.read(0x00), vic.read(0x04), vic.read(0x08)), (0, 1 << 24, 1 << 24));
        vic.set_lines(0);
        vic.write(0x18, 1 << 28);
        assert_eq!((vic.outputs(), vic.read(0x18)), ((true, false), 1 << 28));
        vic.write(0x14, 1 << 28);
        assert_eq!(vic.outputs(), (false, false));
        vic.write(0x1C, 1 << 28);
        assert_eq!((vic.read(0x08), vic.read(0x10)), (0, !(1 << 28)));
    }
}
