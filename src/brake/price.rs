//! The average price of a charge: the unit of limits on credits.
//!
//! Credits are in the platform's own smallest unit, so no number of them is a safe default. The
//! average price makes limits comparable between platforms. It is taken over the newest charges
//! (`average_price.sql`). Each counts for at most a thousand times the median, so that a few prices
//! in a wrong unit cannot raise the limit that is to stop them.

/// The number of recent charges with a price, and the sum of their credits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    charges: u64,
    credits: u128,
}

impl Price {
    /// None if no charge has a price: then there is no average.
    pub const fn new(charges: u64, credits: u128) -> Option<Self> {
        if charges == 0 || credits == 0 { None } else { Some(Self { charges, credits }) }
    }

    /// The number of average charges that cost this many credits, rounded up. Saturates.
    pub fn worth(self, credits: u128) -> u128 {
        let worth = credits.checked_mul(u128::from(self.charges));
        worth.map_or(u128::MAX, |worth| worth.div_ceil(self.credits))
    }
}
