//! System variables: 256 bytes at the top of each chip's system RAM.

use core::mem::offset_of;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bytes::prefix;
use crate::{ChipAddress, Result};

/// Where they lie (unbuffered image of system RAM).
pub const ADDRESS: u32 = 0xF500_7F00;
/// Bytes of all of them.
pub const BYTES: usize = 256;
/// Bytes that the boot image carries.
pub const BOOT_BYTES: usize = 128;
/// Where the APLX staging area lies on chips with 128 MiB (`sdram_sys`).
pub const SDRAM_SYS_ADDRESS: u32 = 0x6780_0000;
/// Bytes of the staging area.
pub const SDRAM_SYS_BYTES: usize = 256 * 1024;

/// Bytes 00..7F: what the boot image carries, as the host wrote it or as the monitor has made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BootVariables {
    /// This chip ([`ChipAddress`]).
    pub p2p_addr: U16,
    /// Size of the machine, `w << 8 | h`.
    pub p2p_dims: U16,
    /// Chip that gets text of cores.
    pub dbg_addr: U16,
    /// 1 when P2P works.
    pub p2p_up: u8,
    /// Last nearest-neighbour packet id.
    pub last_id: u8,
    /// Ethernet chip of this board.
    pub eth_addr: U16,
    /// Hardware version.
    pub hw_ver: u8,
    /// 1 when Ethernet has link.
    pub eth_up: u8,
    /// Repeats of route broadcasts.
    pub p2pb_repeats: u8,
    /// log2 of the P2P window.
    pub p2p_sql: u8,
    /// High nibble: divider of the system clock, low nibble: of the router clock.
    pub clk_div: u8,
    /// Time-phase scale, 0 for off.
    pub tp_scale: u8,
    /// Milliseconds since boot.
    pub clock_ms: U64,
    /// Millisecond in the second.
    pub time_ms: U16,
    /// Period of time-phase broadcasts, 10 ms.
    pub ltpc_period: U16,
    /// Unix seconds.
    pub unix_time_s: U32,
    /// Time-phase timer.
    pub tp_timer: U32,
    /// Core clock.
    pub cpu_clk_mhz: U16,
    /// SDRAM clock.
    pub mem_clk_mhz: U16,
    /// Forward mask of nearest-neighbour packets.
    pub forward: u8,
    /// Repeat and delay of nearest-neighbour packets.
    pub retry: u8,
    /// Time-out of accesses to neighbours.
    pub peek_time_us: u8,
    /// 1: LED shows load; above: half period of blinking, 10 ms.
    pub led_period: u8,
    /// Quiet time before the next phase of network set-up, 10 ms.
    pub netinit_bc_wait: u8,
    /// Phase of network set-up, see [`NETINIT_DONE`].
    pub netinit_phase: u8,
    /// Root chip.
    pub p2p_root: U16,
    /// LEDs: nibble 0 their number, then GPIO bits.
    pub led0: U32,
    /// More LEDs.
    pub led1: U32,
    /// Clock ticks per microsecond against the root chip: signed, 17 fraction bits.
    pub clock_drift: U32,
    /// Seed.
    pub random: U32,
    /// 1 on the chip that the host booted.
    pub root_chip: u8,
    /// Shared message buffers.
    pub num_buf: u8,
    /// Pause between boot packets; 0: do not flood on.
    pub boot_delay_us: u8,
    /// Missed pings before a core is given up; 0 for off.
    pub soft_wdog: u8,
    /// Wait of a monitor before it acts on SYNC0 and SYNC1.
    pub sync_alignment_us: U32,
    /// Words of system RAM for users; then the heap's address.
    pub sysram_heap: U32,
    /// Words of SDRAM for users; then the heap's address.
    pub sdram_heap: U32,
    /// Bytes of text in a text block.
    pub iobuf_size: U32,
    /// Bytes of system SDRAM; then the start of cores' system buffers.
    pub sdram_bufs: U32,
    /// Words of system buffer of a core.
    pub sysbuf_size: U32,
    /// Time of boot, Unix seconds.
    pub boot_sig: U32,
    /// Base of memory writes by nearest-neighbour packets.
    pub mem_ptr: U32,
    /// Lock.
    pub lock: u8,
    /// Working links.
    pub link_en: u8,
    /// Last id of board information.
    pub last_biff_id: u8,
    /// Board test flags.
    pub bt_flags: u8,
    /// First free shared message buffer.
    pub shm_free: U32,
    /// Shared message buffers in use.
    pub shm_count: U16,
    /// The most that were.
    pub shm_max: U16,
    /// Scratch.
    pub utmp: [U32; 4],
}

