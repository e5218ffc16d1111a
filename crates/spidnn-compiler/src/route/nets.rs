//! Who talks to whom: barriers within chips, exchanges along the tree of replicas.

use std::collections::BTreeMap;

use spidnn_core::program::barrier;
use spinnaker_machine::{ChipXy, Route};

use super::RouteError;
use super::keys::{CHANNEL_MASK, ChannelKind, STREAM_MASK, key_base};
use super::tree::ReplicaTree;

/// A set of cores of one chip that get a packet: bit `n` is core `n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CoreTarget(u32);

impl CoreTarget {
    /// One core.
    ///
    /// # Panics
    /// If `core` is above 17: no chip has such a core.
    pub const fn one(core: u8) -> CoreTarget {
        assert!(core < 18, "cores are numbered 0 to 17");
        CoreTarget(1 << core)
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: CoreTarget) -> CoreTarget {
        CoreTarget(self.0 | other.0)
    }

    /// Whether no core is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Cores in the set, ascending.
    pub fn cores(self) -> impl Iterator<Item = u8> {
        (0..18).filter(move |core| self.0 >> core & 1 == 1)
    }

    /// The set as part of a routing entry.
    pub fn route(self) -> Route {
        self.cores().fold(Route::NONE, Route::with_core)
    }
}

impl FromIterator<u8> for CoreTarget {
    /// # Panics
    /// If a core is above 17.
    fn from_iter<I: IntoIterator<Item = u8>>(cores: I) -> Self {
        cores.into_iter().fold(CoreTarget::default(), |set, core| set.union(CoreTarget::one(core)))
    }
}

/// Packets with certain keys, from one chip to certain cores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Net {
    /// Chip whose cores send.
    pub source: ChipXy,
    /// Keys `k` with `k & mask == key` belong to the net.
    pub key: u32,
    /// Which bits of a key count.
    pub mask: u32,
    /// Who gets the packets. A chip may be named several times; its sets add up.
    pub targets: Vec<(ChipXy, CoreTarget)>,
}

