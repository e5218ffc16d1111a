//! The steps of a beat: what is computed and looked at, in order.

use super::values::{Id, Join, Value, Values};
use crate::arm968::bus::Bus;
use crate::arm968::state::{State, TCM_END, load_word};

/// The values of a beat, by slot.
pub(super) type Slots = [u32; 256];

/// Values that one beat leaves to the next.
const CARRIED_MAX: usize = 32;

/// What a step does with `values[a]` and the operand `values[b] + number`, where value 0 is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Act {
    Join(Join),
    /// The operand.
    Constant,
    /// Place `number`.
    Place,
    /// Word of data memory at `number`.
    Data,
    /// Word on the bus at `number`.
    Bus,
    /// The flag `values[b]` put into `values[a]` at bit `number`.
    Insert,
    /// `values[a]` must be [`Step::wanted`].
    Guard,
    /// What a join gives must be [`Step::wanted`].
    JoinGuard(Join),
    /// Word of data memory at `number` must be [`Step::wanted`].
    DataGuard,
    /// Word on the bus at `number` must be [`Step::wanted`].
    BusGuard,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Step {
    act: Act,
    to: u8,
    a: u8,
    b: u8,
    number: u32,
    wanted: u32,
}

/// What is written at the end: `values[slot] + number`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Output {
    slot: u8,
    number: u32,
}

impl Output {
    pub fn of(self, values: &Slots) -> u32 {
        values[usize::from(self.slot)].wrapping_add(self.number)
    }
}

/// What a beat computes.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Turns {
    steps: Box<[Step]>,
    /// What the next beat finds where this one has left something else: by its slot.
    carried: Box<[(u8, Output)]>,
    /// The steps that depend on these.
    again: Box<[Step]>,
}

impl Turns {
    /// The values of the first beat, from what the core has. False if a condition does not hold.
    pub fn first<B: Bus>(&self, values: &mut Slots, state: &State, bus: &B) -> bool {
        values[0] = 0;
        self.steps.iter().all(|step| {
            let found = match step.act {
                Act::Place => state.place(step.number as u8),
                Act::Data => load_word(&state.dtcm, step.number),
                Act::Bus => bus.memory_word(step.number),
                Act::DataGuard => return load_word(&state.dtcm, step.number) == step.wanted,
                Act::BusGuard => return bus.memory_word(step.number) == step.wanted,
                _ => return step.go(values),
            };
            values[usize::from(step.to)] = found;
            true
        })
    }

    /// The values of the next beat, from what the last one leaves. False if a condition does not hold.
    pub fn next(&self, values: &mut Slots) -> bool {
        let mut found = [0; CARRIED_MAX];
        for (found, &(_, output)) in found.iter_mut().zip(&self.carried) {
            *found = output.of(values);
        }
        for (found, &(slot, _)) in found.iter().zip(&self.carried) {
            values[usize::from(slot)] = *found;
        }
        self.again.iter().all(|step| step.go(values))
    }
}

impl Step {
    /// A step that looks at nothing but values. False if it is a condition that does not hold.
    fn go(&self, values: &mut Slots) -> bool {
        let (a, b) = (values[usize::from(self.a)], values[usize::from(self.b)]);
        values[usize::from(self.to)] = match self.act {
            Act::Join(join) => join.of(a, b.wrapping_add(self.number)),
            Act::Constant => self.number,
            Act::Insert => a | b << (self.number & 31),
            Act::Guard => return a == self.wanted,
            Act::JoinGuard(join) => return join.of(a, b.wrapping_add(self.number)) == self.wanted,
            Act::Place | Act::Data | Act::Bus | Act::DataGuard | Act::BusGuard => return true,
        };
        true
    }
}

/// Brings values to steps: those that conditions and outputs need, each when it is needed first.
pub(super) struct Lowering<'a, F> {
    values: &'a Values,
    /// The value that a place or word of what was read has in the end.
    after: F,
    steps: Vec<Step>,
    slots: Vec<Option<u8>>,
    /// Values that conditions before have made known.
    known: Vec<Option<u32>>,
    /// Values that are read, with their slots.
    inputs: Vec<(Id, u8)>,
    used: usize,
}

impl<'a, F: Fn(Value) -> Id> Lowering<'a, F> {
    /// `after` gives the value that a place or word of what was read has in the end.
    pub fn new(values: &'a Values, after: F) -> Self {
        let count = values.len();
        let (slots, known) = (vec![None; count], vec![None; count]);
        Self { values, after, steps: Vec::new(), slots, known, inputs: Vec::new(), used: 1 }
    }

    /// Whether a value of what was read, which is `value`, is left as it is found.
    fn stays(&mut self, id: Id, value: Option<u32>) -> bool {
        let left = (self.after)(self.values.get(id));
        left == id || value.is_some() && self.number(left) == value
    }

