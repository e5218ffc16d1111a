//! Arguments of ALLOC and RTR.

use core::fmt;

use crate::bytes::{field, fits};
use crate::{AppId, Result, WireError};

/// What ALLOC does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AllocCommand {
    /// Op 0: allocate SDRAM. Reply: address, 0 if there is none.
    Sdram {
        /// Who owns it.
        app: AppId,
        /// How much.
        length_bytes: u32,
        /// 1..=255: a name within the application, 0 for none.
        tag: u8,
        /// Flag 4: if the tag is in use and the size the same, the block that is there (a retry is then safe).
        existing: bool,
    },
    /// Op 1: free SDRAM. Reply empty.
    FreeSdram {
        /// The block's address.
        address: u32,
    },
    /// Op 2: free all SDRAM of an application. Reply: number of blocks.
    FreeSdramOf {
        /// The application.
        app: AppId,
    },
    /// Op 3: allocate routing entries. Reply: the first, 0 if there are none.
    Routes {
        /// Who owns them.
        app: AppId,
        /// How many.
        count: u32,
    },
    /// Op 4: free a block of routing entries. Reply empty.
    FreeRoutes {
        /// The first entry.
        first: u32,
        /// Clear the entries, too.
        clear: bool,
    },
    /// Op 5: free all routing entries of an application. Reply: number of blocks.
    FreeRoutesOf {
        /// The application.
        app: AppId,
        /// Clear the entries, too.
        clear: bool,
    },
    /// Op 6: how much SDRAM is free. Reply: [`super::SdramSpace`].
    SdramSpace,
    /// Op 7: address of a tagged block. Reply: address or 0.
    TagAddress {
        /// The application.
        app: AppId,
        /// The tag.
        tag: u8,
    },
}

/// Flag of op 0 (bits 31:16 of arg1).
const EXISTING: u32 = 4;

impl AllocCommand {
    /// Reads the argument words.
    ///
    /// # Errors
    /// [`WireError::Field`] for an unknown operation, flag, or a tag above 255.
    pub fn parse([arg1, arg2, arg3]: [u32; 3]) -> Result<Self> {
        let app = AppId(field(arg1, 8, 8) as u8);
        Ok(match arg1 & 0xFF {
            0 => {
                let flags = arg1 >> 16;
                if flags & !EXISTING != 0 {
                    return Err(WireError::Field { what: "ALLOC flags", value: flags });
                }
                let tag = fits("ALLOC tag", arg3, 8)? as u8;
                Self::Sdram { app, length_bytes: arg2, tag, existing: flags != 0 }
            }
            1 => Self::FreeSdram { address: arg2 },
            2 => Self::FreeSdramOf { app },
            3 => Self::Routes { app, count: arg2 },
            4 => Self::FreeRoutes { first: arg2, clear: arg3 & 1 != 0 },
            5 => Self::FreeRoutesOf { app, clear: arg2 & 1 != 0 },
            6 => Self::SdramSpace,
            7 => Self::TagAddress { app, tag: fits("ALLOC tag", arg2, 8)? as u8 },
            op => return Err(WireError::Field { what: "ALLOC operation", value: op }),
        })
    }

    /// The argument words.
    pub const fn arguments(self) -> [u32; 3] {
        match self {
            Self::Sdram { app, length_bytes, tag, existing } => {
                let flags = if existing { EXISTING } else { 0 };
                [flags << 16 | (app.0 as u32) << 8, length_bytes, tag as u32]
            }
            Self::FreeSdram { address } => [1, address, 0],
            Self::FreeSdramOf { app } => [2 | (app.0 as u32) << 8, 0, 0],
            Self::Routes { app, count } => [3 | (app.0 as u32) << 8, count, 0],
            Self::FreeRoutes { first, clear } => [4, first, clear as u32],
            Self::FreeRoutesOf { app, clear } => [5 | (app.0 as u32) << 8, clear as u32, 0],
            Self::SdramSpace => [6, 0, 0],
            Self::TagAddress { app, tag } => [7 | (app.0 as u32) << 8, tag as u32, 0],
        }
    }
}

