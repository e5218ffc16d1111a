//! The tree of replicas: the way of gradient sums up and of new weights down.
//!
//! A chip receives from all its children at once, and a word passes as many chips as the tree is deep. So the root is
//! central, every chip hangs as high as it can, and children are dealt to possible parents so evenly that no other choice
//! at that depth has fewer on the fullest.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use spinnaker_machine::{ChipXy, Link, Machine};

use super::RouteError;
use super::keys::{CHIPS_MAX, KeyError};

/// Most children of a chip: its links.
pub const CHILDREN_MAX: usize = 6;
/// Roots that are tried at most; on larger machines evenly spaced ones.
const ROOTS_TRIED_MAX: usize = 256;

/// A spanning tree over the chips that a network uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaTree {
    chips: Vec<ChipXy>,
    index: BTreeMap<ChipXy, usize>,
    parent: Vec<Option<ChipXy>>,
    children: Vec<Vec<ChipXy>>,
    level: Vec<usize>,
    root: ChipXy,
    left_out: Vec<ChipXy>,
}

/// Used chips of one connected part of the machine, as numbers in ascending order of chips.
struct Mesh {
    chips: Vec<ChipXy>,
    /// Working cores, by chip.
    cores: Vec<usize>,
    /// Chips over one link, ascending.
    near: Vec<Vec<usize>>,
    /// Chips over several links with only unused chips in between; empty where single links join all chips.
    far: Vec<Vec<Far>>,
}

/// A path through unused chips.
#[derive(Debug, Clone, Copy)]
struct Far {
    to: usize,
    /// Length of the path.
    links: usize,
    /// The link that it starts with, by number.
    exit: usize,
}

/// Levels of the chips when one is the root, and the parents that are settled: those over several links.
struct Levels {
    level: Vec<usize>,
    far_parent: Vec<Option<usize>>,
}

impl ReplicaTree {
    /// A tree over `chips` (working chips of `machine`, ascending).
    ///
    /// An edge of the tree is a link between neighbours; only where used chips are joined through unused ones alone, one
    /// edge to each such group is a path over several links. The root is `root_hint` if that is in the tree; otherwise a
    /// chip from which the tree is least deep, of these one with the most cores. Chips that do not hang together
    /// with most of the others are in [`ReplicaTree::left_out`]. Same arguments, same tree.
    ///
    /// # Errors
    /// [`RouteError::NoChips`] for none, [`RouteError::NotAscending`], [`RouteError::NoChip`] for a chip that the machine
    /// does not have, [`RouteError::Key`] for more chips than keys tell apart.
    ///
    /// ```
    /// use spidnn_compiler::route::ReplicaTree;
    /// use spinnaker_machine::{ChipXy, Machine};
    /// let machine = Machine::spin5();
    /// let chips: Vec<ChipXy> = machine.chips.keys().copied().collect();
    /// let tree = ReplicaTree::build(&machine, &chips, None)?;
    /// assert_eq!((tree.chips().len(), tree.depth()), (48, 4));
    /// assert_eq!(tree.parent(tree.root()), None);
    /// # Ok::<(), spidnn_compiler::route::RouteError>(())
    /// ```
    pub fn build(machine: &Machine, chips: &[ChipXy], root_hint: Option<ChipXy>) -> Result<ReplicaTree, RouteError> {
        if chips.is_empty() {
            return Err(RouteError::NoChips);
        }
        if let Some(pair) = chips.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(RouteError::NotAscending(pair[1]));
        }
        if let Some(&chip) = chips.iter().find(|chip| !machine.chips.contains_key(chip)) {
            return Err(RouteError::NoChip(chip));
        }
        let (kept, left_out) = largest_part(machine, chips);
        if kept.len() > CHIPS_MAX {
            return Err(KeyError::Chip(kept.len() - 1).into());
        }
        let mesh = Mesh::new(machine, kept);
        let hinted = root_hint.and_then(|hint| mesh.chips.binary_search(&hint).ok());
        let (root, levels) = match hinted {
            Some(root) => (root, mesh.levels(root)),
            None => mesh.central(),
        };
        let parent = mesh.parents(&levels);
        let index: BTreeMap<ChipXy, usize> = mesh.chips.iter().enumerate().map(|(at, &chip)| (chip, at)).collect();
        let mut children = vec![Vec::new(); mesh.chips.len()];
        for (child, parent) in parent.iter().enumerate() {
            if let Some(parent) = *parent {
                children[parent].push(mesh.chips[child]);
            }
        }
        Ok(ReplicaTree {
            root: mesh.chips[root],
            parent: parent.iter().map(|parent| parent.map(|parent| mesh.chips[parent])).collect(),
            children,
            level: levels.level,
            index,
            chips: mesh.chips,
            left_out,
        })
    }

    /// Chips of the tree, ascending. A chip's place here is its number in multicast keys.
    pub fn chips(&self) -> &[ChipXy] {
        &self.chips
    }

    /// Number of a chip, `None` if it is not in the tree.
    pub fn chip_index(&self, chip: ChipXy) -> Option<usize> {
        self.index.get(&chip).copied()
    }

    /// The chip that sums end at and broadcasts start from.
    pub fn root(&self) -> ChipXy {
        self.root
    }

    /// The next chip towards the root; `None` for the root and for chips outside the tree.
    pub fn parent(&self, chip: ChipXy) -> Option<ChipXy> {
        self.parent[self.chip_index(chip)?]
    }

    /// Chips whose parent this one is, ascending; none for chips outside the tree.
    pub fn children(&self, chip: ChipXy) -> &[ChipXy] {
        self.chip_index(chip).map_or(&[], |index| &self.children[index])
    }

    /// Steps from a chip to the root; `None` for chips outside the tree.
    pub fn level(&self, chip: ChipXy) -> Option<usize> {
        Some(self.level[self.chip_index(chip)?])
    }

    /// Steps from the farthest chip to the root.
    pub fn depth(&self) -> usize {
        self.level.iter().copied().max().unwrap_or(0)
    }

    /// Children of the chip that has the most.
    pub fn children_max(&self) -> usize {
        self.children.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Chips that were to be used but do not hang together with the chips of the tree, ascending.
    pub fn left_out(&self) -> &[ChipXy] {
        &self.left_out
    }
}