    fn push(&mut self, act: Act, a: u8, b: u8, number: u32) -> Option<u8> {
        let to = u8::try_from(self.used).ok()?;
        self.used += 1;
        self.steps.push(Step { act, to, a, b, number, wanted: 0 });
        Some(to)
    }

    /// A value as a number if it is one by now.
    fn number(&mut self, id: Id) -> Option<u32> {
        if self.known[usize::from(id)].is_none() && self.slots[usize::from(id)].is_none() {
            self.known[usize::from(id)] = match self.values.get(id) {
                Value::Constant(value) => Some(value),
                Value::Join(join, a, b) => self.number(a).and_then(|a| Some(join.of(a, self.number(b)?))),
                Value::Place(_) | Value::Word(_) | Value::Status(..) => None,
            };
        }
        self.known[usize::from(id)]
    }

    /// Where a value is found after the steps so far and those that it needs. Nothing if there are too many.
    pub fn output(&mut self, id: Id) -> Option<Output> {
        match self.number(id) {
            Some(number) => Some(Output { slot: 0, number }),
            None => Some(Output { slot: self.slot(id)?, number: 0 }),
        }
    }

    fn slot(&mut self, id: Id) -> Option<u8> {
        if let Some(slot) = self.slots[usize::from(id)] {
            return Some(slot);
        }
        let slot = match self.values.get(id) {
            _ if let Some(number) = self.number(id) => match number {
                0 => 0,
                _ => self.push(Act::Constant, 0, 0, number)?,
            },
            Value::Constant(number) => self.push(Act::Constant, 0, 0, number)?,
            Value::Place(place) => self.input(id, Act::Place, u32::from(place))?,
            Value::Word(address) if address < TCM_END => self.input(id, Act::Data, address)?,
            Value::Word(address) => self.input(id, Act::Bus, address)?,
            Value::Join(join, a, b) => {
                let a = self.slot(a)?;
                let b = self.output(b)?;
                self.push(Act::Join(join), a, b.slot, b.number)?
            }
            Value::Status(flags, bits) => {
                let mut word = self.push(Act::Constant, 0, 0, bits)?;
                for (bit, flag) in (28..32).rev().zip(flags) {
                    let flag = self.slot(flag)?;
                    word = self.push(Act::Insert, word, flag, bit)?;
                }
                word
            }
        };
        self.slots[usize::from(id)] = Some(slot);
        Some(slot)
    }

    fn input(&mut self, id: Id, act: Act, number: u32) -> Option<u8> {
        let slot = self.push(act, 0, 0, number)?;
        self.inputs.push((id, slot));
        Some(slot)
    }

    /// A value must be what it was. Nothing if there are too many.
    pub fn guard(&mut self, id: Id, value: u32) -> Option<()> {
        if self.number(id).is_some() {
            return Some(());
        }
        match self.values.get(id) {
            Value::Word(address) if self.slots[usize::from(id)].is_none() && self.stays(id, Some(value)) => {
                let act = if address < TCM_END { Act::DataGuard } else { Act::BusGuard };
                self.steps.push(Step { act, to: 0, a: 0, b: 0, number: address, wanted: value });
            }
            // As the value is known from here on, nobody asks for its slot.
            Value::Join(join, a, b) if self.slots[usize::from(id)].is_none() => {
                let a = self.slot(a)?;
                let b = self.output(b)?;
                let (act, number) = (Act::JoinGuard(join), b.number);
                self.steps.push(Step { act, to: 0, a, b: b.slot, number, wanted: value });
            }
            _ => {
                let slot = self.slot(id)?;
                self.steps.push(Step { act: Act::Guard, to: 0, a: slot, b: 0, number: 0, wanted: value });
            }
        }
        self.known[usize::from(id)] = Some(value);
        Some(())
    }

    /// The steps, with what one beat leaves to the next, for all of which there is an output. Nothing if there is too much of it.
    pub fn turns(mut self) -> Option<Turns> {
        let mut carried = Vec::new();
        for (id, slot) in self.inputs.clone() {
            let value = self.number(id);
            if !self.stays(id, value) {
                let left = (self.after)(self.values.get(id));
                carried.push((slot, self.output(left)?));
            }
        }
        if carried.len() > CARRIED_MAX {
            return None;
        }
        let mut varies = [false; 256];
        carried.iter().for_each(|&(slot, _)| varies[usize::from(slot)] = true);
        let mut again = Vec::new();
        for step in &self.steps {
            if varies[usize::from(step.a)] || varies[usize::from(step.b)] {
                again.push(*step);
                varies[usize::from(step.to)] |= step.to != 0;
            }
        }
        Some(Turns { steps: self.steps.into(), carried: carried.into(), again: again.into() })
    }
}
