//! What a beat computes: values as expressions over what it found when it began.

use std::collections::HashMap;

/// Number of a value.
pub(super) type Id = u16;
/// More values end a recording.
const VALUES_MAX: usize = 4000;

/// How two values give a third.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(super) enum Join {
    And,
    Or,
    Xor,
    Add,
    Sub,
    Mul,
    // Shifts by 0 to 31.
    Lsl,
    Lsr,
    Asr,
    Ror,
    /// Carry out of the sum.
    Carry,
    /// Carry of the difference: no borrow.
    NoBorrow,
    SumOverflow,
    DifferenceOverflow,
    /// Whether the first is zero.
    IsZero,
}

impl Join {
    /// The third value. Shifts by more than 31 are not asked for.
    #[inline]
    pub fn of(self, a: u32, b: u32) -> u32 {
        match self {
            Join::And => a & b,
            Join::Or => a | b,
            Join::Xor => a ^ b,
            Join::Add => a.wrapping_add(b),
            Join::Sub => a.wrapping_sub(b),
            Join::Mul => a.wrapping_mul(b),
            Join::Lsl => a << (b & 31),
            Join::Lsr => a >> (b & 31),
            Join::Asr => (a as i32 >> (b & 31)) as u32,
            Join::Ror => a.rotate_right(b & 31),
            Join::Carry => u32::from(a.overflowing_add(b).1),
            Join::NoBorrow => u32::from(a >= b),
            Join::SumOverflow => u32::from((a as i32).overflowing_add(b as i32).1),
            Join::DifferenceOverflow => u32::from((a as i32).overflowing_sub(b as i32).1),
            Join::IsZero => u32::from(a == 0),
        }
    }
}

/// An expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Value {
    Constant(u32),
    /// What a place of the processor's state held ([`State::place`](super::State::place)).
    Place(u8),
    /// What a word of memory held.
    Word(u32),
    Join(Join, Id, Id),
    /// A status word: flags N, Z, C, V, and the other bits.
    Status([Id; 4], u32),
}

/// The values of a recording, each once, with what they were this time.
#[derive(Debug, Default)]
pub(super) struct Values {
    values: Vec<Value>,
    actual: Vec<u32>,
    numbers: HashMap<Value, Id>,
    known: HashMap<Id, u32>,
    /// Values that must be what they were, in the order in which that was found.
    pub guards: Vec<(Id, u32)>,
}

impl Values {
    pub fn get(&self, id: Id) -> Value {
        self.values[usize::from(id)]
    }