/// All nets of a compiled network: barriers within every chip, and streams up and down the tree for the first
/// `exchange_slots` cores of every chip.
///
/// `cores_by_chip` lists the participating cores of each chip of the tree; a core's place in that list is its *slot*, the
/// core in slot 0 leads the barriers. Cores talk to the cores of the same slot on neighbouring chips, whatever their numbers.
///
/// Nets of one chip: arrivals at the first core of each group (`spidnn_core::program::barrier`), release by the leader
/// to all its cores, and for each exchanging core one net up and one down, each for data and control together.
///
/// # Errors
/// [`RouteError::TooFewCores`] for a chip with no participating core or fewer than `exchange_slots`;
/// [`RouteError::Key`] for core numbers out of range.
pub fn nets_for(
    tree: &ReplicaTree,
    cores_by_chip: &BTreeMap<ChipXy, Vec<u8>>,
    exchange_slots: usize,
) -> Result<Vec<Net>, RouteError> {
    let cores_of = |chip: ChipXy| {
        let cores = cores_by_chip.get(&chip).map_or(&[][..], Vec::as_slice);
        let needed = exchange_slots.max(1);
        if cores.len() < needed { Err(RouteError::TooFewCores { chip, cores: cores.len(), needed }) } else { Ok(cores) }
    };
    let mut nets = Vec::new();
    for (index, &chip) in tree.chips().iter().enumerate() {
        let cores = cores_of(chip)?;
        for &core in cores {
            // Checks the numbers of cores that send nothing but arrivals, too.
            key_base(index, core, ChannelKind::BarrierArrive)?;
        }
        let leader = cores[0];
        for (slot, &core) in cores.iter().enumerate().step_by(barrier::GROUP as usize) {
            if barrier::gathered(slot as u32, cores.len() as u32).count_ones() > 1 {
                nets.push(Net {
                    source: chip,
                    key: key_base(index, core, ChannelKind::BarrierArrive)?,
                    mask: CHANNEL_MASK,
                    targets: vec![(chip, CoreTarget::one(core))],
                });
            }
        }
        nets.push(Net {
            source: chip,
            key: key_base(index, leader, ChannelKind::BarrierRelease)?,
            mask: CHANNEL_MASK,
            targets: vec![(chip, cores.iter().copied().collect())],
        });
        let parent = match tree.parent(chip) {
            Some(parent) => Some((parent, cores_of(parent)?)),
            None => None,
        };
        let children = tree
            .children(chip)
            .iter()
            .map(|&child| Ok((child, cores_of(child)?)))
            .collect::<Result<Vec<_>, RouteError>>()?;
        for slot in 0..exchange_slots {
            let mut stream = |kind, peers: &[(ChipXy, &[u8])]| -> Result<(), RouteError> {
                if !peers.is_empty() {
                    let mut targets = Vec::with_capacity(peers.len());
                    for &(peer, peer_cores) in peers {
                        key_base(0, peer_cores[slot], kind)?;
                        targets.push((peer, CoreTarget::one(peer_cores[slot])));
                    }
                    nets.push(Net {
                        source: chip,
                        key: key_base(index, cores[slot], kind)?,
                        mask: STREAM_MASK,
                        targets,
                    });
                }
                Ok(())
            };
            stream(ChannelKind::UpData, parent.as_slice())?;
            stream(ChannelKind::DownData, &children)?;
        }
    }
    Ok(nets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use spinnaker_machine::Machine;

    fn spin3() -> (ReplicaTree, BTreeMap<ChipXy, Vec<u8>>) {
        let machine = Machine::spin3();
        let chips: Vec<ChipXy> = machine.chips.keys().copied().collect();
        let tree = ReplicaTree::build(&machine, &chips, Some(ChipXy::new(0, 0))).expect("a tree");
        (tree, machine.chips.iter().map(|(&xy, chip)| (xy, chip.cores.clone())).collect())
    }

    #[test]
    fn slots_pair_whatever_the_core_numbers() {
        let (tree, mut cores) = spin3();
        let child = ChipXy::new(1, 1);
        cores.insert(child, vec![2, 5, 9]);
        let nets = nets_for(&tree, &cores, 3).expect("nets");
        // Barriers of 3 chips with 17 cores (4 groups of more than one, and the leader's release) and one with 3; 3 streams up from 3 chips, 3 streams down from 1.
        assert_eq!(nets.len(), 3 * 5 + 2 + 3 * 3 + 3);
        let with_key = |key| nets.iter().find(|net| net.key == key).expect("a net");
        let up = with_key(key_base(3, 5, ChannelKind::UpData).expect("key"));
        assert_eq!((up.source, up.targets.clone()), (child, vec![(ChipXy::new(0, 0), CoreTarget::one(2))]));
        let down = with_key(key_base(0, 3, ChannelKind::DownData).expect("key"));
        assert!(down.targets.contains(&(child, CoreTarget::one(9))));
        assert_eq!(down.targets.len(), 3);
        let release = with_key(key_base(3, 2, ChannelKind::BarrierRelease).expect("key"));
        assert_eq!(release.targets, [(child, [2, 5, 9].into_iter().collect())]);
        let arrive = with_key(3 << 20 | 2 << 15);
        assert_eq!((arrive.mask, arrive.targets.clone()), (0xFFFF_F000, vec![(child, CoreTarget::one(2))]));
    }

    #[test]
    fn missing_and_impossible_cores_are_named() {
        let (tree, mut cores) = spin3();
        let chip = ChipXy::new(1, 0);
        cores.insert(chip, vec![1, 2]);
        assert_eq!(nets_for(&tree, &cores, 3), Err(RouteError::TooFewCores { chip, cores: 2, needed: 3 }));
        assert!(nets_for(&tree, &cores, 2).is_ok());
        cores.insert(chip, vec![]);
        assert_eq!(nets_for(&tree, &cores, 0), Err(RouteError::TooFewCores { chip, cores: 0, needed: 1 }));
        cores.insert(chip, vec![1, 18]);
        assert!(matches!(nets_for(&tree, &cores, 0), Err(RouteError::Key(_))));
        cores.remove(&chip);
        assert!(nets_for(&tree, &cores, 1).is_err());
    }
}
