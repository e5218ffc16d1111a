//! Where weights are in local memory, and when they come there: kept from run to run, or fetched while an earlier phase
//! multiplies.

use spidnn_core::command::{Item, Step};

use crate::emit::{BUFFER_BYTES, Emit, TAGS_AHEAD, tally, when_kept_is_stale};
use crate::report::memory_cycles;
use crate::stage::phase::Phase;
use crate::stage::{CoreSlot, Fetched, Stage, Weights};

/// Words of commands that weights of several stages are fetched by in one loop: such a loop stays in one segment.
const KEPT_WORDS_MAX: usize = 512;

/// The phases of a core with their weights at the top of local memory; `None` if something does not fit.
pub fn emit_keeping(phases: &[Phase], core: CoreSlot) -> Option<Vec<Vec<Item>>> {
    let stages = || phases.iter().flat_map(|phase| &phase.stages);
    let size = |stage: &dyn Stage| if stage.keeps_weights() { stage.weight_bytes(core).next_multiple_of(8) } else { 0 };
    let all: u64 = stages().map(|stage| u64::from(size(stage.as_ref()))).sum();
    if all == 0 || all > u64::from(BUFFER_BYTES) / 2 {
        return None;
    }
    let buffers = (0, BUFFER_BYTES - all as u32);
    let mut at = buffers.1;
    let (mut emitted, mut kept, mut kept_at): (Vec<Vec<Item>>, Vec<Vec<Step>>, usize) = Default::default();
    for phase in phases {
        let mut items = Vec::new();
        for stage in &phase.stages {
            let bytes = size(stage.as_ref());
            let weights = (bytes > 0).then_some(Weights { at, fetched: Fetched::Kept });
            let own = stage.emit(CoreSlot { weights, buffers, ..core }).ok()?;
            if emitted.is_empty() && items.is_empty() {
                kept_at = own.ahead_at;
            }
            let words = |steps: &[Step]| steps.iter().map(Step::word_count).sum::<usize>();
            match kept.last_mut() {
                Some(last) if words(last) + words(&own.kept) <= KEPT_WORDS_MAX => last.extend(own.kept),
                _ if own.kept.is_empty() => {}
                _ => kept.push(own.kept),
            }
            items.extend(own.items);
            at += bytes;
        }
        emitted.push(items);
    }
    // Before the first stage computes, behind what it fetches.
    if let Some(first) = emitted.first_mut() {
        first.splice(kept_at..kept_at, kept.into_iter().map(when_kept_is_stale));
    }
    Some(emitted)
}

/// Cycles of a phase's longest kernel: transfers for a later phase that take no longer come while it is computed, and hold up
/// none of the inputs that are fetched behind them.
pub fn longest_kernel_cycles(stages: &[Vec<Emit>], chip: CoreSlot) -> u64 {
    let own = stages.iter().flatten().map(|own| tally(&own.items, chip.samples_max).longest_kernel_cycles);
    own.max().unwrap_or(0) / 4
}

/// Weights of a phase that are fetched ahead.
#[derive(Debug, Clone, Copy)]
struct Ahead {
    /// The phase that needs them.
    phase: usize,
    bytes: u32,
    /// They are not fetched before this phase.
    earliest: usize,
}

/// How many phases before they are needed weights may be fetched.
const PHASES_AHEAD: usize = 16;

/// The phases of a core, with weights fetched ahead where there is room. `plain`: the phases as they are without; `room`: cycles of
/// transfers for others that each leaves time for.
pub fn emit_ahead(phases: &[Phase], core: CoreSlot, plain: &[Vec<Vec<Emit>>], room: &[u64]) -> Vec<Vec<Item>> {
    let mut all: Vec<Ahead> = Vec::new();
    for (phase, of) in phases.iter().enumerate() {
        // (The first phase has none before it, and those of several stages fetch for themselves.)
        if let ([stage], true) = (&of.stages[..], phase > 0) {
            let bytes = stage.weight_bytes(core).next_multiple_of(8);
            if bytes > 0 {
                all.push(Ahead { phase, bytes, earliest: phase.saturating_sub(PHASES_AHEAD) });
            }
        }
    }
    loop {
        match try_ahead(phases, core, plain, room, &all) {
            Ok(emitted) => return emitted,
            // No room beside that phase: the weights come after it, or when they are needed.
            Err((number, phase)) => {
                all[number].earliest = phase + 1;
                if all[number].earliest >= all[number].phase {
                    all.remove(number);
                }
            }
        }
    }
}

