//! Tiles: a picture's result cut into boxes of rows, columns and channels, one for each core, so that the largest takes least.

/// Cells of a box: rows, columns, panels of channels.
pub type Cells = [u32; 3];

/// A box of a result, in cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// First cell.
    pub at: Cells,
    /// Number of them.
    pub size: Cells,
}

/// Work of the search at most: cells times ways to cut them.
const SEARCH_MAX: u64 = 1 << 14;

/// Cuts a result of `size` cells into at most `most` boxes, so that the one that takes longest takes as little as cuts through the
/// whole of a box allow: those cycles, and the boxes. `cycles` tells what a box takes, `None` if it does not fit a core. `None`:
/// there is no such way, or the result is too large to search.
pub fn cut(size: Cells, most: u32, cycles: impl Fn(Cells) -> Option<u64>) -> Option<(u64, Vec<Tile>)> {
    let cells = size.iter().try_fold(1u64, |all, &n| all.checked_mul(n.into()))?;
    let ways = size.iter().map(|&n| u64::from(n)).sum::<u64>();
    if cells == 0 || cells.saturating_mul(ways) > SEARCH_MAX {
        return None;
    }
    let costs: Vec<Option<u64>> = sizes(size).map(&cycles).collect();
    let mut limits: Vec<u64> = costs.iter().flatten().copied().collect();
    limits.sort_unstable();
    limits.dedup();
    let enough = |limit: u64| Cuts::within(size, &costs, limit).count(size) <= most;
    let limit = *limits.get(limits.partition_point(|&limit| !enough(limit)))?;
    let mut tiles = Vec::new();
    Cuts::within(size, &costs, limit).place(Tile { at: [0; 3], size }, &mut tiles);
    Some((limit, tiles))
}

/// All sizes of boxes within a box, smaller ones before larger.
fn sizes(size: Cells) -> impl Iterator<Item = Cells> {
    (1..=size[0])
        .flat_map(move |rows| (1..=size[1]).flat_map(move |cols| (1..=size[2]).map(move |panels| [rows, cols, panels])))
}

/// For boxes of each size: how many it takes where none may exceed a limit, and the first cut (axis, cells before it).
struct Cuts {
    size: Cells,
    best: Vec<(u32, Option<(usize, u32)>)>,
}

/// More boxes than there are.
const NEVER: u32 = u32::MAX / 2;

impl Cuts {
    fn within(size: Cells, costs: &[Option<u64>], limit: u64) -> Cuts {
        let mut cuts = Cuts { size, best: Vec::with_capacity(costs.len()) };
        for (own, cost) in sizes(size).zip(costs) {
            let mut best = if cost.is_some_and(|c| c <= limit) { (1, None) } else { (NEVER, None) };
            for axis in 0..if best.0 == 1 { 0 } else { 3 } {
                for first in 1..=own[axis] / 2 {
                    let [a, b] = parts(own, axis, first);
                    let count = (cuts.count(a) + cuts.count(b)).min(NEVER);
                    if count < best.0 {
                        best = (count, Some((axis, first)));
                    }
                }
            }
            cuts.best.push(best);
        }
        cuts
    }

    fn of(&self, own: Cells) -> (u32, Option<(usize, u32)>) {
        let index = ((own[0] - 1) * self.size[1] + own[1] - 1) * self.size[2] + own[2] - 1;
        self.best[index as usize]
    }

    fn count(&self, own: Cells) -> u32 {
        self.of(own).0
    }

    fn place(&self, tile: Tile, tiles: &mut Vec<Tile>) {
        let Some((axis, first)) = self.of(tile.size).1 else { return tiles.push(tile) };
        let [a, b] = parts(tile.size, axis, first);
        let mut behind = tile.at;
        behind[axis] += first;
        self.place(Tile { at: tile.at, size: a }, tiles);
        self.place(Tile { at: behind, size: b }, tiles);
    }
}

/// The two boxes that a cut makes.
fn parts(own: Cells, axis: usize, first: u32) -> [Cells; 2] {
    let (mut a, mut b) = (own, own);
    a[axis] = first;
    b[axis] -= first;
    [a, b]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_everything_once_and_the_largest_is_small() {
        // What 100 and 98 cells come to on 17 cores: no part can have less than the quotient rounded up.
        for (size, most, largest) in [([5, 5, 4], 17, 6), ([14, 7, 1], 17, 6), ([3, 3, 1], 17, 1), ([7, 1, 1], 3, 3)] {
            let (cycles, tiles) = cut(size, most, |s| Some(u64::from(s.iter().product::<u32>()))).unwrap();
            assert_eq!(cycles, largest, "{size:?}");
            assert!(tiles.len() as u32 <= most);
            let mut covered = vec![0; size.iter().product::<u32>() as usize];
            for tile in tiles {
                for inside in sizes(tile.size) {
                    let [row, col, panel] = [0, 1, 2].map(|axis| tile.at[axis] + inside[axis] - 1);
                    covered[((row * size[1] + col) * size[2] + panel) as usize] += 1;
                }
            }
            assert!(covered.iter().all(|&times| times == 1), "{size:?}");
        }
    }

    #[test]
    fn what_fits_no_core_or_is_too_large_has_no_tiles() {
        assert_eq!(cut([4, 4, 1], 17, |_| None), None);
        assert_eq!(cut([2, 2, 1], 3, |s| (s == [1, 1, 1]).then_some(1)), None);
        assert_eq!(cut([224, 224, 16], 17, |_| Some(1)), None);
    }
}
