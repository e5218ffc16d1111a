//! The steps of a beat: what is computed and looked at, in order.

use super::values::{Id, Join, Value, Values};
use crate::arm968::bus::Bus;
use crate::arm968::state::{State, TCM_END, load_word};

/// Values of a beat.
pub(super) const SLOTS: usize = 512;
/// Values that one beat leaves to the next.
const CARRIED_MAX: usize = 32;

/// What a step does with `values[a]` and the operand `values[b] + number`, where value 0 is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// `values[a]` must be `number`.
    Guard,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    act: Act,
    to: u16,
    a: u16,
    b: u16,
    number: u32,
}

/// What is written at the end: `values[slot] + number`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Output {
    slot: u16,
    number: u32,
}

/// The values of a beat, while it is gone through.
pub(super) struct Turn {
    pub values: [u32; SLOTS],
}

impl Turn {
    pub fn get(&self, output: Output) -> u32 {
        self.values[usize::from(output.slot)].wrapping_add(output.number)
    }

    /// The first beat, from what the core has. False if a condition does not hold.
    pub fn first<B: Bus>(&mut self, steps: &[Step], state: &State, bus: &B) -> bool {
        steps.iter().all(|step| {
            let value = match step.act {
                Act::Place => state.place(step.number as u8),
                Act::Data => load_word(&state.dtcm, step.number),
                Act::Bus => bus.memory_word(step.number),
                _ => return self.go(step),
            };
            self.values[usize::from(step.to)] = value;
            true
        })
    }

    /// The next beat, from what the last one leaves. False if a condition does not hold.
    pub fn next(&mut self, carried: &[(u16, Output)], again: &[Step]) -> bool {
        let mut found = [0; CARRIED_MAX];
        for (value, &(_, output)) in found.iter_mut().zip(carried) {
            *value = self.get(output);
        }
        for (value, &(slot, _)) in found.iter().zip(carried) {
            self.values[usize::from(slot)] = *value;
        }
        again.iter().all(|step| self.go(step))
    }

    /// A step that looks at nothing but values.
    fn go(&mut self, step: &Step) -> bool {
        let (a, b) = (self.values[usize::from(step.a)], self.values[usize::from(step.b)]);
        self.values[usize::from(step.to)] = match step.act {
            Act::Join(join) => join.of(a, b.wrapping_add(step.number)),
            Act::Constant => step.number,
            Act::Insert => a | b << (step.number & 31),
            Act::Guard => return a == step.number,
            Act::Place | Act::Data | Act::Bus => return true,
        };
        true
    }
}

/// What a beat's steps come to: all of them, what one leaves to the next, and the steps that depend on it.
type Turns = (Box<[Step]>, Box<[(u16, Output)]>, Box<[Step]>);

/// Brings values to steps: those that conditions and outputs need, each when it is needed first.
pub(super) struct Lowering<'a> {
    values: &'a Values,
    steps: Vec<Step>,
    slots: Vec<Option<u16>>,
    /// Values that conditions before have made known.
    known: Vec<Option<u32>>,
    /// Values that are read, with their slots.
    inputs: Vec<(Id, u16)>,
    used: usize,
}

impl<'a> Lowering<'a> {
    pub fn new(values: &'a Values) -> Self {
        let count = values.len();
        let (slots, known) = (vec![None; count], vec![None; count]);
        Self { values, steps: Vec::new(), slots, known, inputs: Vec::new(), used: 1 }
    }

    fn push(&mut self, act: Act, a: u16, b: u16, number: u32) -> Option<u16> {
        let to = u16::try_from(self.used).ok().filter(|&to| usize::from(to) < SLOTS)?;
        self.used += 1;
        self.steps.push(Step { act, to, a, b, number });
        Some(to)
    }

    /// A value as a number if it is one by now.
    fn number(&self, id: Id) -> Option<u32> {
        match self.values.get(id) {
            Value::Constant(value) => Some(value),
            _ => self.known[usize::from(id)],
        }
    }

    /// Where a value is found after the steps so far and those that it needs. Nothing if there are too many.
    pub fn output(&mut self, id: Id) -> Option<Output> {
        match self.number(id) {
            Some(number) => Some(Output { slot: 0, number }),
            None => Some(Output { slot: self.slot(id)?, number: 0 }),
        }
    }

    fn slot(&mut self, id: Id) -> Option<u16> {
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

    fn input(&mut self, id: Id, act: Act, number: u32) -> Option<u16> {
        let slot = self.push(act, 0, 0, number)?;
        self.inputs.push((id, slot));
        Some(slot)
    }

    /// A value must be what it was. Nothing if there are too many.
    pub fn guard(&mut self, id: Id, value: u32) -> Option<()> {
        if self.number(id).is_some() {
            return Some(());
        }
        let slot = self.slot(id)?;
        self.steps.push(Step { act: Act::Guard, to: 0, a: slot, b: 0, number: value });
        self.known[usize::from(id)] = Some(value);
        Some(())
    }

    /// The steps, with what one beat leaves to the next: `after` gives the value that a place or word of what was read has in
    /// the end, for which there is an output. Nothing if there is too much of it.
    pub fn turns(mut self, after: impl Fn(Value) -> Id) -> Option<Turns> {
        let mut carried = Vec::new();
        for (id, slot) in self.inputs.clone() {
            let left = after(self.values.get(id));
            let same = left == id || self.number(id).is_some() && self.number(id) == self.number(left);
            if !same {
                carried.push((slot, self.output(left)?));
            }
        }
        if carried.len() > CARRIED_MAX {
            return None;
        }
        let mut varies = [false; SLOTS];
        carried.iter().for_each(|&(slot, _)| varies[usize::from(slot)] = true);
        let mut again = Vec::new();
        for step in &self.steps {
            if varies[usize::from(step.a)] || varies[usize::from(step.b)] {
                again.push(*step);
                varies[usize::from(step.to)] |= step.act != Act::Guard;
            }
        }
        Some((self.steps.into(), carried.into(), again.into()))
    }
}