/// Chips of the connected part of the machine with the most of them (of equals, the one with the lowest chip), and the rest.
fn largest_part(machine: &Machine, chips: &[ChipXy]) -> (Vec<ChipXy>, Vec<ChipXy>) {
    let mut part_of: BTreeMap<ChipXy, usize> = BTreeMap::new();
    let mut sizes: Vec<usize> = Vec::new();
    for &chip in chips {
        let part = match part_of.get(&chip) {
            Some(&part) => part,
            None => {
                let part = sizes.len();
                sizes.push(0);
                part_of.insert(chip, part);
                let mut stack = vec![chip];
                while let Some(at) = stack.pop() {
                    for to in neighbours(machine, at) {
                        if part_of.insert(to, part).is_none() {
                            stack.push(to);
                        }
                    }
                }
                part
            }
        };
        sizes[part] += 1;
    }
    let largest = (0..sizes.len()).rev().max_by_key(|&part| sizes[part]).unwrap_or(0);
    chips.iter().partition(|chip| part_of.get(chip) == Some(&largest))
}

fn neighbours(machine: &Machine, chip: ChipXy) -> impl Iterator<Item = ChipXy> {
    Link::ALL.into_iter().filter_map(move |link| machine.neighbour(chip, link))
}

impl Mesh {
    fn new(machine: &Machine, chips: Vec<ChipXy>) -> Mesh {
        let number = |chip: ChipXy| chips.binary_search(&chip).ok();
        let near: Vec<Vec<usize>> = chips
            .iter()
            .map(|&chip| neighbours(machine, chip).filter_map(number).collect::<BTreeSet<_>>().into_iter().collect())
            .collect();
        let cores = chips.iter().map(|chip| machine.chips.get(chip).map_or(0, |chip| chip.cores.len())).collect();
        let mut mesh = Mesh { far: vec![Vec::new(); chips.len()], chips, cores, near };
        if !mesh.hangs_together() {
            mesh.far = mesh.chips.iter().map(|&chip| mesh.paths(machine, chip)).collect();
        }
        mesh
    }

