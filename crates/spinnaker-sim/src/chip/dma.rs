//! DMA controller, one per core: registers, the queue of two, CRC. Data sheet section 7.
//!
//! A transfer takes the fixed latency and its share of the SDRAM (as in the fidelity `fast`), and its data move when it
//! ends. Bursts are not single events: the statistics count them with the mean duration of the transfer's bursts.
//! In the same way a transfer times out when it ends, if its bursts took longer than the time-out register says. The flag
//! of the 32 kHz clock (GCTL bit 31) is in [`super::slow_clock`].

use super::vic::source;

/// STAT bits.
const DONE: u32 = 1 << 10;
const DONE_TWICE: u32 = 1 << 11;
const TIMEOUT: u32 = 1 << 12;
pub(crate) const CRC_ERROR: u32 = 1 << 13;
pub(crate) const TCM_ERROR: u32 = 1 << 14;
pub(crate) const AXI_ERROR: u32 = 1 << 15;
const USER_ABORT: u32 = 1 << 16;
const SOFT_RESET: u32 = 1 << 17;
const WRITE_BUFFER_ERROR: u32 = 1 << 20;
/// Errors that "restart" clears.
const ERRORS: u32 = CRC_ERROR | TCM_ERROR | AXI_ERROR | USER_ABORT;

/// CRC-32, reflected.
const CRC_POLYNOMIAL: u32 = 0xEDB8_8320;
/// The matrix of the polynomial 0x04C11DB7, as the boot ROM writes it.
const CRC_MATRIX: [u32; 32] = [
    0xFB80_8B20,
    0x7DC0_4590,
    0xBEE0_22C8,
    0x5F70_1164,
    0x2FB8_08B2,
    0x97DC_0459,
    0xB06E_890C,
    0x5837_4486,
    0xAC1B_A243,
    0xAD8D_5A01,
    0xAD46_2620,
    0x56A3_1310,
    0x2B51_8988,
    0x95A8_C4C4,
    0xCAD4_6262,
    0x656A_3131,
    0x4935_93B8,
    0x249A_C9DC,
    0x924D_64EE,
    0xC926_B277,
    0x9F13_D21B,
    0xB409_622D,
    0x2184_3A36,
    0x90C2_1D1B,
    0x33E1_85AD,
    0x6270_49F6,
    0x3138_24FB,
    0xE31C_995D,
    0x8A0E_C78E,
    0xC507_63C7,
    0x1903_3AC3,
    0xF701_1641,
];

/// A committed transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transfer {
    /// First byte on the system side.
    pub system: u32,
    /// First byte in the TCMs.
    pub tcm: u32,
    pub description: u32,
}

impl Transfer {
    /// Bytes of data (the CRC word not counted).
    pub fn bytes(self) -> u32 {
        self.description & 0x1_FFFC
    }

    /// From the TCM to the system side.
    pub fn to_system(self) -> bool {
        self.description >> 19 & 1 != 0
    }

    pub fn crc(self) -> bool {
        self.description >> 20 & 1 != 0
    }

    /// Bytes that one burst moves.
    pub fn burst_bytes(self) -> u32 {
        (4 << (self.description >> 24 & 1)) << (self.description >> 21 & 7).min(4)
    }
}

/// Writing a register that is not there, or the queue being full: a bus error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused;

pub(crate) struct Dma {
    core: u8,
    system: u32,
    tcm: u32,
    description: u32,
    status: u32,
    global: u32,
    crc_calculated: u32,
    crc_received: u32,
    timeout: u32,
    statistics_enabled: bool,
    statistics: [u16; 8],
    matrix: [u32; 32],
    active: Option<Transfer>,
    queued: Option<Transfer>,
    /// Cycle at which the active one began.
    since: u64,
    /// Transfers ended and bytes moved since power on.
    pub transfers: u64,
    pub bytes: u64,
}

impl Dma {
    /// The controller of a core (physical number).
    pub fn new(core: u8) -> Self {
        Self {
            core,
            system: 0,
            tcm: 0,
            description: 0,
            status: 0,
            global: 0,
            crc_calculated: 0,
            crc_received: 0,
            timeout: 0,
            statistics_enabled: false,
            statistics: [0; 8],
            matrix: [0; 32],
            active: None,
            queued: None,
            since: 0,
            transfers: 0,
            bytes: 0,
        }
    }

    /// Whether the bridge has its write buffer on, and so knows of stores that fail there.
    pub fn buffers_writes(&self) -> bool {
        self.global & 1 != 0
    }

    /// As after a soft reset of the core.
    pub fn reset(&mut self) {
        let (transfers, bytes) = (self.transfers, self.bytes);
        *self = Self { transfers, bytes, ..Self::new(self.core) };
    }

