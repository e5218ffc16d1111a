//! Phases: stages that need nothing of each other and run between the same two barriers.

use super::{CoreSlot, Stage};
use crate::CompileError;
use crate::emit::{Emit, tally};

/// Stages between two barriers. Every core does its part of each, one after the other, without waiting for the others.
#[derive(Debug)]
pub struct Phase {
    /// The stages; those that can be dealt unevenly last, since they fill the gaps of the others.
    pub stages: Vec<Box<dyn Stage>>,
}

impl Phase {
    /// A stage by itself.
    pub fn of(stage: impl Stage + 'static) -> Phase {
        Phase { stages: vec![Box::new(stage)] }
    }

    /// The commands of all cores of a chip: for each stage, those of each slot. `chip` tells what the cores share; its slot
    /// does not matter.
    ///
    /// # Errors
    /// As [`Stage::emit`].
    pub fn emit(&self, chip: CoreSlot) -> Result<Vec<Vec<Emit>>, CompileError> {
        let mut busy_cycles = vec![0u64; chip.cores as usize];
        let mut all = Vec::new();
        for stage in &self.stages {
            let of = |slot| stage.emit_beside(CoreSlot { slot, ..chip }, &busy_cycles);
            let emitted = (0..chip.cores).map(of).collect::<Result<Vec<_>, _>>()?;
            if self.stages.len() > 1 {
                for (busy, own) in busy_cycles.iter_mut().zip(&emitted) {
                    *busy += tally(&own.items, chip.samples_max).kernel_cycles;
                }
            }
            all.push(emitted);
        }
        Ok(all)
    }
}

/// The place of a slot among all, the least busy first: who has done least begins.
pub fn rank(slot: u32, busy_cycles: &[u64]) -> u32 {
    let own = (busy_cycles.get(slot as usize).copied().unwrap_or(0), slot);
    busy_cycles.iter().zip(0u32..).filter(|&(&busy, other)| (busy, other) < own).count() as u32
}

/// Deals `items` that take `item_cycles` each to cores that are busy already, so that all end at about the same time: first item
/// and number of items of a slot. Every item is dealt once.
pub fn level(items: u32, item_cycles: u64, slot: u32, busy_cycles: &[u64]) -> (u32, u32) {
    let cores = busy_cycles.len().max(1);
    let mut counts = vec![0u32; cores];
    // Whoever would end first takes the next item.
    let ends =
        |core: usize, count: u32| busy_cycles.get(core).copied().unwrap_or(0) + u64::from(count + 1) * item_cycles;
    for _ in 0..items {
        let next = (0..cores).min_by_key(|&core| ends(core, counts[core])).unwrap_or(0);
        counts[next] += 1;
    }
    let own = counts.get(slot as usize).copied().unwrap_or(0);
    (counts.iter().take(slot as usize).sum(), own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levelling_deals_everything_once_and_evens_out() {
        for (items, cycles, busy) in
            [(100, 10, vec![0, 500, 30, 0]), (3, 1, vec![0; 17]), (0, 5, vec![7]), (40, 7, vec![9, 900])]
        {
            let mut next = 0;
            let mut ends = Vec::new();
            for slot in 0..busy.len() as u32 {
                let (first, count) = level(items, cycles, slot, &busy);
                assert_eq!(first, next);
                next += count;
                if count > 0 {
                    ends.push(busy[slot as usize] + u64::from(count) * cycles);
                }
            }
            assert_eq!(next, items);
            let (least, most) = (ends.iter().min(), ends.iter().max());
            assert!(most.copied().unwrap_or(0) - least.copied().unwrap_or(0) <= cycles, "{ends:?}");
        }
    }

    #[test]
    fn ranks_are_a_permutation_that_begins_with_the_least_busy() {
        let busy = [5, 0, 9, 0];
        let ranks: Vec<u32> = (0..4).map(|slot| rank(slot, &busy)).collect();
        assert_eq!(ranks, [2, 0, 3, 1]);
    }
}