    /// Whether single links join all chips.
    fn hangs_together(&self) -> bool {
        let mut seen = BTreeSet::from([0]);
        let mut stack = vec![0];
        while let Some(at) = stack.pop() {
            stack.extend(self.near[at].iter().copied().filter(|&to| seen.insert(to)));
        }
        seen.len() == self.chips.len()
    }

    /// The shortest path through unused chips to each chip that can be reached so, for each first link.
    fn paths(&self, machine: &Machine, from: ChipXy) -> Vec<Far> {
        let number = |chip: ChipXy| self.chips.binary_search(&chip).ok();
        let mut paths = Vec::new();
        // Two links to the same chip (SpiNN-3) count as one, so that there are never more paths than room for children.
        let mut first_chips = BTreeSet::new();
        for link in Link::ALL {
            let Some(first) = machine.neighbour(from, link) else { continue };
            if number(first).is_some() || !first_chips.insert(first) {
                continue;
            }
            let mut found: BTreeMap<usize, usize> = BTreeMap::new();
            let mut seen = BTreeSet::from([first]);
            let mut queue = VecDeque::from([(first, 1)]);
            while let Some((at, links)) = queue.pop_front() {
                for to in neighbours(machine, at) {
                    match number(to) {
                        Some(to) => {
                            found.entry(to).or_insert(links + 1);
                        }
                        None if seen.insert(to) => queue.push_back((to, links + 1)),
                        None => {}
                    }
                }
            }
            paths.extend(found.into_iter().map(|(to, links)| Far { to, links, exit: link.index() }));
        }
        paths
    }

    /// Levels of all chips below `root`: over single links as far as those lead, then over the shortest path through unused
    /// chips to a group not reached yet, and on from there.
    fn levels(&self, root: usize) -> Levels {
        let count = self.chips.len();
        let mut level: Vec<Option<usize>> = vec![None; count];
        let mut far_parent = vec![None; count];
        let mut exits_taken = vec![[false; 6]; count];
        level[root] = Some(0);
        let mut reached = 1;
        let mut queue = VecDeque::from([(root, 0)]);
        loop {
            while let Some((at, depth)) = queue.pop_front() {
                for &to in &self.near[at] {
                    if level[to].is_none() {
                        level[to] = Some(depth + 1);
                        reached += 1;
                        queue.push_back((to, depth + 1));
                    }
                }
            }
            if reached == count {
                break;
            }
            // One child for each link into unused chips: so there is room for the children over single links. And
            // there is always a path left, since whoever took a link reaches all that it leads to by links of its own.
            let mut best: Option<(usize, usize, usize, usize, usize)> = None;
            for (from, depth) in level.iter().enumerate().filter_map(|(from, depth)| Some((from, (*depth)?))) {
                for &Far { to, links, exit } in &self.far[from] {
                    let candidate = (links, depth, from, to, exit);
                    if level[to].is_none() && !exits_taken[from][exit] && best.is_none_or(|best| candidate < best) {
                        best = Some(candidate);
                    }
                }
            }
            let Some((_, depth, from, to, exit)) = best else {
                unreachable!("chips of one connected part are joined over links or unused chips");
            };
            exits_taken[from][exit] = true;
            far_parent[to] = Some(from);
            level[to] = Some(depth + 1);
            reached += 1;
            queue.push_back((to, depth + 1));
        }
        Levels { level: level.into_iter().map(|level| level.unwrap_or(0)).collect(), far_parent }
    }

    /// The best root and its levels.
    fn central(&self) -> (usize, Levels) {
        let step = self.chips.len().div_ceil(ROOTS_TRIED_MAX).max(1);
        let (_, root, levels) = (0..self.chips.len())
            .step_by(step)
            .map(|root| {
                let levels = self.levels(root);
                let depth = levels.level.iter().copied().max().unwrap_or(0);
                let sum: usize = levels.level.iter().sum();
                ((depth, std::cmp::Reverse(self.cores[root]), sum, root), root, levels)
            })
            .min_by_key(|(rank, ..)| *rank)
            .unwrap_or_else(|| unreachable!("there is at least one chip"));
        (root, levels)
    }

