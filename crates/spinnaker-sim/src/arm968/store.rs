//! Compiled code that cores share.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::beat::Beat;
use super::cache::{Block, Entry, SLOTS};

/// Blocks above which the store looks for those that no core uses any more.
const BLOCKS_MIN: usize = 1 << 14;

/// Most beats that are kept to be shared.
const BEATS_MAX: usize = 1 << 12;

/// Compiled code that cores share: those with the same programs, as the monitors of a machine have, then use the same memory
/// for it, and the host's caches hold it once. What a core does does not depend on who shares with it.
///
/// Clones are the same store; cores of any threads can use it.
#[derive(Debug, Clone, Default)]
pub struct CodeStore {
    shelf: Arc<Mutex<Shelf>>,
    table: Option<Arc<Table>>,
}

/// The first block that any core had at each place: most cores of a machine have the same there, and find it where all do.
pub(super) type Table = [OnceLock<Entry>];

#[derive(Debug, Default)]
struct Shelf {
    blocks: HashSet<Arc<Block>>,
    beats: HashSet<Arc<Beat>>,
    /// How many blocks may come together before those without users go.
    limit: usize,
}

impl CodeStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store for many cores, most of which have the same programs.
    #[must_use]
    pub fn for_machine() -> Self {
        Self { table: Some((0..SLOTS).map(|_| OnceLock::new()).collect()), ..Self::default() }
    }

    /// The table, if this store has one.
    pub(super) fn table(&self) -> Option<&Table> {
        self.table.as_deref()
    }

    /// The block of the store that equals this one; it becomes that if there is none yet.
    pub(super) fn share(&self, block: Block) -> Arc<Block> {
        // Nothing that can panic leaves the shelf half changed.
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = shelf.blocks.get(&block) {
            return Arc::clone(known);
        }
        if shelf.blocks.len() >= shelf.limit.max(BLOCKS_MIN) {
            shelf.blocks.retain(|block| Arc::strong_count(block) > 1);
            shelf.limit = 2 * shelf.blocks.len();
        }
        let block = Arc::new(block);
        shelf.blocks.insert(Arc::clone(&block));
        block
    }

    /// The beat of the store that equals this one, as for blocks.
    pub(super) fn share_beat(&self, beat: Beat) -> Arc<Beat> {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = shelf.beats.get(&beat) {
            return Arc::clone(known);
        }
        if shelf.beats.len() >= BEATS_MAX {
            shelf.beats.retain(|beat| Arc::strong_count(beat) > 1);
        }
        let beat = Arc::new(beat);
        if shelf.beats.len() < BEATS_MAX {
            shelf.beats.insert(Arc::clone(&beat));
        }
        beat
    }

    /// How many blocks there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner).blocks.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
