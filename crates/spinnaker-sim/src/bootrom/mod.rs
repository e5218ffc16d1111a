//! What the boot ROM does, natively: no ROM code is interpreted.
//!
//! After power on each chip tests itself and elects a monitor (here: the setup says which core, and all working cores pass
//! at once when the time of the self tests is over). The monitor then waits for an image, from Ethernet or from a
//! neighbour; the first valid start message decides which. When all blocks are there and the control message comes, the
//! image is copied to ITCM and entered in the state that [`Chip::hand_over`] makes.
//!
//! Source of all behaviour: the ROM's published source, version 2.1, as the reference pages describe it.
//!
//! Approximated: times (named in [`CycleTiming`](crate::cycle::CycleTiming)); which errors of hardware a self test finds.
//! Not modelled: reading an image out of the serial ROM, restart from ITCM after a watchdog interrupt, the watchdog
//! running out while the ROM waits (it reloads it), and ROM content as data: it reads as zero.

mod neighbour;
mod udp;

use crate::chip::{Activity, BoardAddress, CORES, Chip, RomEvent, SYSTEM_RAM_BYTES, TCMS_ON, ram_words};
pub use udp::BOOT_PORT;
use udp::Host;
pub(crate) use udp::internet_sum;

/// Where in DTCM blocks are collected, and how many of 256 words fit.
const COLLECT: u32 = 0x0040_8000;
const BLOCKS_MAX: usize = 32;

/// Offsets in system RAM.
const MONITOR_HISTORY: u32 = 0x7F7C;
const FAILURES: u32 = 0x7F80;
const SDRAM_FOUND: u32 = 0x7FC8;
const MAILBOX: u32 = 0x7FD0;
const SERIAL_WORDS: u32 = 0x7FE0;

/// What a core that does not work writes as failure: its ITCM.
const FAILURE_ITCM: u32 = 4;

/// Where the image comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Ethernet,
    Neighbour,
}

/// The image so far.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Image {
    source: Source,
    /// Blocks it has.
    blocks: usize,
    /// Which are there.
    good: [bool; 256],
    /// Words of the last block received.
    words: u32,
}

impl Image {
    fn new(source: Source, blocks: usize) -> Self {
        Self { source, blocks, good: [false; 256], words: 0 }
    }

    fn complete(&self) -> bool {
        self.good[..self.blocks].iter().all(|&good| good)
    }
}

/// State of a chip's boot ROM.
pub(crate) struct Rom {
    pub monitor: u8,
    pub board: Option<BoardAddress>,
    hardware_version: u8,
    /// The monitor is in the ROM.
    active: bool,
    /// Self tests are over.
    ready: bool,
    image: Option<Image>,
    block: Option<neighbour::Block>,
    host: Option<Host>,
    identification: u16,
    packet_pending: bool,
    frame_pending: bool,
    busy_until_ps: u64,
    /// When the events of its own are due: others are left over from before a reset.
    ready_ps: u64,
    hello_ps: u64,
    led_ps: u64,
}

impl Rom {
    pub fn new(monitor: u8, board: Option<BoardAddress>, hardware_version: u8) -> Self {
        Self {
            monitor,
            board,
            hardware_version,
            active: false,
            ready: false,
            image: None,
            block: None,
            host: None,
            identification: 0,
            packet_pending: false,
            frame_pending: false,
            busy_until_ps: 0,
            ready_ps: 0,
            hello_ps: 0,
            led_ps: 0,
        }
    }

    /// Whether it waits for an image.
    pub fn waiting(&self) -> bool {
        self.active && self.ready
    }
}

impl Chip {
    /// All cores begin in the ROM.
    pub(crate) fn enter_rom(&mut self, now_ps: u64) {
        let (monitor, board, version) = (self.rom.monitor, self.rom.board, self.rom.hardware_version);
        let ready_ps = now_ps + self.noc.times.cycle.rom_start_ns * 1000;
        self.rom = Rom { active: true, ready_ps, ..Rom::new(monitor, board, version) };
        self.noc.events.push(ready_ps, crate::chip::Event::Rom(RomEvent::Ready));
    }