/// `netinit_phase` of a monitor that is up.
pub const NETINIT_DONE: u8 = 0xFF;

impl BootVariables {
    /// What the official host writes into the boot image, before the board's own values: see [`Board`].
    pub const fn host_defaults() -> Self {
        Self {
            p2p_addr: U16::ZERO,
            p2p_dims: U16::ZERO,
            dbg_addr: U16::ZERO,
            p2p_up: 0,
            last_id: 0,
            eth_addr: U16::ZERO,
            hw_ver: 0,
            eth_up: 0,
            p2pb_repeats: 4,
            p2p_sql: 4,
            clk_div: 0x33,
            tp_scale: 0,
            clock_ms: U64::ZERO,
            time_ms: U16::ZERO,
            ltpc_period: U16::ZERO,
            unix_time_s: U32::ZERO,
            tp_timer: U32::ZERO,
            cpu_clk_mhz: U16::new(200),
            mem_clk_mhz: U16::new(130),
            forward: 0x3F,
            retry: 0,
            peek_time_us: 200,
            led_period: 1,
            netinit_bc_wait: 50,
            netinit_phase: 0,
            p2p_root: U16::ZERO,
            led0: U32::ZERO,
            led1: U32::ZERO,
            clock_drift: U32::ZERO,
            random: U32::ZERO,
            root_chip: 1,
            num_buf: 7,
            boot_delay_us: 20,
            soft_wdog: 0,
            sync_alignment_us: U32::ZERO,
            sysram_heap: U32::new(1024),
            sdram_heap: U32::ZERO,
            iobuf_size: U32::new(16384),
            sdram_bufs: U32::new(8 << 20),
            sysbuf_size: U32::new(32768),
            boot_sig: U32::ZERO,
            mem_ptr: U32::ZERO,
            lock: 0,
            link_en: 0x3F,
            last_biff_id: 0,
            bt_flags: 0,
            shm_free: U32::ZERO,
            shm_count: U16::ZERO,
            shm_max: U16::ZERO,
            utmp: [U32::ZERO; 4],
        }
    }

    /// What the official host writes for a board, booted at a Unix time.
    pub const fn for_board(board: Board, unix_time_s: u32) -> Self {
        Self {
            hw_ver: board.hw_ver(),
            led0: U32::new(board.led0()),
            unix_time_s: U32::new(unix_time_s),
            boot_sig: U32::new(unix_time_s),
            ..Self::host_defaults()
        }
    }
}

/// Kinds of boards, and what the boot image must say of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Board {
    /// One chip.
    Spin1,
    /// Four test chips.
    Spin2,
    /// Four chips.
    Spin3,
    /// 48 chips, first series.
    Spin4,
    /// 48 chips.
    Spin5,
}

impl Board {
    /// The hardware version.
    pub const fn hw_ver(self) -> u8 {
        match self {
            Self::Spin1 | Self::Spin2 => 2,
            Self::Spin3 => 3,
            Self::Spin4 => 4,
            Self::Spin5 => 5,
        }
    }

    /// The LED word.
    pub const fn led0(self) -> u32 {
        match self {
            Self::Spin1 => 0x0007_6104,
            Self::Spin2 => 0x0000_6103,
            Self::Spin3 => 0x0000_0502,
            Self::Spin4 | Self::Spin5 => 1,
        }
    }
}

