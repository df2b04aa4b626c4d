//! What a charge of the platform costs on average: the measure of limits on credits.
//!
//! Credits are in the platform's own smallest unit, so no number of them is a safe default. As many
//! credits as charges cost on average are the same on every platform. The average is taken over the
//! newest charges (`average_price.sql`); each counts for at most a thousand times the middle one,
//! so that a few prices in a wrong unit do not raise the limit that is to stop them.

/// Newest charges that cost something, and what they cost together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    charges: u64,
    credits: u128,
}

impl Price {
    /// None where no charge cost anything: then there is no average.
    pub const fn new(charges: u64, credits: u128) -> Option<Self> {
        if charges == 0 || credits == 0 { None } else { Some(Self { charges, credits }) }
    }

    /// How many charges cost so much on average, rounded up; the largest number if it is larger
    /// than that.
    pub fn worth(self, credits: u128) -> u128 {
        let worth = credits.checked_mul(u128::from(self.charges));
        worth.map_or(u128::MAX, |worth| worth.div_ceil(self.credits))
    }
}