    /// Something that the ROM has to do.
    pub(crate) fn rom_due(&mut self, event: RomEvent, now_ps: u64) {
        match event {
            RomEvent::Mailbox(core) => self.rom_mailbox(usize::from(core), now_ps),
            _ if !self.rom.active => {}
            RomEvent::Ready if self.rom.ready_ps == now_ps => self.rom_ready(now_ps),
            RomEvent::Packet if self.rom.packet_pending => self.rom_packet(now_ps),
            RomEvent::Frame if self.rom.frame_pending => self.rom_frame(now_ps),
            RomEvent::Hello if self.rom.hello_ps == now_ps => {
                self.say_hello(now_ps);
                self.rom_again(RomEvent::Hello, now_ps);
            }
            RomEvent::Led if self.rom.led_ps == now_ps => {
                self.noc.system.latch ^= 1;
                self.rom_again(RomEvent::Led, now_ps);
            }
            _ => {}
        }
    }

    fn rom_again(&mut self, event: RomEvent, now_ps: u64) {
        let times = &self.noc.times.cycle;
        let (period_ns, due_ps) = if event == RomEvent::Led {
            (times.rom_led_ns, &mut self.rom.led_ps)
        } else {
            (times.rom_hello_ns, &mut self.rom.hello_ps)
        };
        *due_ps = now_ps + period_ns.max(1) * 1000;
        self.noc.events.push(*due_ps, crate::chip::Event::Rom(event));
    }

    /// The self tests are over: devices as the ROM leaves them.
    fn rom_ready(&mut self, now_ps: u64) {
        self.rom.ready = true;
        let monitor = u32::from(self.rom.monitor);
        let working = |chip: &Chip, core: usize| chip.cores[core].activity != Activity::Broken;
        let good = (0..CORES).filter(|&core| working(self, core)).fold(0, |bits, core| bits | 1 << core);
        self.rom_system_ram(good);
        let phy = self.rom.board.is_some();
        let system = &mut self.noc.system;
        system.write(0x50, 0x0006_0110);
        system.write(0x54, 0x0007_011A);
        system.write(0x60, 0x8052_8821);
        // The monitor takes the arbitration bit.
        system.monitor = 0x1F;
        system.read(0x80 + 4 * monitor);
        system.cpu_ok = good | u32::from(phy) << 31;
        system.misc |= 0b1110;
        let serial_pins = if phy { 0x38 } else { 0 };
        system.write(0x40, 0xC3 | if phy { 0x20 } else { 0 });
        system.write(0x44, !(0xC3 | serial_pins));
        system.write(0x4C, 1);
        self.noc.pl340.initialise();
        self.noc.router.initialise(monitor);
        if let Some(board) = self.rom.board {
            self.noc.ethernet.initialise(board.mac);
            self.rom_again(RomEvent::Hello, now_ps);
        }
        self.clocks_changed(now_ps);
        for core in 0..CORES {
            self.rom_core_devices(core, now_ps);
        }
        self.rom_again(RomEvent::Led, now_ps);
        self.log(now_ps, format!("boot ROM: core {monitor} is monitor, cores that work {good:#07x}"));
        self.packet_for_rom(usize::from(self.rom.monitor), now_ps);
        self.frame_for_rom(now_ps);
    }

    fn rom_system_ram(&mut self, good: u32) {
        let monitor = u32::from(self.rom.monitor);
        let serial = self.rom.board.as_ref().map_or([0; 8], |board| ram_words(board, self.rom.hardware_version));
        let ram = &mut self.noc.system_ram;
        ram.set_word(MONITOR_HISTORY, 0x5EC0_0000 | 1 << monitor);
        for core in 0..CORES as u32 {
            let failure = if good >> core & 1 != 0 { 0 } else { FAILURE_ITCM };
            ram.set_word(FAILURES + 4 * core, failure);
        }
        ram.set_word(SDRAM_FOUND, self.noc.sdram.bytes());
        ram.set_word(SDRAM_FOUND + 4, 0);
        for (word, value) in serial.into_iter().enumerate() {
            ram.set_word(SERIAL_WORDS + 4 * word as u32, value);
        }
    }

