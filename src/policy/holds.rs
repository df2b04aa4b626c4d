//! Decisions to hold that only settle can take, in its transaction: it holds the locks there and
//! sees what the database accepts.

use super::{Action, Decision, Reason, rule};

/// Rule 16: the brake does not let this refund through. Settle asks it while it holds the brake's
/// lock.
pub const fn braked() -> Decision {
    rule(16, Action::Hold, Reason::Brake)
}

/// Rule 16: between the decision and the posting, the balance row disappeared or a second one was
/// added.
pub const fn without_balance() -> Decision {
    rule(16, Action::Hold, Reason::NoBalance)
}

/// Rule 16: the refund was posted, and the balance or the ledger did not change by it. The whole
/// refund is rolled back.
pub const fn not_posted() -> Decision {
    rule(16, Action::Hold, Reason::NotPosted)
}

/// Rule 16: a trial found that the platform's relations accept no refund at all, of any account.
pub const fn cannot_post() -> Decision {
    rule(16, Action::Hold, Reason::CannotPost)
}

/// Rule 16: the charge's account or draw has changed since the first refund or recovery for it.
pub const fn charge_changed() -> Decision {
    rule(16, Action::Hold, Reason::ChargeChanged)
}

/// Rule 2: together with the platform's own refunds, this refund would exceed the charge's draw.
pub const fn exceeds_draw() -> Decision {
    rule(2, Action::Hold, Reason::AlreadyRefunded)
}

/// Rule 3: the platform's relation rejects the relink. The output is not lost, so nothing is
/// refunded.
pub const fn cannot_relink() -> Decision {
    rule(3, Action::Hold, Reason::CannotRelink)
}