/// The largest part of local memory beside places that are taken.
fn largest_gap(taken: impl Iterator<Item = (u32, u32)>) -> (u32, u32) {
    let mut taken: Vec<(u32, u32)> = taken.chain([(BUFFER_BYTES, 0)]).collect();
    taken.sort_unstable();
    let (mut best, mut end) = ((0, 0), 0);
    for (at, bytes) in taken {
        if at.saturating_sub(end) > best.1 - best.0 {
            best = (end, at);
        }
        end = end.max(at + bytes);
    }
    best
}

/// As [`emit_ahead`] with these weights; or the number of those for which there is no room, and the phase that lacks it.
fn try_ahead(
    phases: &[Phase],
    core: CoreSlot,
    plain: &[Vec<Vec<Emit>>],
    room: &[u64],
    all: &[Ahead],
) -> Result<Vec<Vec<Item>>, (usize, usize)> {
    // Each is fetched during the nearest phase before that leaves time enough, or else the one that leaves most.
    let mut room = room.to_vec();
    let mut hosts = Vec::new();
    let mut places: Vec<u32> = Vec::new();
    for (number, ahead) in all.iter().enumerate() {
        let needed = memory_cycles(u64::from(ahead.bytes) * u64::from(core.cores));
        let candidates = || (ahead.earliest..ahead.phase).rev();
        let most = candidates().max_by_key(|&p| (room[p], p)).unwrap_or(ahead.phase - 1);
        let host = candidates().find(|&p| room[p] >= needed).unwrap_or(most);
        room[host] = room[host].saturating_sub(needed);
        // The lowest place that no others hold meanwhile.
        let meanwhile = |other: usize| hosts[other] <= ahead.phase && host <= all[other].phase;
        let mut at = 0;
        let mut others: Vec<usize> = (0..number).filter(|&other| meanwhile(other)).collect();
        others.sort_by_key(|&other| places[other]);
        for other in others {
            if places[other] < at + ahead.bytes && at < places[other] + all[other].bytes {
                at = places[other] + all[other].bytes;
            }
        }
        hosts.push(host);
        places.push(at);
    }
    let mut emitted: Vec<Emit> = Vec::new();
    for (phase, of) in phases.iter().enumerate() {
        let present = || (0..all.len()).filter(|&n| (hosts[n]..=all[n].phase).contains(&phase));
        let buffers = largest_gap(present().map(|n| (places[n], all[n].bytes)));
        // The one to give way: of those for other phases the largest, else its own.
        let largest = present().max_by_key(|&n| (all[n].phase != phase, all[n].bytes));
        let plain_stages: Vec<&Emit> = plain[phase].iter().map(|slots| &slots[core.slot as usize]).collect();
        let one = match &of.stages[..] {
            [stage] => {
                let weights = present()
                    .find(|&n| all[n].phase == phase)
                    .map(|n| Weights { at: places[n], fetched: Fetched::Ahead(TAGS_AHEAD[n % TAGS_AHEAD.len()]) });
                stage.emit(CoreSlot { weights, buffers, ..core }).ok()
            }
            // Several stages have been made for memory from the start.
            _ => (plain_stages.iter().all(|e| e.peak_bytes() <= buffers.1) && buffers.0 == 0)
                .then(|| Emit::joined(core, &plain_stages)),
        };
        match (one, largest) {
            (Some(one), _) => emitted.push(one),
            (None, Some(largest)) => return Err((largest, phase)),
            (None, None) => emitted.push(Emit::joined(core, &plain_stages)),
        }
    }
    // Insertion moves what follows: the transfers of a host together.
    for host in 0..phases.len() {
        let mut steps = Vec::new();
        for number in (0..all.len()).filter(|&n| hosts[n] == host) {
            steps.extend(std::mem::take(&mut emitted[all[number].phase].ahead).into_iter().map(Item::Do));
        }
        let at = emitted[host].ahead_at;
        emitted[host].items.splice(at..at, steps);
    }
    Ok(emitted.into_iter().map(|e| e.items).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_gap_is_beside_all_places() {
        assert_eq!(largest_gap([].into_iter()), (0, BUFFER_BYTES));
        assert_eq!(largest_gap([(0, 100)].into_iter()), (100, BUFFER_BYTES));
        assert_eq!(largest_gap([(100, 50), (0, 40)].into_iter()), (150, BUFFER_BYTES));
        assert_eq!(largest_gap([(20_000, BUFFER_BYTES - 20_000), (0, 8)].into_iter()), (8, 20_000));
        // Places may touch or lie upon each other.
        assert_eq!(largest_gap([(0, BUFFER_BYTES / 2), (64, BUFFER_BYTES - 64)].into_iter()), (0, 0));
    }
}
