//! What happened in a round, or in many.

/// The figures.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub runs: u64,
    pub kills: u64,
    pub answers_lost: u64,
    pub cuts: u64,
    pub pauses: u64,
    pub restarts: u64,
    pub crashes: u64,
    pub leaps: u64,
    pub failed: u64,
    pub charges: u64,
    pub refunds: i64,
    pub recoveries: i64,
    pub photo_finishes: i64,
    pub unnamed: u64,
    pub storage_faults: u64,
    pub lost_leases: u64,
}

impl Tally {
    /// Both together.
    pub const fn plus(self, other: Self) -> Self {
        Self {
            runs: self.runs + other.runs,
            kills: self.kills + other.kills,
            answers_lost: self.answers_lost + other.answers_lost,
            cuts: self.cuts + other.cuts,
            pauses: self.pauses + other.pauses,
            restarts: self.restarts + other.restarts,
            crashes: self.crashes + other.crashes,
            leaps: self.leaps + other.leaps,
            failed: self.failed + other.failed,
            charges: self.charges + other.charges,
            refunds: self.refunds + other.refunds,
            recoveries: self.recoveries + other.recoveries,
            photo_finishes: self.photo_finishes + other.photo_finishes,
            unnamed: self.unnamed + other.unnamed,
            storage_faults: self.storage_faults + other.storage_faults,
            lost_leases: self.lost_leases + other.lost_leases,
        }
    }
}