    pub fn read(&self, offset: u32) -> Result<u32, Refused> {
        Ok(match offset {
            0x04 => self.system,
            0x08 => self.tcm,
            0x0C => self.description,
            0x10 => 0,
            0x14 => self.status(),
            0x18 => self.global,
            0x1C => self.crc_calculated,
            0x20 => self.crc_received,
            0x24 => self.timeout,
            0x28 => u32::from(self.statistics_enabled),
            0x40..=0x5F => u32::from(self.statistics[(offset as usize - 0x40) / 4]),
            0x104 => self.active.map_or(0, |transfer| transfer.system),
            0x108 => self.active.map_or(0, |transfer| transfer.tcm),
            0x10C => self.active.map_or(0, |transfer| transfer.description),
            0x180..=0x1FF => self.matrix[(offset as usize - 0x180) / 4],
            _ => return Err(Refused),
        })
    }

    fn status(&self) -> u32 {
        let running = self.active.is_some() && !self.paused();
        u32::from(self.core) << 24
            | self.status
            | u32::from(self.queued.is_some()) << 2
            | u32::from(self.paused()) << 1
            | u32::from(running)
    }

    /// Stopped by an error until "restart".
    fn paused(&self) -> bool {
        self.status & ERRORS != 0
    }

    /// Writes a register. After it the chip asks [`Dma::start`] whether a transfer is to begin, and drops the running one
    /// if [`Dma::active`] is gone.
    pub fn write(&mut self, offset: u32, value: u32) -> Result<(), Refused> {
        match offset {
            0x04 | 0x08 | 0x0C if self.queued.is_some() => return Err(Refused),
            0x04 => self.system = value & !3,
            0x08 => self.tcm = value & !3,
            0x0C => {
                self.description = value & 0xFFF9_FFFC;
                self.queued = Some(Transfer { system: self.system, tcm: self.tcm, description: self.description });
            }
            0x10 => self.control(value),
            0x18 => self.global = value & 0x001F_FC01,
            0x24 => self.timeout = value & 0x3E0,
            0x28 => {
                self.statistics_enabled = value & 1 != 0;
                if value & 2 != 0 {
                    self.statistics = [0; 8];
                }
            }
            0x180..=0x1FF => self.matrix[(offset as usize - 0x180) / 4] = value,
            0x14 | 0x1C | 0x20 | 0x40..=0x5F | 0x104 | 0x108 | 0x10C => {}
            _ => return Err(Refused),
        }
        Ok(())
    }

    fn control(&mut self, value: u32) {
        if value & 1 != 0 {
            self.queued = None;
        }
        if value & 2 != 0 && self.active.take().is_some() {
            self.status |= USER_ABORT;
        }
        if value & 4 != 0 {
            self.status &= !(ERRORS | SOFT_RESET);
        }
        if value & 8 != 0 {
            self.status &= if self.status & DONE_TWICE != 0 { !DONE_TWICE } else { !DONE };
        }
        if value & 0x10 != 0 {
            self.status &= !TIMEOUT;
        }
        if value & 0x20 != 0 {
            self.status &= !WRITE_BUFFER_ERROR;
        }
    }

    /// As the boot ROM leaves it.
    pub fn write_crc_matrix(&mut self) {
        self.matrix = CRC_MATRIX;
    }

    /// A buffered write failed.
    pub fn write_buffer_error(&mut self) {
        self.status |= WRITE_BUFFER_ERROR;
    }

    pub fn active(&self) -> Option<Transfer> {
        self.active
    }

    /// Takes the queued transfer up if the engine is free; the cycle is now.
    pub fn start(&mut self, at: u64) -> Option<Transfer> {
        if self.active.is_some() || self.paused() {
            return None;
        }
        self.active = self.queued.take();
        self.since = at;
        self.active
    }

    /// The active transfer ends at this cycle; `error` is 0 or one of the error bits of STAT.
    pub fn finish(&mut self, error: u32, at: u64) {
        let Some(transfer) = self.active.take() else { return };
        if error != 0 {
            self.status |= error & ERRORS;
            return;
        }
        self.transfers += 1;
        self.bytes += u64::from(transfer.bytes());
        self.status |= if self.status & DONE != 0 { DONE_TWICE } else { DONE };
        let bursts = transfer.bytes().div_ceil(transfer.burst_bytes()).max(1);
        let mean = at.saturating_sub(self.since) / u64::from(bursts);
        if self.timeout != 0 && mean > u64::from(self.timeout) {
            self.status |= TIMEOUT;
        }
        if self.statistics_enabled {
            let bin = &mut self.statistics[(mean / 128).min(7) as usize];
            *bin = bin.saturating_add(bursts.min(0xFFFF) as u16);
        }
    }

    /// Sets the CRC registers: what was calculated over the data, and what came behind them.
    pub fn set_crc(&mut self, calculated: u32, received: u32) {
        (self.crc_calculated, self.crc_received) = (calculated, received);
    }

