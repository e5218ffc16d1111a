//! Words by which applications are started and signalled.

use core::fmt;

use crate::bytes::{field, raw_enum};
use crate::{AppId, CoreMask};

/// Application, flags and cores of a start, in one word (bits 31:24, 23:18, 17:0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StartWord {
    /// The application's number.
    pub app: AppId,
    /// Bits 23:18 of the word: bit 0 is WAIT (stop in start-up until signal START), the rest is reserved. Six bits.
    pub flags: u8,
    /// Virtual cores; not the monitor.
    pub cores: CoreMask,
}

impl StartWord {
    /// In `flags`: wait in start-up until signal START.
    pub const WAIT: u8 = 1;

    /// Reads the word; every word is valid.
    pub const fn parse(word: u32) -> Self {
        Self { app: AppId((word >> 24) as u8), flags: field(word, 18, 6) as u8, cores: CoreMask(word & CoreMask::BITS) }
    }

    /// The word; of flags and cores the bits that fit.
    pub const fn word(self) -> u32 {
        (self.app.0 as u32) << 24 | ((self.flags & 0x3F) as u32) << 18 | self.cores.0 & CoreMask::BITS
    }
}

impl fmt::Display for StartWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.app, self.cores, if self.flags & Self::WAIT != 0 { " wait" } else { "" })
    }
}

raw_enum! {
    /// What the monitors do with the cores of an application.
    pub enum Signal(u8) {
        /// Back to the idle kernel.
        Init = 0 "INIT",
        /// Clocks off.
        PowerDown = 1 "PWRDN",
        /// End the application and free what it holds.
        Stop = 2 "STOP",
        /// Leave the wait in start-up.
        Start = 3 "START",
        /// Leave state SYNC0.
        Sync0 = 4 "SYNC0",
        /// Leave state SYNC1.
        Sync1 = 5 "SYNC1",
        /// Pause the event loop.
        Pause = 6 "PAUSE",
        /// Go on after a pause.
        Continue = 7 "CONT",
        /// End the event loop.
        Exit = 8 "EXIT",
        /// A timer event.
        Timer = 9 "TIMER",
        /// For the application.
        User0 = 10 "USR0",
        /// For the application.
        User1 = 11 "USR1",
        /// For the application.
        User2 = 12 "USR2",
        /// For the application.
        User3 = 13 "USR3",
    }
}

impl Signal {
    /// How the official host sends it: INIT, PWRDN and STOP by nearest-neighbour packets, the others by multicast.
    pub const fn transport(self) -> SignalTransport {
        match self {
            Self::Init | Self::PowerDown | Self::Stop => SignalTransport::NearestNeighbour,
            _ => SignalTransport::Multicast,
        }
    }
}

raw_enum! {
    /// How SIG spreads a signal.
    pub enum SignalTransport(u32) {
        /// Along the monitors' tree; only the root chip takes it.
        Multicast = 0 "multicast",
        /// No longer supported.
        PointToPoint = 1 "P2P",
        /// Flooded.
        NearestNeighbour = 2 "NN",
    }
}

/// A signal and the applications that it is for: those whose number masked by `app_mask` is `app`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SignalWord {
    /// The signal.
    pub signal: Signal,
    /// Which bits of a core's application number are compared.
    pub app_mask: u8,
    /// What they must be.
    pub app: AppId,
}

impl SignalWord {
    /// A signal to one application.
    pub const fn to_app(signal: Signal, app: AppId) -> Self {
        Self { signal, app_mask: 0xFF, app }
    }

    /// Reads bits 23:0; the others are ignored.
    pub const fn parse(word: u32) -> Self {
        Self { signal: Signal::from_raw((word >> 16) as u8), app_mask: (word >> 8) as u8, app: AppId(word as u8) }
    }

    /// The word, bits 31:24 zero.
    pub const fn word(self) -> u32 {
        (self.signal.raw() as u32) << 16 | (self.app_mask as u32) << 8 | self.app.0 as u32
    }

    /// Whether a core of this application is meant.
    pub const fn matches(self, app: AppId) -> bool {
        app.0 & self.app_mask == self.app.0
    }
}

impl fmt::Display for SignalWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {} mask {:#04x}", self.signal, self.app, self.app_mask)
    }
}
