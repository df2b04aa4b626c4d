//! How much of one provider's is fetched at once: so many files, and so much memory for them.
//!
//! Each provider has a room of its own, so that one that hangs, or whose files trickle, takes nothing from the others.
//! A file holds no memory until it answers and says its size; then it takes as much as it is large, and at most three parts
//! (`recovery::memory_bytes`: 24 MiB for files up to 80 GB). Where so much is not free, it lets its connection go, waits for
//! it and asks again. One that needs more than there is takes all of it, and is alone. So the memory of all copies of a
//! process stays below the larger of `recovery.memory` and one file's for each provider that has something due.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::recovery::Memory;

/// Memory is counted in pieces of this size: a semaphore counts to some four thousand million.
const PIECE_BYTES: u64 = 1 << 16;

/// One provider's room.
#[derive(Debug)]
pub(super) struct Room {
    files: Semaphore,
    memory: Semaphore,
    pieces: u32,
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
    pub(super) fn new(files: usize, memory_bytes: u64) -> Self {
        let pieces =
            u32::try_from(memory_bytes / PIECE_BYTES).unwrap_or(u32::MAX >> 3).clamp(1, u32::MAX >> 3);
        Self { files: Semaphore::new(files.max(1)), memory: Semaphore::new(pieces as usize), pieces }
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

impl Memory for Place<'_> {
    fn take(&self, bytes: u64) -> bool {
        let wanted = self.room.pieces(bytes) as usize;
        let mut held = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let has = held.as_ref().map_or(0, SemaphorePermit::num_permits);
        if has >= wanted {
            drop(held.as_mut().and_then(|held| held.split(has - wanted)));
            return true;
        }
        // Less than the pieces there are.
        let more = u32::try_from(wanted - has).unwrap_or(u32::MAX);
        let Ok(more) = self.room.memory.try_acquire_many(more) else {
            return false;
        };
        match held.as_mut() {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::recovery::memory_bytes;

    const MIB: u64 = 1 << 20;

    /// How many files of at most `bytes` are under way at once.
    fn at_once(room: &Room, bytes: u64) -> usize {
        let mut places = Vec::new();
        while let Some(place) = room.enter().now_or_never() {
            if !place.take(memory_bytes(bytes)) {
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
            let room = Room::new(files, memory);
            assert_eq!(at_once(&room, bytes), expected, "{files} {memory} {bytes}");
            assert_eq!(at_once(&room, bytes), expected, "what is given back is there again");
        }
    }

    #[test]
    fn a_file_that_has_not_answered_holds_no_memory_and_a_smaller_one_gives_some_back() {
        let room = Room::new(8, 24 * MIB);
        let (silent, large, small) = (room.enter(), room.enter(), room.enter());
        let [_silent, large, small] = [silent, large, small].map(|place| place.now_or_never().unwrap());
        assert!(large.take(24 * MIB) && !small.take(MIB));
        assert!(large.take(23 * MIB), "it was begun anew, and is smaller than it was");
        assert!(small.take(MIB) && !large.take(24 * MIB), "it holds what it had");
        drop(small);
        assert!(large.take(24 * MIB));
    }

    #[test]
    fn who_waits_is_first_and_holds_nothing_meanwhile() {
        let room = Room::new(8, 24 * MIB);
        let [first, second, third] = [(); 3].map(|()| room.enter().now_or_never().unwrap());
        assert!(first.take(20 * MIB) && second.take(4 * MIB));
        let mut waiting = Box::pin(second.wait_for(24 * MIB));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(!third.take(MIB), "what is freed is for the one that waits");
        drop(first);
        assert!(waiting.now_or_never().is_some() && second.take(24 * MIB));
    }
}
