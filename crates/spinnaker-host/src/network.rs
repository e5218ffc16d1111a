//! What a machine consists of, IP tags, LEDs.

use spinnaker_wire::iptag::{self, TAG_NONE, TAGS, Target};
use spinnaker_wire::router::{P2pRoute, p2p_table};
use spinnaker_wire::scp::{ChipInfo, Command};
use spinnaker_wire::sdp::Endpoint;
use spinnaker_wire::{ChipAddress, Unit};

use crate::link::Link;
use crate::transceiver::Part;
use crate::{HostError, Result, Transceiver};

/// A chip that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundChip {
    /// Where.
    pub chip: ChipAddress,
    /// What it says of itself.
    pub info: ChipInfo,
}

/// A machine that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundMachine {
    /// Width in chips.
    pub width: u8,
    /// Height in chips.
    pub height: u8,
    /// The chip that was booted.
    pub root: ChipAddress,
    /// Chips that answer, by column and row.
    pub chips: Vec<FoundChip>,
    /// Chips that have a route but do not answer.
    pub silent: Vec<ChipAddress>,
}

/// Bytes of a chip's answer at least.
pub(crate) const INFO_BYTES: usize = 36;

impl<L: Link> Transceiver<L> {
    /// What a chip says of itself.
    ///
    /// # Errors
    /// As [`Transceiver::request_data`].
    pub async fn chip_info(&mut self, chip: ChipAddress) -> Result<ChipInfo> {
        let payload = self.request_data(Endpoint::core(chip, 0), &Command::Info, INFO_BYTES).await?;
        Ok(ChipInfo::parse(&payload)?)
    }

    /// Finds the chips of the machine: those that the root chip has routes to, and that answer.
    ///
    /// # Errors
    /// As [`Transceiver::read_into`].
    pub async fn discover(&mut self) -> Result<FoundMachine> {
        let variables = self.system_variables(ChipAddress::ROOT).await?;
        let (width, height) = variables.dimensions();
        let root = variables.chip();
        let monitor = Endpoint::core(root, 0);
        let length_bytes = p2p_table::column_bytes(height);
        let columns: Vec<ChipAddress> = (0..width).map(|x| ChipAddress::new(x, 0)).collect();
        let parts = columns.iter().map(|column| {
            let address = p2p_table::word_address(*column);
            let command = Command::Read { address, length_bytes, unit: Unit::for_range(address, length_bytes) };
            Part { destination: monitor, command, reply_bytes: length_bytes as usize }
        });
        let mut addresses = std::collections::BTreeSet::new();
        self.run(parts, |x, words| {
            for y in 0..height {
                let chip = ChipAddress::new(x as u8, y);
                let at = usize::from(y / 8) * 4;
                let word = words.get(at..at + 4).and_then(|w| w.try_into().ok()).map_or(0, u32::from_le_bytes);
                if p2p_table::entry(word, chip) != P2pRoute::Drop {
                    addresses.insert((chip.x(), chip.y()));
                }
            }
            Ok(())
        })
        .await?;
        let addresses: Vec<ChipAddress> = addresses.into_iter().map(|(x, y)| ChipAddress::new(x, y)).collect();
        let parts = addresses.iter().map(|chip| Part {
            destination: Endpoint::core(*chip, 0),
            command: Command::Info,
            reply_bytes: 36,
        });
        let mut infos: Vec<Option<ChipInfo>> = vec![None; addresses.len()];
        self.run_each(parts, |index, answer| {
            match answer {
                Ok(payload) => infos[index] = Some(ChipInfo::parse(&payload)?),
                Err(HostError::Refused { .. } | HostError::Silent { .. } | HostError::NoData { .. }) => {}
                Err(other) => return Err(other),
            }
            Ok(())
        })
        .await?;
        let mut machine = FoundMachine { width, height, root, chips: Vec::new(), silent: Vec::new() };
        for (chip, info) in addresses.into_iter().zip(infos) {
            match info {
                Some(info) => machine.chips.push(FoundChip { chip, info }),
                None => machine.silent.push(chip),
            }
        }
        Ok(machine)
    }

