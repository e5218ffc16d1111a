//! Command and return codes.

use crate::bytes::raw_enum;

raw_enum! {
    /// What a request asks for (SCP, section "Commands"). A BMP gives some numbers another meaning: see [`crate::bmp`].
    pub enum CommandCode(u16) {
        /// Who answers there.
        Version = 0 "VER",
        /// Of old kernels only.
        Run = 1 "RUN",
        /// Read memory.
        Read = 2 "READ",
        /// Write memory.
        Write = 3 "WRITE",
        /// Of old kernels only.
        Aplx = 4 "APLX",
        /// Fill memory with a word.
        Fill = 5 "FILL",
        /// Count cores in a state.
        Count = 15 "COUNT",
        /// Take a core out of service.
        Remap = 16 "REMAP",
        /// Read a neighbour's memory.
        LinkRead = 17 "LINK_READ",
        /// Write a neighbour's memory.
        LinkWrite = 18 "LINK_WRITE",
        /// Start an application from the staging area.
        ApplicationRun = 19 "AR",
        /// Send a nearest-neighbour packet.
        NearestNeighbour = 20 "NNP",
        /// Copy an application from a neighbour and start it.
        ApplicationCopyRun = 21 "APP_COPY_RUN",
        /// Send a signal.
        Signal = 22 "SIG",
        /// Send a block of flood-fill data.
        FloodFillData = 23 "FFD",
        /// Start an application from anywhere in shared memory.
        ApplicationStart = 24 "AS",
        /// Switch LEDs.
        Led = 25 "LED",
        /// IP tags.
        IpTag = 26 "IPTAG",
        /// Serial ROM.
        SerialRom = 27 "SROM",
        /// SDRAM and routing entries: allocate and free.
        Alloc = 28 "ALLOC",
        /// The routing table.
        Router = 29 "RTR",
        /// Facts of a chip.
        Info = 31 "INFO",
        /// Time synchronisation on or off.
        Sync = 32 "SYNC",
        /// BMP: facts of a board.
        BmpInfo = 48 "BMP_INFO",
        /// BMP: copy flash.
        BmpFlashCopy = 49 "BMP_FLASH_COPY",
        /// BMP: erase flash.
        BmpFlashErase = 50 "BMP_FLASH_ERASE",
        /// BMP: write flash.
        BmpFlashWrite = 51 "BMP_FLASH_WRITE",
        /// BMP: serial flash.
        BmpSerialFlash = 53 "BMP_SF",
        /// BMP: EEPROM.
        BmpEeprom = 54 "BMP_EE",
        /// BMP: reset boards.
        BmpReset = 55 "BMP_RESET",
        /// BMP: FPGAs.
        BmpXilinx = 56 "BMP_XILINX",
        /// BMP: power of boards.
        BmpPower = 57 "BMP_POWER",
        /// BMP: its I2C bus.
        BmpI2c = 61 "BMP_I2C",
        /// BMP: its pulse-width outputs.
        BmpPwm = 62 "BMP_PWM",
        /// Outgoing: text of a core.
        Tube = 64 "TUBE",
    }
}

raw_enum! {
    /// The first half-word of a reply (SCP, section "Return codes").
    pub enum ReturnCode(u16) {
        /// Done. SC&MP 4.0.0 also says this of its own errors; then data that were due are missing.
        Ok = 0x80 "ok",
        /// Bad length.
        BadLength = 0x81 "bad length",
        /// Bad check sum.
        BadSum = 0x82 "bad check sum",
        /// Unknown command.
        BadCommand = 0x83 "unknown command",
        /// Bad arguments.
        BadArgument = 0x84 "bad arguments",
        /// Bad port.
        BadPort = 0x85 "bad port",
        /// A mailbox or a link did not answer in time.
        Timeout = 0x86 "time-out",
        /// No P2P route.
        NoRoute = 0x87 "no route",
        /// No such core.
        BadCore = 0x88 "no such core",
        /// The core is dead.
        Dead = 0x89 "core dead",
        /// No free shared message buffer.
        NoBuffer = 0x8A "no buffer",
        /// The chip does not answer over P2P.
        P2pNoReply = 0x8B "no reply over P2P",
        /// The chip refuses a message over P2P.
        P2pReject = 0x8C "rejected over P2P",
        /// The chip is busy with other messages.
        P2pBusy = 0x8D "busy over P2P",
        /// The chip stopped answering in mid-message.
        P2pTimeout = 0x8E "time-out over P2P",
        /// The packet could not be sent.
        PacketTransmit = 0x8F "packet not sent",
    }
}

impl ReturnCode {
    /// Whether sending the same request again may help: the official host's list and [`ReturnCode::NoBuffer`].
    pub const fn is_retriable(self) -> bool {
        matches!(
            self,
            Self::BadLength | Self::Timeout | Self::NoBuffer | Self::P2pNoReply | Self::P2pBusy | Self::P2pTimeout
        )
    }
}
