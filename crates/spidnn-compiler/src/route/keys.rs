//! The layout of multicast keys: who sends, on which channel, and which word of it.
//!
//! | bits | content |
//! | --- | --- |
//! | 31 to 20 | number of the sender's chip (its place in the list of used chips) |
//! | 19 to 15 | the sender's core, 1 to 17 |
//! | 14 to 12 | the channel's kind |
//! | 11 to 0 | the sender's to use: offset of a word in a window, a barrier's number |
//!
//! Tables look at the upper 20 bits only. Data and control of one direction go to the same cores, and their kinds
//! differ in the lowest bit, so that one entry ([`STREAM_MASK`]) serves both.

use spinnaker_machine::CORE_MAX;
use thiserror::Error;

/// Lowest bit of the chip number.
pub const CHIP_SHIFT: u32 = 20;
/// Lowest bit of the core number.
pub const CORE_SHIFT: u32 = 15;
/// Lowest bit of the channel's kind.
pub const KIND_SHIFT: u32 = 12;
/// Chips that keys can tell apart.
pub const CHIPS_MAX: usize = 1 << (32 - CHIP_SHIFT);
/// The bits that belong to the sender.
pub const LOW_MASK: u32 = (1 << KIND_SHIFT) - 1;
/// Mask of one channel of one core.
pub const CHANNEL_MASK: u32 = !LOW_MASK;
/// Mask of the data and control channels of one direction of one core.
pub const STREAM_MASK: u32 = CHANNEL_MASK & !(1 << KIND_SHIFT);

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum ChannelKind {
    /// A core, or a group, has reached a barrier: to the core whose number the key has.
    BarrierArrive = 0,
    /// All have: from the leader to the cores of its chip.
    BarrierRelease = 1,
    /// Words of a sum: to the core of the same slot on the parent chip.
    UpData = 2,
    /// Acknowledgements and credits of what came down: to the same core as [`ChannelKind::UpData`].
    UpControl = 3,
    /// Words of a broadcast: to the cores of the same slot on all child chips.
    DownData = 4,
    /// Acknowledgements and credits of what came up: to the same cores as [`ChannelKind::DownData`].
    DownControl = 5,
}

impl ChannelKind {
    /// All kinds, by number.
    pub const ALL: [ChannelKind; 6] =
        [Self::BarrierArrive, Self::BarrierRelease, Self::UpData, Self::UpControl, Self::DownData, Self::DownControl];

    /// The kind with a number; `None` for the numbers 6 and 7, which nobody uses.
    pub const fn from_number(number: u32) -> Option<ChannelKind> {
        if number < 6 { Some(Self::ALL[number as usize]) } else { None }
    }
}

/// A key that cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The chip number does not fit its bits.
    #[error("chip number {0} has no multicast keys: they reach {CHIPS_MAX} chips; use fewer chips")]
    Chip(usize),
    /// No application core has this number.
    #[error("core {0} has no multicast keys: application cores are numbered 1 to {CORE_MAX}")]
    Core(u8),
}

/// First key of a channel; the others follow up to `key_base | LOW_MASK`.
///
/// # Errors
/// [`KeyError::Chip`] for a chip number from [`CHIPS_MAX`] on, [`KeyError::Core`] for a core that is not 1 to 17.
///
/// ```
/// use spidnn_compiler::route::keys::{ChannelKind, key_base};
/// assert_eq!(key_base(5, 17, ChannelKind::UpControl), Ok(0x0058_B000));
/// assert!(key_base(4096, 1, ChannelKind::UpData).is_err());
/// ```
pub fn key_base(chip_index: usize, core: u8, kind: ChannelKind) -> Result<u32, KeyError> {
    let chip = u32::try_from(chip_index).ok().filter(|_| chip_index < CHIPS_MAX).ok_or(KeyError::Chip(chip_index))?;
    if !(1..=CORE_MAX).contains(&core) {
        return Err(KeyError::Core(core));
    }
    Ok(chip << CHIP_SHIFT | u32::from(core) << CORE_SHIFT | (kind as u32) << KIND_SHIFT)
}

/// A key taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyParts {
    /// Number of the sender's chip.
    pub chip_index: usize,
    /// The sender's core.
    pub core: u8,
    /// Channel.
    pub kind: ChannelKind,
    /// The lower 12 bits.
    pub low: u32,
}

impl KeyParts {
    /// Takes a key apart; `None` if no core sends such a key.
    pub fn of(key: u32) -> Option<KeyParts> {
        let core = (key >> CORE_SHIFT & 0x1F) as u8;
        let kind = ChannelKind::from_number(key >> KIND_SHIFT & 7)?;
        let parts = KeyParts { chip_index: (key >> CHIP_SHIFT) as usize, core, kind, low: key & LOW_MASK };
        (1..=CORE_MAX).contains(&core).then_some(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn keys_come_apart_as_they_were_made_and_differ() {
        let mut seen = BTreeSet::new();
        for chip_index in [0, 1, 47, 143, CHIPS_MAX - 1] {
            for core in 1..=CORE_MAX {
                for kind in ChannelKind::ALL {
                    let key = key_base(chip_index, core, kind).expect("in range");
                    assert_eq!(key & LOW_MASK, 0);
                    assert!(seen.insert(key));
                    for low in [0, 1, LOW_MASK] {
                        assert_eq!(KeyParts::of(key | low), Some(KeyParts { chip_index, core, kind, low }));
                    }
                }
            }
        }
    }

    #[test]
    fn ranges_are_checked() {
        assert_eq!(key_base(CHIPS_MAX, 1, ChannelKind::UpData), Err(KeyError::Chip(4096)));
        assert_eq!(key_base(usize::MAX, 1, ChannelKind::UpData), Err(KeyError::Chip(usize::MAX)));
        assert_eq!(key_base(0, 0, ChannelKind::UpData), Err(KeyError::Core(0)));
        assert_eq!(key_base(0, 18, ChannelKind::UpData), Err(KeyError::Core(18)));
        assert_eq!(KeyParts::of(0x0000_0000), None, "core 0 is the monitor");
        assert_eq!(KeyParts::of(1 << CORE_SHIFT | 6 << KIND_SHIFT), None);
    }

    #[test]
    fn masks_join_what_goes_the_same_way() {
        assert_eq!((CHANNEL_MASK, STREAM_MASK), (0xFFFF_F000, 0xFFFF_E000));
        let key = |kind| key_base(9, 3, kind).expect("in range");
        for (data, control) in
            [(ChannelKind::UpData, ChannelKind::UpControl), (ChannelKind::DownData, ChannelKind::DownControl)]
        {
            assert_eq!(key(data) & STREAM_MASK, key(data), "data is the even one");
            assert_eq!(key(control) & STREAM_MASK, key(data));
        }
        assert_ne!(key(ChannelKind::UpData) & STREAM_MASK, key(ChannelKind::DownData) & STREAM_MASK);
    }
}
