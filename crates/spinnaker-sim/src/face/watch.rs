//! Looks into the monitors' variables and tells what has changed, a line for each kind of change.

use std::collections::BTreeMap;

use spinnaker_machine::ChipXy;
use spinnaker_wire::sv::{self, NETINIT_DONE, SystemVariables};
use spinnaker_wire::vcpu::{self, CoreState, Vcpu};

/// Cores in error that get a line of their own in one look.
const ERRORS_MAX: usize = 8;
/// Cores of a chip.
const CORES: usize = 18;

/// What a chip was doing at the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct View {
    /// `None`: no monitor runs.
    phase: Option<u8>,
    states: [CoreState; CORES],
}

const BLANK: View = View { phase: None, states: [CoreState::Dead; CORES] };

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Watch {
    seen: BTreeMap<ChipXy, View>,
}

/// A change that many cores may share.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Change {
    from: u8,
    to: u8,
    app: u8,
    name: String,
}

impl Watch {
    /// Forgets chips: those that have been switched.
    pub fn forget(&mut self, switched: impl Fn(ChipXy) -> bool) {
        self.seen.retain(|&chip, _| !switched(chip));
    }

    /// Looks at all chips by `peek` and returns what has changed.
    pub fn look(
        &mut self,
        chips: &[ChipXy],
        mut peek: impl FnMut(ChipXy, u32, usize) -> Option<Vec<u8>>,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        let mut phases: BTreeMap<u8, Vec<ChipXy>> = BTreeMap::new();
        let mut changes: BTreeMap<Change, Vec<(ChipXy, usize)>> = BTreeMap::new();
        let mut errors = Vec::new();
        for &chip in chips {
            let before = self.seen.get(&chip).copied().unwrap_or(BLANK);
            let Some(variables) = peek(chip, sv::ADDRESS, sv::BYTES) else { continue };
            let Ok(variables) = SystemVariables::read(&variables) else { continue };
            if variables.sw_ver.get() >> 16 == 0 {
                continue;
            }
            let mut view = View { phase: Some(variables.boot.netinit_phase), ..before };
            if view.phase != before.phase {
                phases.entry(variables.boot.netinit_phase).or_default().push(chip);
            }
            let Some(blocks) = peek(chip, vcpu::BASE_ADDRESS, CORES * vcpu::BYTES) else { continue };
            for (core, bytes) in blocks.chunks_exact(vcpu::BYTES).enumerate().take(CORES) {
                let Ok(block) = Vcpu::read(bytes) else { continue };
                let (from, to) = (before.states[core], block.state());
                view.states[core] = to;
                if from == to {
                    continue;
                }
                if to == CoreState::RunTimeError && errors.len() < ERRORS_MAX {
                    errors.push(format!("core {},{},{core}: {block}", chip.x, chip.y));
                    continue;
                }
                let change =
                    Change { from: from.raw(), to: to.raw(), app: block.app_id, name: block.name().to_string() };
                changes.entry(change).or_default().push((chip, core));
            }
            self.seen.insert(chip, view);
        }
        for (phase, chips) in &phases {
            let what = if *phase == NETINIT_DONE {
                "network is up".to_string()
            } else {
                format!("network phase {phase} ({})", phase_name(*phase))
            };
            lines.push(format!("{}: {what}", some_chips(chips)));
        }
        for (change, cores) in &changes {
            let (from, to) = (CoreState::from_raw(change.from), CoreState::from_raw(change.to));
            lines.push(format!("{}: {from} -> {to} (app {} {:?})", some_cores(cores), change.app, change.name));
        }
        lines.append(&mut errors);
        lines
    }
}

/// Names of the phases of network set-up (SC&MP 4.0.0).
fn phase_name(phase: u8) -> &'static str {
    match phase {
        0 => "addresses",
        1 => "dimensions",
        2 => "board information, link test",
        3 => "routes to Ethernet chips",
        4 => "routes back",
        5 => "routes",
        6 => "Ethernet address",
        _ => "?",
    }
}

fn some_chips(chips: &[ChipXy]) -> String {
    match chips {
        [chip] => format!("chip {},{}", chip.x, chip.y),
        [first, .., last] => {
            format!("{} chips ({},{} to {},{})", chips.len(), first.x, first.y, last.x, last.y)
        }
        [] => "no chip".to_string(),
    }
}

fn some_cores(cores: &[(ChipXy, usize)]) -> String {
    match cores {
        [(chip, core)] => format!("core {},{},{core}", chip.x, chip.y),
        [(chip, core), ..] => format!("{} cores ({},{},{core} and on)", cores.len(), chip.x, chip.y),
        [] => "no core".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// System RAM of one chip, as far as a watch looks.
    struct Ram {
        variables: [u8; sv::BYTES],
        blocks: [u8; CORES * vcpu::BYTES],
    }

    fn look(watch: &mut Watch, ram: &Ram) -> Vec<String> {
        watch.look(&[ChipXy::new(1, 2)], |_, address, length| {
            let bytes = if address == sv::ADDRESS { &ram.variables[..] } else { &ram.blocks[..] };
            Some(bytes[..length].to_vec())
        })
    }

    #[test]
    fn changes_are_told_once_and_together() {
        let mut ram = Ram { variables: [0; sv::BYTES], blocks: [0; CORES * vcpu::BYTES] };
        let mut watch = Watch::default();
        assert!(look(&mut watch, &ram).is_empty(), "a blank chip");
        ram.variables[0xFE] = 4;
        for core in 1..18 {
            ram.blocks[core * vcpu::BYTES + 0x2E] = 15;
            ram.blocks[core * vcpu::BYTES + 0x48..][..4].copy_from_slice(b"sark");
        }
        assert_eq!(
            look(&mut watch, &ram),
            ["chip 1,2: network phase 0 (addresses)", "17 cores (1,2,1 and on): DEAD -> IDLE (app 0 \"sark\")"]
        );
        assert!(look(&mut watch, &ram).is_empty());
        ram.variables[0x2D] = NETINIT_DONE;
        ram.blocks[3 * vcpu::BYTES + 0x2C..][..3].copy_from_slice(&[5, 4, 2]);
        let lines = look(&mut watch, &ram);
        assert_eq!(lines[0], "chip 1,2: network is up");
        assert!(lines[1].starts_with("core 1,2,3: RTE \"sark\" app 0: DABT: data abort"), "{}", lines[1]);
        watch.forget(|_| false);
        assert!(look(&mut watch, &ram).is_empty());
        watch.forget(|chip| chip == ChipXy::new(1, 2));
        assert_eq!(look(&mut watch, &ram).len(), 3);
    }
}