    /// What it was this time.
    pub fn actual(&self, id: Id) -> u32 {
        self.actual[usize::from(id)]
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_full(&self) -> bool {
        self.values.len() >= VALUES_MAX
    }

    fn add(&mut self, value: Value, actual: u32) -> Id {
        if let Some(&id) = self.numbers.get(&value) {
            return id;
        }
        // A recording ends soon after VALUES_MAX, far from the end of the numbers.
        let id = self.values.len() as Id;
        self.values.push(value);
        self.actual.push(actual);
        self.numbers.insert(value, id);
        id
    }

    pub fn constant(&mut self, value: u32) -> Id {
        self.add(Value::Constant(value), value)
    }

    pub fn place(&mut self, place: u8, actual: u32) -> Id {
        self.add(Value::Place(place), actual)
    }

    pub fn word(&mut self, address: u32, actual: u32) -> Id {
        self.add(Value::Word(address), actual)
    }

    /// The value of which more is known now, perhaps.
    pub fn resolve(&mut self, id: Id) -> Id {
        match self.known.get(&id) {
            Some(&value) => self.constant(value),
            None => id,
        }
    }

    /// What a value is whatever happens, if that is known.
    pub fn constant_of(&self, id: Id) -> Option<u32> {
        match self.get(id) {
            Value::Constant(value) => Some(value),
            _ => self.known.get(&id).copied(),
        }
    }

    /// From here on the value is what it was this time: the beat has to look.
    pub fn pin(&mut self, id: Id) -> u32 {
        let actual = self.actual(id);
        if self.constant_of(id).is_some() {
            return actual;
        }
        match self.get(id) {
            Value::Join(Join::IsZero, of, _) if actual == 1 => {
                self.pin(of);
            }
            Value::Join(Join::Add, of, by) if self.constant_of(by).is_some() => {
                self.pin(of);
            }
            _ => self.guards.push((id, actual)),
        }
        self.known.insert(id, actual);
        actual
    }

    pub fn join(&mut self, join: Join, a: Id, b: Id) -> Id {
        let (a, b) = (self.resolve(a), self.resolve(b));
        let (left, right) = (self.get(a), self.get(b));
        if let (Value::Constant(left), Value::Constant(right)) = (left, right) {
            return self.constant(join.of(left, right));
        }
        match (join, left, right) {
            (Join::And | Join::Or | Join::Xor | Join::Add | Join::Mul, Value::Constant(_), _) => self.join(join, b, a),
            (
                Join::Or | Join::Xor | Join::Add | Join::Sub | Join::Lsl | Join::Lsr | Join::Asr | Join::Ror,
                _,
                Value::Constant(0),
            )
            | (Join::And, _, Value::Constant(u32::MAX)) => a,
            (Join::And | Join::Mul, _, Value::Constant(0)) => b,
            (Join::And | Join::Or, ..) if a == b => a,
            (Join::Xor | Join::Sub, ..) if a == b => self.constant(0),
            (Join::Sub, _, Value::Constant(right)) => {
                let minus = self.constant(right.wrapping_neg());
                self.join(Join::Add, a, minus)
            }
            (Join::Add, Value::Join(Join::Add, of, by), Value::Constant(right))
                if let Value::Constant(by) = self.get(by) =>
            {
                let sum = self.constant(by.wrapping_add(right));
                self.join(Join::Add, of, sum)
            }
            (Join::Or, Value::Status(flags, bits), Value::Constant(right)) if right >> 28 == 0 => {
                self.status(flags, bits | right)
            }
            (Join::And, Value::Status(_, bits), Value::Constant(right)) if right >> 28 == 0 => {
                self.constant(bits & right)
            }
            (Join::And, Value::Status(flags, bits), Value::Constant(right)) if right >> 28 == 0xF => {
                self.status(flags, bits & right)
            }
            _ => {
                let actual = join.of(self.actual(a), self.actual(b));
                self.add(Value::Join(join, a, b), actual)
            }
        }
    }

    /// With a constant on the right.
    pub fn join_constant(&mut self, join: Join, a: Id, b: u32) -> Id {
        let b = self.constant(b);
        self.join(join, a, b)
    }

    /// A status word of flags N, Z, C, V and the other bits.
    pub fn status(&mut self, flags: [Id; 4], bits: u32) -> Id {
        let flags = flags.map(|flag| self.resolve(flag));
        let bits = bits & 0x0FFF_FFFF;
        let top = flags.iter().fold(0, |top, &flag| top << 1 | self.actual(flag));
        if flags.iter().all(|&flag| matches!(self.get(flag), Value::Constant(_))) {
            return self.constant(top << 28 | bits);
        }
        self.add(Value::Status(flags, bits), top << 28 | bits)
    }

    /// A bit of a value.
    pub fn bit(&mut self, id: Id, bit: u32) -> Id {
        let id = self.resolve(id);
        if let Value::Status(flags, bits) = self.get(id) {
            return match bit {
                28..=31 => self.resolve(flags[31 - bit as usize]),
                _ => self.constant(bits >> bit & 1),
            };
        }
        let shifted = self.join_constant(Join::Lsr, id, bit);
        if bit == 31 { shifted } else { self.join_constant(Join::And, shifted, 1) }
    }
}