/// All 256 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SystemVariables {
    /// Bytes 00..7F.
    pub boot: BootVariables,
    /// Results of the boot ROM's tests: 0 for a good core.
    pub status_map: [u8; 20],
    /// Virtual core of each physical one, 255 for none.
    pub p2v_map: [u8; 20],
    /// Physical core of each virtual one, 255 for none.
    pub v2p_map: [u8; 20],
    /// Working cores with the monitor.
    pub num_cpus: u8,
    /// Cores that the ROM found.
    pub rom_cpus: u8,
    /// Position on its board ([`ChipAddress`]).
    pub board_addr: U16,
    /// Start of users' SDRAM.
    pub sdram_base: U32,
    /// Start of users' system RAM.
    pub sysram_base: U32,
    /// System SDRAM: the APLX staging area.
    pub sdram_sys: U32,
    /// VCPU blocks.
    pub vcpu_base: U32,
    /// Heap in system SDRAM.
    pub sys_heap: U32,
    /// Copy of the multicast table.
    pub rtr_copy: U32,
    /// Hop table.
    pub hop_table: U32,
    /// Tagged allocations.
    pub alloc_tag: U32,
    /// First free block of routing entries.
    pub rtr_free: U16,
    /// Chips seen.
    pub p2p_active: U16,
    /// Table of applications.
    pub app_data: U32,
    /// Shared message buffers.
    pub shm_buf: U32,
    /// Bit n: virtual core n has a message for the monitor.
    pub mbox_flags: U32,
    /// IP address of this chip, 0 for none.
    pub ip_addr: [u8; 4],
    /// Fixed route with virtual cores.
    pub fr_copy: U32,
    /// Address of board information, or 0.
    pub board_info: U32,
    /// Version: major in bits 23:16, minor 15:8, patch 7:0.
    pub sw_ver: U32,
}

const _: () = {
    assert!(size_of::<BootVariables>() == BOOT_BYTES);
    assert!(size_of::<SystemVariables>() == BYTES);
    assert!(offset_of!(BootVariables, hw_ver) == 0x0A);
    assert!(offset_of!(BootVariables, clock_ms) == 0x10);
    assert!(offset_of!(BootVariables, unix_time_s) == 0x1C);
    assert!(offset_of!(BootVariables, forward) == 0x28);
    assert!(offset_of!(BootVariables, netinit_phase) == 0x2D);
    assert!(offset_of!(BootVariables, led0) == 0x30);
    assert!(offset_of!(BootVariables, root_chip) == 0x40);
    assert!(offset_of!(BootVariables, sysram_heap) == 0x48);
    assert!(offset_of!(BootVariables, boot_sig) == 0x5C);
    assert!(offset_of!(BootVariables, link_en) == 0x65);
    assert!(offset_of!(BootVariables, shm_free) == 0x68);
    assert!(offset_of!(BootVariables, utmp) == 0x70);
    assert!(offset_of!(SystemVariables, p2v_map) == 0x94);
    assert!(offset_of!(SystemVariables, v2p_map) == 0xA8);
    assert!(offset_of!(SystemVariables, num_cpus) == 0xBC);
    assert!(offset_of!(SystemVariables, sdram_base) == 0xC0);
    assert!(offset_of!(SystemVariables, rtr_copy) == 0xD4);
    assert!(offset_of!(SystemVariables, rtr_free) == 0xE0);
    assert!(offset_of!(SystemVariables, ip_addr) == 0xF0);
    assert!(offset_of!(SystemVariables, sw_ver) == 0xFC);
};

impl SystemVariables {
    /// Reads them.
    ///
    /// # Errors
    /// [`crate::WireError::Truncated`].
    pub fn read(bytes: &[u8]) -> Result<&Self> {
        Ok(prefix("system variables", bytes)?.0)
    }

    /// This chip.
    pub fn chip(&self) -> ChipAddress {
        ChipAddress(self.boot.p2p_addr.get())
    }

    /// Size of the machine in chips: width, height.
    pub fn dimensions(&self) -> (u8, u8) {
        let dims = self.boot.p2p_dims.get();
        ((dims >> 8) as u8, dims as u8)
    }

    /// The monitor's version: major, minor, patch.
    pub fn version(&self) -> (u8, u8, u8) {
        let version = self.sw_ver.get();
        ((version >> 16) as u8, (version >> 8) as u8, version as u8)
    }
}

impl core::fmt::Display for SystemVariables {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let ((w, h), (major, minor, patch)) = (self.dimensions(), self.version());
        write!(
            f,
            "chip {} of {w}x{h}, {} cores, links {:#04x}, phase {:#x}, version {major}.{minor}.{patch}",
            self.chip(),
            self.num_cpus,
            self.boot.link_en,
            self.boot.netinit_phase
        )
    }
}

#[cfg(test)]
mod tests;
