//! How much is fetched at once: so many files, and so much memory for them.
//!
//! A file takes at most three parts of memory, however large it is (`recovery::memory_bytes`: 24 MiB for files up to
//! 80 GB), and a small cap takes no more than itself. Each provider has a share of both bounds for itself, so that files that
//! trickle hold up nobody else's, and each may fetch one file in any case. So the memory of all copies of a process stays below
//! the larger of `recovery.memory` and one file's for each provider that has something due.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::recovery;

/// Memory is counted in pieces of this size: a semaphore counts to some four thousand million.
const PIECE_BYTES: u64 = 1 << 16;

/// One provider's share.
#[derive(Debug)]
pub(super) struct Room {
    files: Semaphore,
    memory: Semaphore,
    pieces: u32,
}

/// A place in it, until dropped.
#[derive(Debug)]
pub(super) struct Place<'a> {
    _file: Option<SemaphorePermit<'a>>,
    _memory: Option<SemaphorePermit<'a>>,
}

impl Room {
    /// An equal share for each of so many providers.
    pub(super) fn share(files: usize, memory_bytes: u64, providers: usize) -> Self {
        let providers = providers.max(1);
        let share = memory_bytes / providers as u64 / PIECE_BYTES;
        let pieces = u32::try_from(share).unwrap_or(u32::MAX >> 3).clamp(1, u32::MAX >> 3);
        Self {
            files: Semaphore::new((files / providers).max(1)),
            memory: Semaphore::new(pieces as usize),
            pieces,
        }
    }

    /// Waits for room for a file of at most `max_bytes`. One that needs more than there is gets all of it, and is alone.
    pub(super) async fn take(&self, max_bytes: u64) -> Place<'_> {
        let wanted = recovery::memory_bytes(max_bytes).div_ceil(PIECE_BYTES);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX).clamp(1, self.pieces);
        // Neither is ever closed. Always in this order, so that nobody waits in a ring.
        let file = self.files.acquire().await.ok();
        let memory = self.memory.acquire_many(wanted).await.ok();
        Place { _file: file, _memory: memory }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many files of at most `max_bytes` are under way at once.
    fn at_once(room: &Room, max_bytes: u64) -> usize {
        let mut places = Vec::new();
        while let Some(place) = futures_util::future::FutureExt::now_or_never(room.take(max_bytes)) {
            places.push(place);
        }
        places.len()
    }

    #[test]
    fn files_and_memory_both_bound_what_is_fetched_at_once() {
        const MIB: u64 = 1 << 20;
        for (files, memory, providers, max_bytes, expected) in [
            (8, 256 * MIB, 1, 4096 * MIB, 8),
            (64, 256 * MIB, 1, 4096 * MIB, 10),
            (64, 256 * MIB, 3, 4096 * MIB, 3),
            (64, 256 * MIB, 100, 4096 * MIB, 1),
            (64, 256 * MIB, 1, MIB, 64),
            (64, 24 * MIB, 1, MIB, 24),
            (64, MIB, 1, 4096 * MIB, 1),
            (8, u64::MAX, 1, u64::MAX, 8),
            (64, 256 * MIB, 1, u64::MAX, 1),
        ] {
            let room = Room::share(files, memory, providers);
            assert_eq!(at_once(&room, max_bytes), expected, "{files} {memory} {providers} {max_bytes}");
            assert_eq!(at_once(&room, max_bytes), expected, "what is given back is there again");
        }
    }
}
