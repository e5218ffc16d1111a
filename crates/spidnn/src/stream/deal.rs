//! Which chip takes which sample of a batch.

/// A place in the input buffers of the machine: which replica, and which of its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Number of the replica.
    pub replica: usize,
    /// Number of the sample on its chip.
    pub slot: usize,
}

/// How samples are dealt. The place of a sample depends on its number in the batch alone, so that a batch may grow while it is
/// written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deal {
    /// Replicas of the network.
    replicas: usize,
    /// Samples that a chip takes.
    slots: usize,
    /// Replicas that share the first samples of a batch in turn.
    sharing: usize,
    /// Samples of each of them that are dealt so.
    shared_slots: usize,
}

/// Samples of a chip with which what the link needs for the chip itself (to tell it what to do, to ask for its outputs) is small
/// against what it needs for the samples.
const SHARED_SLOTS_MAX: usize = 4;

/// Bytes that the host's link carries in a second, headers taken off: 256 of the 348 byte times of a write on 100 Mbit/s
/// (`spinnaker_sim::Timing::host_write_packet_ns`). Only a guide for the split; the numbers do not depend on it.
const LINK_BYTES_PER_S: f64 = 9.2e6;

impl Deal {
    /// For chips that take `slots` samples of so many bytes each in `chip_s` seconds.
    ///
    /// As many chips share the first samples as are needed to compute no longer than the link needs to write their inputs: fewer would
    /// leave the link idle; more would cost the link more, where it is the link that limits.
    pub fn new(replicas: usize, slots: usize, sample_bytes: usize, chip_s: f64) -> Deal {
        let (replicas, slots) = (replicas.max(1), slots.max(1));
        let link_s = (slots * sample_bytes.max(1)) as f64 / LINK_BYTES_PER_S;
        let sharing = ((chip_s / link_s).ceil() as usize).saturating_add(1).clamp(1, replicas);
        Deal { replicas, slots, sharing, shared_slots: slots.min(SHARED_SLOTS_MAX) }
    }

    /// Samples of a batch at most.
    pub fn samples_max(&self) -> usize {
        self.replicas * self.slots
    }

    /// Samples of a batch with which neither link nor cores wait long for the other.
    pub fn samples_balanced(&self) -> usize {
        self.sharing * self.shared_slots
    }

    /// The place of a batch's sample number `sample`: the first go to the sharing chips in turn, then other chips are filled one after
    /// the other, then the sharing chips in turn.
    pub fn place(&self, sample: usize) -> Place {
        let turn = |sample: usize| Place { replica: sample % self.sharing, slot: sample / self.sharing };
        if sample < self.samples_balanced() {
            return turn(sample);
        }
        let behind = sample - self.samples_balanced();
        let others = (self.replicas - self.sharing) * self.slots;
        if behind < others {
            return Place { replica: self.sharing + behind / self.slots, slot: behind % self.slots };
        }
        turn(sample - others)
    }

    /// How many of a batch's samples each replica has.
    pub fn shares(&self, samples: usize) -> Vec<usize> {
        let mut shares = vec![0; self.replicas];
        (0..samples.min(self.samples_max())).for_each(|sample| shares[self.place(sample).replica] += 1);
        shares
    }
}

#[cfg(test)]
mod tests {
    use super::{Deal, Place};

    #[test]
    fn every_place_is_taken_once_and_in_the_order_of_its_chip() {
        for (replicas, slots, chip_s) in [(1, 1, 1.0), (4, 3, 0.0), (4, 3, 1e-3), (48, 2, 3.3e-3), (48, 16, 9.0)] {
            let deal = Deal::new(replicas, slots, 3136, chip_s);
            let mut next = vec![0; replicas];
            for sample in 0..deal.samples_max() {
                let Place { replica, slot } = deal.place(sample);
                assert_eq!(slot, next[replica], "{deal:?} {sample}");
                next[replica] += 1;
                assert_eq!(deal.shares(sample + 1), next);
            }
            assert!(next.iter().all(|&n| n == slots));
        }
    }

    #[test]
    fn as_many_chips_share_as_the_link_can_feed() {
        // Two images of 3,136 bytes take 0.68 ms of the link: 3.3 ms of computing are hidden behind five chips, and one in reserve.
        assert_eq!(Deal::new(48, 2, 3136, 3.3e-3).samples_balanced(), 12);
        assert_eq!(Deal::new(48, 2, 3136, 1.0).samples_balanced(), 96);
        assert_eq!(Deal::new(4, 1, 8, 0.0).samples_balanced(), 1);
    }
}
