//! How much of one provider's is fetched at once: so many files, and so much memory for them and
//! for answers.
//!
//! Each provider has a room of its own with an equal share of `recovery.memory`, so that one that
//! hangs, or whose files trickle, takes nothing from the others.
//!
//! A file holds no memory until it answers and says its size; then it takes as much as it is large, and at most three parts
//! (`recovery::memory_bytes`: 24 MiB for files up to 80 GB). Where so much is not free, it lets its connection go, waits for
//! it and asks again. One that needs more than there is takes all of it, and is alone.
//!
//! An answer that is longer than `provider::UNBUDGETED_BYTES` does the same: it holds what was decoded
//! out of it, what its filter takes, and what copying its files takes, until they are copied. One
//! that needs more than the share needs a place that the process has once, beside the whole share;
//! of each provider one answer waits for that. Nothing that holds memory waits for more, so that
//! nobody waits in a ring: copies of an answer's own files are covered by what it holds.
//!
//! So the memory of a process stays below `recovery.memory` (or one file's, 24 MiB, for each
//! provider that has something due, if that is more) and one largest answer.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::provider;
use crate::recovery::{MemoryBudget, memory_bytes};

/// Memory is counted in pieces of this size: a semaphore counts to some four thousand million.
const PIECE_BYTES: u64 = 1 << 16;

/// One provider's room.
#[derive(Debug)]
pub(super) struct Room {
    files: Semaphore,
    memory: Semaphore,
    pieces: u32,
    /// The process's place for an answer that needs more than a share.
    large: Arc<Semaphore>,
    /// Whose turn it is to wait for that.
    large_turn: Semaphore,
}

/// A file's place in it, until dropped.
#[derive(Debug)]
pub(super) struct Place<'a> {
    room: &'a Room,
    _file: Option<SemaphorePermit<'a>>,
    memory: Mutex<Option<SemaphorePermit<'a>>>,
}

impl Room {
    /// Room for so many files and so much memory, but for one file in any case.
    pub(super) fn new(files: usize, memory_bytes: u64, large: Arc<Semaphore>) -> Self {
        let pieces =
            u32::try_from(memory_bytes / PIECE_BYTES).unwrap_or(u32::MAX >> 3).clamp(1, u32::MAX >> 3);
        Self {
            files: Semaphore::new(files.max(1)),
            memory: Semaphore::new(pieces as usize),
            pieces,
            large,
            large_turn: Semaphore::new(1),
        }
    }

    /// A room whose provider is the only one at work.
    pub(super) fn alone(files: usize, memory_bytes: u64) -> Self {
        Self::new(files, memory_bytes, Arc::new(Semaphore::new(1)))
    }

    /// For the answer of one question. It holds nothing yet.
    pub(super) fn answer(&self) -> AnswerPlace<'_> {
        AnswerPlace { room: self, held: Mutex::default() }
    }

    /// Waits until one more file may be fetched.
    pub(super) async fn enter(&self) -> Place<'_> {
        // Never closed, here and below.
        let file = self.files.acquire().await.ok();
        Place { room: self, _file: file, memory: Mutex::default() }
    }

    fn pieces(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(PIECE_BYTES)).unwrap_or(u32::MAX).clamp(1, self.pieces)
    }
}

impl Place<'_> {
    /// Gives back what it holds, so that nobody waits in a ring, and waits for so much. Whoever waits longest is first.
    pub(super) async fn wait_for(&self, bytes: u64) {
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let memory = self.room.memory.acquire_many(self.room.pieces(bytes)).await.ok();
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = memory;
    }
}

impl MemoryBudget for Place<'_> {
    fn reserve(&self, bytes: u64) -> bool {
        let mut held = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        adjust(&mut held, &self.room.memory, self.room.pieces(bytes))
    }
}

/// The memory of one answer, until dropped.
#[derive(Debug)]
pub(super) struct AnswerPlace<'a> {
    room: &'a Room,
    held: Mutex<Held<'a>>,
}

#[derive(Debug, Default)]
struct Held<'a> {
    own: Option<SemaphorePermit<'a>>,
    large: Option<OwnedSemaphorePermit>,
}

impl<'a> AnswerPlace<'a> {
    fn held(&self) -> MutexGuard<'_, Held<'a>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_large(&self, bytes: u64) -> bool {
        bytes.div_ceil(PIECE_BYTES) > u64::from(self.room.pieces)
    }

    /// Whether it has taken any.
    pub(super) fn holds(&self) -> bool {
        self.held().own.is_some()
    }

    /// Gives back what files of so many bytes and their copying do not need.
    pub(super) fn keep(&self, file_bytes: u64) {
        if file_bytes == 0 {
            *self.held() = Held::default();
        } else if self.holds() {
            // Less than it has.
            provider::AnswerMemory::take(self, file_bytes.saturating_add(memory_bytes(file_bytes)));
        }
    }
}

impl provider::AnswerMemory for AnswerPlace<'_> {
    fn take(&self, bytes: u64) -> bool {
        let room = self.room;
        let mut held = self.held();
        let Held { own, large } = &mut *held;
        if !self.is_large(bytes) {
            *large = None;
        } else if large.is_none() {
            match Arc::clone(&room.large).try_acquire_owned() {
                Ok(permit) => *large = Some(permit),
                Err(_) => return false,
            }
        }
        adjust(own, &room.memory, room.pieces(bytes))
    }

    fn wait_for(&self, bytes: u64) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(async move {
            *self.held() = Held::default();
            // Never closed, all of them.
            let large = if self.is_large(bytes) {
                let _turn = self.room.large_turn.acquire().await.ok();
                Arc::clone(&self.room.large).acquire_owned().await.ok()
            } else {
                None
            };
            let own = self.room.memory.acquire_many(self.room.pieces(bytes)).await.ok();
            *self.held() = Held { own, large };
            true
        })
    }
}