    fn rom_core_devices(&mut self, core: usize, now_ps: u64) {
        let monitor = core == usize::from(self.rom.monitor);
        let unit = &mut self.cores[core];
        let at = unit.clock.cycles(now_ps);
        let local = &mut unit.local;
        local.dma.write_crc_matrix();
        local.timers[0].write(0x08, 0x62, at);
        local.timers[0].write(0x00, 160_000, at);
        local.vic.write(0x200, 0x20 | 18);
        local.vic.write(0x10, 1 << 18);
        if monitor {
            for (slot, source) in [(1, 4), (2, 6), (3, 20)] {
                local.vic.write(0x200 + 4 * slot, 0x20 | source);
                local.vic.write(0x10, 1 << source);
            }
        }
    }

    /// Copies the image to ITCM and enters it. `words` are those of all its blocks.
    pub(crate) fn hand_over(&mut self, words: u32, entry: u32, now_ps: u64) {
        self.rom.active = false;
        let monitor = usize::from(self.rom.monitor);
        let bytes = (words as usize * 4).min(0x8000);
        let mut image = vec![0; bytes];
        let unit = &mut self.cores[monitor];
        // Both memories hold 32 KiB from there on: this cannot fail.
        let copied = unit.cpu.read_tcm(COLLECT, &mut image).and_then(|()| unit.cpu.write_tcm(0, &image));
        debug_assert!(copied.is_ok());
        unit.cpu.reset();
        unit.cpu.set_control(TCMS_ON);
        unit.cpu.set_register(1, 0);
        unit.cpu.set_register(2, bytes as u32);
        unit.cpu.set_register(3, entry);
        unit.cpu.set_register(13, COLLECT);
        unit.cpu.set_pc(entry);
        unit.activity = Activity::Running;
        let at = unit.clock.cycles(now_ps);
        unit.local.timers[0].write(0x08, 0xE2, at);
        self.schedule_timers(monitor);
        self.start_rom_watchdog(now_ps);
        self.set_going(monitor, now_ps);
        self.update_lines(monitor, now_ps);
        self.log(now_ps, format!("boot ROM: image of {bytes} bytes starts on core {monitor}"));
    }

    /// The watchdog has just been reloaded: 1.25 s a stage.
    fn start_rom_watchdog(&mut self, now_ps: u64) {
        let watchdog = &mut self.noc.watchdog;
        watchdog.write(0xC00, 0x1ACC_E551, now_ps);
        watchdog.write(0x008, 3, now_ps);
        watchdog.write(0x000, 100_000_000, now_ps);
        watchdog.write(0xC00, 0, now_ps);
        self.schedule_watchdog();
    }

    /// An application core's interrupt from the system controller: copy, or copy and go.
    fn rom_mailbox(&mut self, core: usize, now_ps: u64) {
        if self.cores[core].activity != Activity::Rom {
            return;
        }
        let word = |n: u32| self.noc.system_ram.word(MAILBOX + 4 * n);
        let [command, source, destination, entry] = [word(0), word(1), word(2), word(3)];
        self.noc.system.cpu_irq &= !(1 << core);
        self.update_lines(core, now_ps);
        let operation = command >> 16 & 0xF;
        if command >> 20 != 0x5EC || !matches!(operation, 1 | 2) {
            return;
        }
        let length = (command as usize & 0xFFFF).min(SYSTEM_RAM_BYTES as usize * 2);
        let mut data = vec![0; length];
        self.noc.peek_bytes(source, &mut data);
        let unit = &mut self.cores[core];
        // A destination outside of the memories: the real core would take an abort and sleep for ever.
        if unit.cpu.write_tcm(destination, &data).is_err() {
            return;
        }
        if operation == 2 {
            self.start(core, entry, now_ps);
        }
    }
}