impl fmt::Display for AllocCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sdram { app, length_bytes, tag, existing } => {
                let existing = if *existing { " or existing" } else { "" };
                write!(f, "{length_bytes} bytes SDRAM for {app} tag {tag}{existing}")
            }
            Self::FreeSdram { address } => write!(f, "free SDRAM {address:#x}"),
            Self::FreeSdramOf { app } => write!(f, "free SDRAM of {app}"),
            Self::Routes { app, count } => write!(f, "{count} routes for {app}"),
            Self::FreeRoutes { first, .. } => write!(f, "free routes from {first}"),
            Self::FreeRoutesOf { app, .. } => write!(f, "free routes of {app}"),
            Self::SdramSpace => f.write_str("SDRAM space"),
            Self::TagAddress { app, tag } => write!(f, "address of tag {tag} of {app}"),
        }
    }
}

/// What RTR does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouterCommand {
    /// Op 0: clear all entries of users, and their allocation.
    ClearAll,
    /// Op 1: clear some entries.
    Clear {
        /// How many.
        count: u16,
        /// The first.
        first: u32,
    },
    /// Op 2: load entries from a table in memory (see [`crate::router::LoadEntry`]).
    Load {
        /// Who owns them.
        app: AppId,
        /// How many.
        count: u16,
        /// Where the table lies.
        table: u32,
        /// Added to the number of each entry.
        base: u32,
    },
    /// Op 3: set the fixed route.
    WriteFixedRoute {
        /// Who owns it.
        app: AppId,
        /// Links in bits 5:0, virtual cores in bits 23:6. Bit 31 cannot be set.
        route: u32,
    },
    /// Op 3 with bit 31 of arg2: read the fixed route. Reply: a word.
    ReadFixedRoute {
        /// Not used, but sent by the official host.
        app: AppId,
    },
}

impl RouterCommand {
    /// Reads the argument words.
    ///
    /// # Errors
    /// [`WireError::Field`] for an unknown operation.
    pub fn parse([arg1, arg2, arg3]: [u32; 3]) -> Result<Self> {
        let count = (arg1 >> 16) as u16;
        let app = AppId(field(arg1, 8, 8) as u8);
        Ok(match arg1 & 0xFF {
            0 => Self::ClearAll,
            1 => Self::Clear { count, first: arg2 },
            2 => Self::Load { app, count, table: arg2, base: arg3 },
            3 if arg2 >> 31 != 0 => Self::ReadFixedRoute { app },
            3 => Self::WriteFixedRoute { app, route: arg2 },
            op => return Err(WireError::Field { what: "RTR operation", value: op }),
        })
    }

    /// The argument words.
    pub const fn arguments(self) -> [u32; 3] {
        match self {
            Self::ClearAll => [0, 0, 0],
            Self::Clear { count, first } => [1 | (count as u32) << 16, first, 0],
            Self::Load { app, count, table, base } => [2 | (app.0 as u32) << 8 | (count as u32) << 16, table, base],
            Self::WriteFixedRoute { app, route } => [3 | (app.0 as u32) << 8, route & 0x7FFF_FFFF, 0],
            Self::ReadFixedRoute { app } => [3 | (app.0 as u32) << 8, 0x8000_0000, 0],
        }
    }
}

impl fmt::Display for RouterCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClearAll => f.write_str("clear all routes"),
            Self::Clear { count, first } => write!(f, "clear {count} routes from {first}"),
            Self::Load { app, count, table, base } => {
                write!(f, "load {count} routes for {app} from {table:#x} at {base}")
            }
            Self::WriteFixedRoute { route, .. } => write!(f, "fixed route {route:#x}"),
            Self::ReadFixedRoute { .. } => f.write_str("read fixed route"),
        }
    }
}