    /// Parents that share the children out evenly: for each chip, the least loaded possible parent is sought along chains of
    /// chips that could move on to another parent (optimal semi-matching after Harvey, Ladner, Lovasz and Tamir, 2006).
    fn parents(&self, levels: &Levels) -> Vec<Option<usize>> {
        let mut parent = levels.far_parent.clone();
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); self.chips.len()];
        let mut load = vec![0_usize; self.chips.len()];
        for &above in parent.iter().flatten() {
            load[above] += 1;
        }
        let above = |child: usize| {
            let level = levels.level[child];
            self.near[child].iter().copied().filter(move |&near| levels.level[near] + 1 == level)
        };
        for child in 0..self.chips.len() {
            if levels.level[child] == 0 || levels.far_parent[child].is_some() {
                continue;
            }
            // How the search came to a parent: by way of which child.
            let mut via: BTreeMap<usize, usize> = BTreeMap::new();
            let mut order = Vec::new();
            let mut queue = VecDeque::from([child]);
            while let Some(moving) = queue.pop_front() {
                for candidate in above(moving) {
                    if let std::collections::btree_map::Entry::Vacant(entry) = via.entry(candidate) {
                        entry.insert(moving);
                        order.push(candidate);
                        queue.extend(children[candidate].iter().copied());
                    }
                }
            }
            let Some(&last) = order.iter().min_by_key(|&&candidate| load[candidate]) else {
                unreachable!("a chip below the root has a neighbour one level up");
            };
            load[last] += 1;
            let mut to = last;
            loop {
                let moving = via[&to];
                let from = parent[moving].replace(to);
                children[to].push(moving);
                let Some(from) = from else { break };
                children[from].retain(|&other| other != moving);
                to = from;
            }
        }
        parent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use spinnaker_machine::RandomFaults;

    fn all(machine: &Machine) -> Vec<ChipXy> {
        machine.chips.keys().copied().collect()
    }

    fn at(x: u8, y: u8) -> ChipXy {
        ChipXy::new(x, y)
    }

    fn joined(machine: &Machine, a: ChipXy, b: ChipXy) -> bool {
        neighbours(machine, a).any(|to| to == b)
    }

    /// What must hold of every tree; returns how many edges go over several links.
    fn check(machine: &Machine, tree: &ReplicaTree) -> usize {
        let mut far = 0;
        assert_eq!(tree.parent(tree.root()), None);
        for (index, &chip) in tree.chips().iter().enumerate() {
            assert_eq!(tree.chip_index(chip), Some(index));
            assert!(tree.children(chip).len() <= CHILDREN_MAX);
            assert!(tree.children(chip).windows(2).all(|pair| pair[0] < pair[1]));
            assert!(tree.children(chip).iter().all(|&child| tree.parent(child) == Some(chip)));
            if chip != tree.root() {
                let parent = tree.parent(chip).expect("all but the root have a parent");
                assert!(tree.children(parent).contains(&chip));
                assert_eq!(tree.level(chip), Some(tree.level(parent).expect("in the tree") + 1));
                far += usize::from(!joined(machine, chip, parent));
            }
        }
        let edges: usize = tree.chips().iter().map(|&chip| tree.children(chip).len()).sum();
        assert_eq!(edges, tree.chips().len() - 1);
        far
    }

    #[test]
    fn whole_boards() {
        for (machine, depth, children) in
            [(Machine::spin3(), 1, 3), (Machine::spin5(), 4, 6), (Machine::boards(3).expect("three"), 8, 6)]
        {
            let tree = ReplicaTree::build(&machine, &all(&machine), None).expect("a tree");
            assert_eq!(check(&machine, &tree), 0);
            assert_eq!((tree.depth(), tree.children_max()), (depth, children));
            assert!(tree.left_out().is_empty());
            // Others than the root have one of their six neighbours above them and two beside them at least.
            let fullest = |chip: &&ChipXy| **chip != tree.root();
            let max = tree.chips().iter().filter(fullest).map(|&chip| tree.children(chip).len()).max();
            assert!(max <= Some(3), "{max:?}");
        }
    }

    #[test]
    fn root_hint_and_single_chip() {
        let machine = Machine::spin5();
        let tree = ReplicaTree::build(&machine, &all(&machine), Some(at(0, 0))).expect("a tree");
        assert_eq!((tree.root(), tree.depth()), (at(0, 0), 7));
        let tree = ReplicaTree::build(&machine, &[at(3, 3)], Some(at(0, 0))).expect("a tree");
        assert_eq!((tree.root(), tree.depth(), tree.children_max()), (at(3, 3), 0, 0));
        assert_eq!((tree.chip_index(at(3, 3)), tree.chip_index(at(0, 0))), (Some(0), None));
        assert!(tree.children(at(0, 0)).is_empty() && tree.level(at(0, 0)).is_none());
    }

    #[test]
    fn wrong_chips_are_named() {
        let machine = Machine::spin5();
        let build = |chips: &[ChipXy]| ReplicaTree::build(&machine, chips, None);
        assert_eq!(build(&[]), Err(RouteError::NoChips));
        assert_eq!(build(&[at(1, 1), at(0, 0)]), Err(RouteError::NotAscending(at(0, 0))));
        assert_eq!(build(&[at(1, 1), at(1, 1)]), Err(RouteError::NotAscending(at(1, 1))));
        assert_eq!(build(&[at(0, 0), at(7, 0)]), Err(RouteError::NoChip(at(7, 0))));
    }

    #[test]
    fn unused_chips_are_passed_through_only_where_they_must_be() {
        let machine = Machine::rectangle(5, 1).expect("a row");
        let tree = ReplicaTree::build(&machine, &[at(0, 0), at(1, 0), at(4, 0)], None).expect("a tree");
        assert_eq!(check(&machine, &tree), 1);
        assert_eq!((tree.parent(at(4, 0)), tree.root()), (Some(at(1, 0)), at(1, 0)));
        // A ring around an unused chip stays on the ring.
        let machine = Machine::rectangle(3, 3).expect("a square");
        let ring: Vec<ChipXy> = all(&machine).into_iter().filter(|&chip| chip != at(1, 1)).collect();
        let tree = ReplicaTree::build(&machine, &ring, None).expect("a tree");
        assert_eq!(check(&machine, &tree), 0);
        // Scattered chips, all joined through unused ones: no more than six children each.
        let machine = Machine::rectangle(16, 16).expect("a square");
        let scattered: Vec<ChipXy> = all(&machine).into_iter().filter(|xy| xy.x % 3 == 0 && xy.y % 2 == 0).collect();
        let tree = ReplicaTree::build(&machine, &scattered, None).expect("a tree");
        assert_eq!(check(&machine, &tree), scattered.len() - 1);
    }

    #[test]
    fn separate_parts_are_left_out() {
        let mut machine = Machine::rectangle(5, 1).expect("a row");
        machine.kill_link(at(1, 0), Link::E).expect("a link");
        let tree = ReplicaTree::build(&machine, &all(&machine), Some(at(0, 0))).expect("a tree");
        assert_eq!(tree.left_out(), [at(0, 0), at(1, 0)]);
        assert_eq!((tree.chips().len(), tree.root()), (3, at(3, 0)));
        assert_eq!(check(&machine, &tree), 0);
    }

    #[test]
    fn faults_leave_single_links_wherever_possible() {
        for seed in 0..50 {
            let mut machine = Machine::spin5();
            machine.fail_random(RandomFaults { chips: 12, cores: 40, links: 20 }, seed);
            let chips = all(&machine);
            let tree = ReplicaTree::build(&machine, &chips, None).expect("a tree");
            // fail_random takes away what does not hang together, so all are in, over single links.
            assert_eq!((check(&machine, &tree), tree.left_out().len()), (0, 0), "seed {seed}");
            assert_eq!(tree, ReplicaTree::build(&machine, &chips, None).expect("again"));
        }
    }

    /// Whether all children of a level find a parent when each takes `room` at most: augmenting paths, by plain search.
    fn fits(possible: &[Vec<ChipXy>], room: usize) -> bool {
        fn place(
            child: usize,
            possible: &[Vec<ChipXy>],
            room: usize,
            taken: &mut BTreeMap<ChipXy, Vec<usize>>,
            seen: &mut BTreeSet<ChipXy>,
        ) -> bool {
            for &parent in &possible[child] {
                if !seen.insert(parent) {
                    continue;
                }
                for place_number in 0..room {
                    let there = taken.entry(parent).or_default().get(place_number).copied();
                    if there.is_none_or(|other| place(other, possible, room, taken, seen)) {
                        let places = taken.entry(parent).or_default();
                        if there.is_some() {
                            places[place_number] = child
                        } else {
                            places.push(child)
                        }
                        return true;
                    }
                }
            }
            false
        }
        let mut taken = BTreeMap::new();
        (0..possible.len()).all(|child| place(child, possible, room, &mut taken, &mut BTreeSet::new()))
    }

    #[test]
    fn no_level_could_have_fewer_children_on_its_fullest_chip() {
        for seed in 0..15 {
            let mut machine = Machine::boards(3).expect("three");
            let links = if seed == 0 { 0 } else { 60 };
            machine.fail_random(RandomFaults { chips: links / 5, cores: 0, links }, seed);
            let tree = ReplicaTree::build(&machine, &all(&machine), None).expect("a tree");
            for level in 1..=tree.depth() {
                let at_level = |wanted| -> Vec<ChipXy> {
                    tree.chips().iter().copied().filter(|&chip| tree.level(chip) == Some(wanted)).collect()
                };
                let fullest =
                    at_level(level - 1).into_iter().map(|chip| tree.children(chip).len()).max().expect("a chip");
                let possible: Vec<Vec<ChipXy>> = at_level(level)
                    .into_iter()
                    .map(|chip| neighbours(&machine, chip).filter(|&c| tree.level(c) == Some(level - 1)).collect())
                    .collect();
                assert!(fits(&possible, fullest), "seed {seed} level {level}");
                assert!(!fits(&possible, fullest - 1), "seed {seed} level {level}: {fullest} are not needed");
            }
        }
    }

    #[test]
    fn a_crowd_behind_unused_chips_is_shared_out() {
        // Twelve chips around an unused ring around the root, with no links between the twelve.
        let mut machine = Machine::rectangle(5, 5).expect("a square");
        let root = at(2, 2);
        let crowd: Vec<ChipXy> = all(&machine).into_iter().filter(|&chip| machine.distance(chip, root) == 2).collect();
        for (chip, link) in machine.working_links() {
            if [Some(chip), machine.neighbour(chip, link)].into_iter().flatten().all(|end| crowd.contains(&end)) {
                machine.kill_link(chip, link).expect("a link");
            }
        }
        let mut chips = crowd;
        chips.push(root);
        chips.sort();
        let tree = ReplicaTree::build(&machine, &chips, Some(root)).expect("a tree");
        assert_eq!((check(&machine, &tree), tree.children(root).len()), (12, 6));
    }

    proptest! {
        /// Any choice of chips: all that can be joined are, with one path through unused chips for each group but one.
        #[test]
        fn any_chips_are_joined(used in prop::collection::vec(0_u8..4, 100), seed: u64, links in 0_usize..150) {
            let mut machine = Machine::rectangle(10, 10).expect("a square");
            machine.fail_random(RandomFaults { chips: 0, cores: 0, links }, seed);
            let chips: Vec<ChipXy> =
                all(&machine).into_iter().filter(|xy| used[usize::from(xy.x) * 10 + usize::from(xy.y)] == 0).collect();
            prop_assume!(!chips.is_empty());
            let tree = ReplicaTree::build(&machine, &chips, None).expect("a tree");
            prop_assert_eq!(tree.chips(), &chips[..]);
            let mut groups = 0;
            let mut seen = BTreeSet::new();
            for &chip in &chips {
                let mut stack = vec![chip];
                groups += usize::from(!seen.contains(&chip));
                while let Some(at) = stack.pop() {
                    if seen.insert(at) {
                        stack.extend(neighbours(&machine, at).filter(|to| chips.contains(to)));
                    }
                }
            }
            prop_assert_eq!(check(&machine, &tree), groups - 1);
        }
    }
}