    /// Interrupt sources.
    pub fn lines(&self) -> u32 {
        let enabled = self.status & self.global;
        u32::from(enabled & (DONE | DONE_TWICE) != 0) << source::DMA_DONE
            | u32::from(enabled & TIMEOUT != 0) << source::DMA_TIMEOUT
            | u32::from(enabled & 0x001F_E000 != 0) << source::DMA_ERROR
    }
}

/// The usual CRC-32 (reflected, initial and final inversion), which is what the controllers compute with the matrix that
/// all software writes. Other matrices are kept but not used.
pub(crate) fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ if crc & 1 != 0 { CRC_POLYNOMIAL } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_transfers_can_be_committed_and_done_counts_to_two() {
        let mut dma = Dma::new(3);
        assert_eq!(dma.read(0x14), Ok(3 << 24));
        dma.write(0x18, 0x0C00).expect("there");
        for (system, description) in [(0x6000_0000, 0x0180_0040), (0x6000_1000, 0x0188_0080)] {
            dma.write(0x04, system).expect("room");
            dma.write(0x08, 0x0040_0000).expect("room");
            dma.write(0x0C, description).expect("room");
            dma.start(0);
        }
        assert_eq!(dma.read(0x14), Ok(3 << 24 | 0b101));
        assert_eq!(dma.write(0x0C, 0), Err(Refused));
        assert_eq!(dma.active().map(|t| (t.bytes(), t.to_system(), t.burst_bytes())), Some((0x40, false, 128)));
        dma.finish(0, 100);
        assert_eq!(dma.start(100).map(|t| (t.bytes(), t.to_system())), Some((0x80, true)));
        assert_eq!(dma.lines(), 1 << 12);
        dma.finish(0, 200);
        assert_eq!(dma.read(0x14), Ok(3 << 24 | DONE | DONE_TWICE));
        dma.write(0x10, 8).expect("there");
        assert_eq!((dma.read(0x14), dma.lines()), (Ok(3 << 24 | DONE), 1 << 12));
        dma.write(0x10, 8).expect("there");
        assert_eq!((dma.read(0x14), dma.lines()), (Ok(3 << 24), 0));
    }

    #[test]
    fn an_error_pauses_until_restart_and_the_queue_stays() {
        let mut dma = Dma::new(0);
        dma.write(0x18, 0x001F_FC00).expect("there");
        dma.write(0x0C, 0x0180_0040).expect("room");
        dma.start(0);
        dma.write(0x0C, 0x0180_0080).expect("room");
        dma.finish(AXI_ERROR, 10);
        assert_eq!((dma.read(0x14), dma.start(10), dma.lines()), (Ok(AXI_ERROR | 0b110), None, 1 << 13));
        dma.write(0x10, 4).expect("there");
        assert_eq!(dma.start(20).map(|t| t.bytes()), Some(0x80));
        // The abort that the spin1 library does.
        dma.write(0x10, 0x3F).expect("there");
        dma.write(0x10, 0x0D).expect("there");
        assert_eq!((dma.read(0x14), dma.active()), (Ok(0), None));
    }

    #[test]
    fn bursts_that_take_too_long_time_out() {
        let mut dma = Dma::new(0);
        dma.write(0x18, 0x1000).expect("there");
        // Bits 9:5 are kept: 96 cycles.
        dma.write(0x24, 0xFC7F).expect("there");
        assert_eq!(dma.read(0x24), Ok(0x60));
        let mut transfer = |cycles| {
            dma.write(0x0C, 0x0180_0100).expect("room");
            dma.start(0);
            dma.finish(0, cycles);
            (dma.read(0x14), dma.lines())
        };
        // Two bursts of 128 bytes.
        assert_eq!(transfer(192), (Ok(DONE), 0));
        assert_eq!(transfer(194), (Ok(DONE | DONE_TWICE | TIMEOUT), 1 << 14));
        dma.write(0x10, 0x10).expect("there");
        assert_eq!((dma.read(0x14), dma.lines()), (Ok(DONE | DONE_TWICE), 0));
        // Zero is for ever.
        dma.write(0x24, 0).expect("there");
        dma.write(0x0C, 0x0180_0100).expect("room");
        dma.start(0);
        dma.finish(0, 1_000_000);
        assert_eq!(dma.read(0x14).map(|status| status & TIMEOUT), Ok(0));
    }

    #[test]
    fn crc_of_the_check_string() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn registers_that_are_not_there() {
        let mut dma = Dma::new(0);
        assert_eq!((dma.read(0x00), dma.read(0x2C), dma.write(0x60, 1)), (Err(Refused), Err(Refused), Err(Refused)));
        dma.write(0x180, 5).expect("there");
        assert_eq!(dma.read(0x180), Ok(5));
    }
}
