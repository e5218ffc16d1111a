//! Places and directions: chips, the six links of a chip, the hexagonal mesh.

use core::fmt;

/// Position of a chip in a machine: column `x`, row `y`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ChipXy {
    /// Column.
    pub x: u8,
    /// Row.
    pub y: u8,
}

impl ChipXy {
    /// The chip in column `x`, row `y`.
    pub const fn new(x: u8, y: u8) -> Self {
        Self { x, y }
    }
}

impl fmt::Display for ChipXy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.x, self.y)
    }
}

/// One of the six links of a chip, numbered as the hardware does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Link {
    /// To x + 1.
    E = 0,
    /// To x + 1, y + 1.
    NE = 1,
    /// To y + 1.
    N = 2,
    /// To x - 1.
    W = 3,
    /// To x - 1, y - 1.
    SW = 4,
    /// To y - 1.
    S = 5,
}

impl Link {
    /// All six, by number.
    pub const ALL: [Link; 6] = [Link::E, Link::NE, Link::N, Link::W, Link::SW, Link::S];

    /// Number in the hardware, 0 to 5.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The link with a number.
    pub const fn from_index(index: usize) -> Option<Link> {
        if index < 6 { Some(Self::ALL[index]) } else { None }
    }

    /// Step in x.
    pub const fn dx(self) -> i32 {
        [1, 1, 0, -1, -1, 0][self as usize]
    }

    /// Step in y.
    pub const fn dy(self) -> i32 {
        [0, 1, 1, 0, -1, -1][self as usize]
    }

    /// The link that leads back: the other end of this one.
    pub const fn opposite(self) -> Link {
        Self::ALL[(self as usize + 3) % 6]
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(["E", "NE", "N", "W", "SW", "S"][self.index()])
    }
}

/// Hops between two places of an unbounded hexagonal mesh that differ by `dx`, `dy`.
pub const fn mesh_distance(dx: i32, dy: i32) -> u32 {
    if (dx >= 0) == (dy >= 0) {
        let (a, b) = (dx.unsigned_abs(), dy.unsigned_abs());
        if a > b { a } else { b }
    } else {
        dx.unsigned_abs() + dy.unsigned_abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_pairs() {
        for link in Link::ALL {
            assert_eq!(link.opposite().opposite(), link);
            assert_eq!((link.dx() + link.opposite().dx(), link.dy() + link.opposite().dy()), (0, 0));
            assert_eq!(Link::from_index(link.index()), Some(link));
            assert_eq!(mesh_distance(link.dx(), link.dy()), 1);
        }
        assert_eq!(Link::from_index(6), None);
        assert_eq!(mesh_distance(3, -2), 5);
        assert_eq!(mesh_distance(3, 2), 3);
        assert_eq!(mesh_distance(0, 0), 0);
    }
}