    /// Sets an IP tag of an Ethernet chip; returns its number.
    ///
    /// # Errors
    /// [`HostError::Argument`] for a tag that is not a user's, [`HostError::Exhausted`], and those of
    /// [`Transceiver::request_data`].
    pub async fn set_ip_tag(&mut self, ethernet_chip: ChipAddress, tag: u8, target: Target) -> Result<u32> {
        if tag >= iptag::TAGS_FIXED {
            return Err(HostError::Argument(format!("IP tag {tag}: users have tags 0 to 7")));
        }
        let command = Command::IpTag(iptag::Command::Set { tag, target });
        match self.request_word(Endpoint::core(ethernet_chip, 0), &command).await? {
            TAG_NONE => Err(HostError::Exhausted { chip: ethernet_chip, wanted: format!("IP tag {tag}") }),
            number => Ok(number),
        }
    }

    /// Sets the first of the user's IP tags that is free; returns its number. Hosts that do so at the same time may choose the
    /// same.
    ///
    /// # Errors
    /// [`HostError::Exhausted`] if all eight are in use, and those of [`Transceiver::ip_tags`].
    pub async fn set_free_ip_tag(&mut self, ethernet_chip: ChipAddress, target: Target) -> Result<u8> {
        let entries = self.ip_tags(ethernet_chip).await?;
        let free = (0..iptag::TAGS_FIXED).zip(&entries).find(|(_, entry)| !entry.is_valid());
        let Some((tag, _)) = free else {
            return Err(HostError::Exhausted { chip: ethernet_chip, wanted: "a free IP tag".to_string() });
        };
        self.set_ip_tag(ethernet_chip, tag, target).await?;
        Ok(tag)
    }

    /// Clears an IP tag.
    ///
    /// # Errors
    /// As [`Transceiver::request`].
    pub async fn clear_ip_tag(&mut self, ethernet_chip: ChipAddress, tag: u8) -> Result<()> {
        let command = Command::IpTag(iptag::Command::Clear { tag });
        self.request(Endpoint::core(ethernet_chip, 0), &command).await.map(drop)
    }

    /// All sixteen IP tags of an Ethernet chip.
    ///
    /// # Errors
    /// As [`Transceiver::request_data`].
    pub async fn ip_tags(&mut self, ethernet_chip: ChipAddress) -> Result<Vec<iptag::Entry>> {
        let destination = Endpoint::core(ethernet_chip, 0);
        let mut entries = vec![None; TAGS.into()];
        let parts = (0..TAGS).map(|tag| {
            let command = Command::IpTag(iptag::Command::Get { tag, count: 1 });
            Part { destination, command, reply_bytes: size_of::<iptag::Entry>() }
        });
        self.run(parts, |index, payload| {
            let (entry, _) = iptag::Entry::read(payload)?;
            if let Some(room) = entries.get_mut(index) {
                *room = Some(*entry);
            }
            Ok(())
        })
        .await?;
        Ok(entries.into_iter().flatten().collect())
    }

    /// Switches LEDs of a chip; see [`spinnaker_wire::scp::LedAction`].
    ///
    /// # Errors
    /// As [`Transceiver::request`].
    pub async fn leds(&mut self, chip: ChipAddress, actions: u32) -> Result<()> {
        self.request(Endpoint::core(chip, 0), &Command::Led(actions)).await.map(drop)
    }

    /// Switches on or off that the root chip tells the other monitors the time every two seconds (on after boot).
    ///
    /// # Errors
    /// As [`Transceiver::request`].
    pub async fn time_sync(&mut self, on: bool) -> Result<()> {
        self.request(Endpoint::core(ChipAddress::ROOT, 0), &Command::Sync(on)).await.map(drop)
    }
}
