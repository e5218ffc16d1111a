//! Ethernet PHY behind the MAC's bit-banged MDIO pins (SMSC LAN8700 class), PHY address 0.

/// What the interface is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Waits for ones, and the start 0, 1.
    Idle,
    /// Collects operation, PHY and register: bits so far.
    Header { bits: u32, value: u32 },
    /// Sends: rising edges so far, turnaround included.
    Read { edges: u32, value: u16 },
    /// Receives: bits so far, turnaround included.
    Write { register: u8, bits: u32, value: u16 },
}

pub(crate) struct Phy {
    registers: [u16; 32],
    state: State,
    /// Latest bits, newest in bit 0.
    history: u32,
    clock: bool,
    output: bool,
    link: bool,
}

impl Phy {
    /// A PHY with or without a partner on the cable.
    pub fn new(link: bool) -> Self {
        let mut phy = Self { registers: [0; 32], state: State::Idle, history: 0, clock: false, output: true, link };
        phy.reset();
        phy
    }

    fn reset(&mut self) {
        self.registers = [0; 32];
        self.registers[0] = 0x3100;
        // Abilities, negotiation done.
        self.registers[1] = 0x7809 | 0x0020;
        self.registers[2] = 0x0007;
        self.registers[3] = 0xC0C4;
        self.registers[4] = 0x01E1;
        self.registers[5] = 0x45E1;
    }

    /// New levels of the pins: data out of the MAC, its driver enabled, clock.
    pub fn pins(&mut self, data: bool, enabled: bool, clock: bool) {
        let rising = clock && !self.clock;
        self.clock = clock;
        if rising {
            // An undriven line is pulled up.
            self.rise(data || !enabled);
        }
    }

    fn rise(&mut self, bit: bool) {
        self.history = self.history << 1 | u32::from(bit);
        match self.state {
            State::Idle => {
                if self.history & 0xFFFF == 0xFFFD {
                    self.state = State::Header { bits: 0, value: 0 };
                }
            }
            State::Header { bits, value } => {
                let value = value << 1 | u32::from(bit);
                self.state = if bits == 11 { self.decode(value) } else { State::Header { bits: bits + 1, value } };
            }
            State::Read { edges, value } => {
                // Two of turnaround: the first data bit is there after the second.
                self.output = edges == 0 || value >> (16 - edges.min(16)) & 1 != 0;
                self.state = if edges == 17 { State::Idle } else { State::Read { edges: edges + 1, value } };
            }
            State::Write { register, bits, value } => {
                let value = value << 1 | u16::from(bit);
                if bits == 17 {
                    self.write(register, value);
                    self.state = State::Idle;
                } else {
                    self.state = State::Write { register, bits: bits + 1, value };
                }
            }
        }
    }

    fn decode(&self, header: u32) -> State {
        let (operation, phy, register) = (header >> 10, header >> 5 & 0x1F, (header & 0x1F) as u8);
        match (operation, phy) {
            (0b10, 0) => State::Read { edges: 0, value: self.read(register) },
            (0b01, 0) => State::Write { register, bits: 0, value: 0 },
            _ => State::Idle,
        }
    }

    fn read(&self, register: u8) -> u16 {
        let link = if register == 1 && self.link { 1 << 2 } else { 0 };
        self.registers[usize::from(register & 31)] | link
    }

    fn write(&mut self, register: u8, value: u16) {
        match register {
            0 if value & 0x8000 != 0 => self.reset(),
            // Restarting negotiation is done at once.
            0 => self.registers[0] = value & !0x0200,
            1..=3 | 5 => {}
            _ => self.registers[usize::from(register & 31)] = value,
        }
    }

    /// Level of the data pin as the MAC sees it.
    pub fn output(&self) -> bool {
        self.output
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Drives bits as the system software does.
    fn drive(phy: &mut Phy, bits: u64, count: u32) {
        for bit in (0..count).rev() {
            let data = bits >> bit & 1 != 0;
            phy.pins(data, true, false);
            phy.pins(data, true, true);
            phy.pins(data, true, false);
        }
    }

    fn read(phy: &mut Phy, register: u64) -> u16 {
        drive(phy, 0xFFFF_FFFF, 32);
        drive(phy, 0b0_1100_0000 << 5 | register, 14);
        let pulse = |phy: &mut Phy| {
            phy.pins(false, false, true);
            phy.pins(false, false, false);
        };
        pulse(phy);
        pulse(phy);
        (0..16).fold(0, |value, _| {
            let value = value << 1 | u16::from(phy.output());
            pulse(phy);
            value
        })
    }

    fn write(phy: &mut Phy, register: u64, value: u64) {
        drive(phy, 0xFFFF_FFFF, 32);
        drive(phy, 0b0_1010_0000 << 5 | register, 14);
        drive(phy, 0b10 << 16 | value, 18);
    }

    #[test]
    fn status_says_link() {
        let mut phy = Phy::new(true);
        assert_eq!(read(&mut phy, 1), 0x782D);
        assert_eq!(read(&mut phy, 2), 7);
        assert_eq!(read(&mut Phy::new(false), 1) & 4, 0);
    }

    #[test]
    fn control_reads_back_what_was_written() {
        let mut phy = Phy::new(true);
        write(&mut phy, 0, 0x4080);
        assert_eq!(read(&mut phy, 0), 0x4080);
        write(&mut phy, 4, 0x0101);
        write(&mut phy, 0, 0x1200);
        assert_eq!((read(&mut phy, 0), read(&mut phy, 4)), (0x1000, 0x0101));
        write(&mut phy, 0, 0x8000);
        assert_eq!(read(&mut phy, 4), 0x01E1);
    }

    #[test]
    fn another_address_is_not_answered() {
        let mut phy = Phy::new(true);
        drive(&mut phy, 0xFFFF_FFFF, 32);
        drive(&mut phy, 0b0_1010_0001 << 5, 14);
        drive(&mut phy, 0b10 << 16 | 0x8000, 18);
        assert_eq!(read(&mut phy, 0), 0x3100);
    }
}