/// Beside an answer that is held: no more than is free for all.
#[derive(Debug)]
pub(super) struct NoMore;

impl provider::AnswerMemory for NoMore {
    fn take(&self, _bytes: u64) -> bool {
        false
    }

    fn wait_for(&self, _bytes: u64) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(std::future::ready(false))
    }
}

/// Makes `held` so many pieces; false: they are not free now, and it stays as it was.
fn adjust<'a>(held: &mut Option<SemaphorePermit<'a>>, memory: &'a Semaphore, wanted: u32) -> bool {
    let wanted = wanted as usize;
    let has = held.as_ref().map_or(0, SemaphorePermit::num_permits);
    if has >= wanted {
        drop(held.as_mut().and_then(|held| held.split(has - wanted)));
        return true;
    }
    // Less than the pieces there are.
    let more = u32::try_from(wanted - has).unwrap_or(u32::MAX);
    let Ok(more) = memory.try_acquire_many(more) else {
        return false;
    };
    match held.as_mut() {
        Some(held) => held.merge(more),
        None => *held = Some(more),
    }
    true
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::provider::AnswerMemory as _;

    const MIB: u64 = 1 << 20;

    /// How many files of at most `bytes` are under way at once.
    fn at_once(room: &Room, bytes: u64) -> usize {
        let mut places = Vec::new();
        while let Some(place) = room.enter().now_or_never() {
            if !MemoryBudget::reserve(&place, memory_bytes(bytes)) {
                break;
            }
            places.push(place);
        }
        places.len()
    }

    #[test]
    fn files_and_memory_both_bound_what_is_fetched_at_once() {
        for (files, memory, bytes, expected) in [
            (8, 256 * MIB, 4096 * MIB, 8),
            (64, 256 * MIB, 4096 * MIB, 10),
            (64, 85 * MIB, 4096 * MIB, 3),
            (64, 2 * MIB, 4096 * MIB, 1),
            (64, 256 * MIB, MIB, 64),
            (64, 24 * MIB, MIB, 24),
            (64, MIB, 4096 * MIB, 1),
            (8, u64::MAX, u64::MAX, 8),
            (64, 256 * MIB, u64::MAX, 1),
            (0, 0, 1, 1),
        ] {
            let room = Room::alone(files, memory);
            assert_eq!(at_once(&room, bytes), expected, "{files} {memory} {bytes}");
            assert_eq!(at_once(&room, bytes), expected, "what is given back is there again");
        }
    }

    #[test]
    fn a_file_that_has_not_answered_holds_no_memory_and_a_smaller_one_gives_some_back() {
        let room = Room::alone(8, 24 * MIB);
        let (silent, large, small) = (room.enter(), room.enter(), room.enter());
        let [_silent, large, small] = [silent, large, small].map(|place| place.now_or_never().unwrap());
        assert!(large.reserve(24 * MIB) && !small.reserve(MIB));
        assert!(large.reserve(23 * MIB), "it was begun anew, and is smaller than it was");
        assert!(small.reserve(MIB) && !large.reserve(24 * MIB), "it holds what it had");
        drop(small);
        assert!(large.reserve(24 * MIB));
    }

    #[test]
    fn who_waits_is_first_and_holds_nothing_meanwhile() {
        let room = Room::alone(8, 24 * MIB);
        let [first, second, third] = [(); 3].map(|()| room.enter().now_or_never().unwrap());
        assert!(first.reserve(20 * MIB) && second.reserve(4 * MIB));
        let mut waiting = Box::pin(second.wait_for(24 * MIB));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(!third.reserve(MIB), "what is freed is for the one that waits");
        drop(first);
        assert!(waiting.now_or_never().is_some() && second.reserve(24 * MIB));
    }

    #[test]
    fn answers_share_the_memory_and_one_that_needs_more_than_a_share_is_alone_in_the_process() {
        let large = Arc::new(Semaphore::new(1));
        let [one, other] = [(); 2].map(|()| Room::new(8, 24 * MIB, Arc::clone(&large)));
        let [first, second, third] = [(); 3].map(|()| one.answer());
        assert!(first.take(20 * MIB) && !second.take(5 * MIB) && second.take(4 * MIB));
        first.keep(8 * MIB);
        assert!(third.take(4 * MIB) && first.holds(), "what a file and its copy do not need is free");
        first.keep(0);
        assert!(!first.holds() && first.take(16 * MIB));

        // Of another provider: it waits for nobody of this one, whatever waits here.
        let fourth = other.answer();
        assert!(!first.take(100 * MIB), "the others of its share are there");
        let [mut waiting, mut after] = [&first, &third].map(|place| Box::pin(place.wait_for(100 * MIB)));
        assert!(waiting.as_mut().now_or_never().is_none() && after.as_mut().now_or_never().is_none());
        assert!(fourth.take(24 * MIB) && !fourth.take(25 * MIB), "the place is given away");
        drop(second);
        assert_eq!(waiting.now_or_never(), Some(true));
        let mut asking = Box::pin(fourth.wait_for(25 * MIB));
        assert!(asking.as_mut().now_or_never().is_none() && after.as_mut().now_or_never().is_none());
        assert!(first.take(100 * MIB) && first.take(8 * MIB), "less than a share needs no such place");
        assert!(after.as_mut().now_or_never().is_none(), "it waits for its own share");
        drop(after);
        assert_eq!(asking.now_or_never(), Some(true));
        assert!(!NoMore.take(1) && NoMore.wait_for(1).now_or_never() == Some(false));
    }
}
