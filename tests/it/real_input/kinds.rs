//! The kinds of charges, and the expected result of each of their items: written by hand from the
//! promises and the rules of the table, never computed by makegood.

const REPLICATE: &str = "replicate";
const FAL: &str = "fal";
const VEO: &str = "veo-gemini";
/// A provider without a server.
pub const OFFLINE: &str = "offline";

/// No orphan, ever.
pub const NOTHING: &str = "-";
/// Still open, for any reason.
pub const OPEN: &str = "open *";

const RECOVERED: &str = "recovered output_available";
const RELINKED: &str = "relinked misattributed";
const MISSING: &str = "refunded missing_output";
const BROKEN: &str = "refunded provider_error";
const SERVER: &str = "refunded server_error";
const UNSAFE: &str = "refunded content_safety";
const CANCELLED: &str = "refunded provider_cancelled";
const NEVER: &str = "refunded never_returned";
const EXPIRED: &str = "refunded output_expired";
const REPORTED: &str = "refunded reported_failed";
const RUNNING: &str = "open still_running";
const RETRY: &str = "open recovery_retry";
const UNREADABLE: &str = "open unreadable";

/// One kind of charge, of which there are many.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub name: &'static str,
    /// How many charges of each round are of it.
    pub weight: usize,
    pub provider: &'static str,
    pub job: Job,
    /// `state reason` of each item's orphan in the end.
    pub wants: &'static [&'static str],
    pub twist: Twist,
}

/// Which jobs a charge was bought from; the simulated provider reads the fate out of a job's id.
#[derive(Clone, Copy, Debug)]
pub enum Job {
    /// It was never submitted.
    None,
    /// All items belong to one job that ends like this.
    One(&'static str),
    /// Each item has a job of its own.
    Each(&'static [&'static str]),
    /// One job that ends like this, shared charge by charge with other kinds of the same word.
    Shared(&'static str, &'static str),
}

/// What is unusual about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twist {
    Plain,
    /// Charged so lately that a missing job may still appear.
    Young,
    /// `charged_at` is still to come.
    Future,
    /// The user cancelled.
    Cancelled,
    /// The platform recorded a failure.
    Failed,
    /// It cost nothing.
    Free,
    /// One credit more was drawn than the items cost.
    Mismatched,
    /// There are no items.
    NoItems,
    /// The account has no balance rows.
    NoBalance,
    /// The platform has refunded item 0 itself.
    RefundedFirst,
    /// The platform has refunded item 0 and names no item.
    RefundedWhole,
    /// So many items, from 0, are stored where they belong.
    Stored(usize),
    /// The user deleted what was stored.
    Deleted,
    /// A person moved what was stored.
    Moved,
    /// Stored, and linked to nothing.
    Unlinked,
    /// Stored and linked, in the wrong project.
    WrongPlace,
    /// Stored, and linked to the charge of that kind with the same number.
    StoredOn(&'static str),
}

const fn one(
    name: &'static str,
    weight: usize,
    provider: &'static str,
    fate: &'static str,
    wants: &'static [&'static str],
) -> Kind {
    Kind { name, weight, provider, job: Job::One(fate), wants, twist: Twist::Plain }
}

const fn none(
    name: &'static str,
    weight: usize,
    provider: &'static str,
    wants: &'static [&'static str],
) -> Kind {
    Kind { name, weight, provider, job: Job::None, wants, twist: Twist::Plain }
}

const fn each(
    name: &'static str,
    weight: usize,
    provider: &'static str,
    fates: &'static [&'static str],
    wants: &'static [&'static str],
) -> Kind {
    Kind { name, weight, provider, job: Job::Each(fates), wants, twist: Twist::Plain }
}

impl Kind {
    const fn but(self, twist: Twist) -> Self {
        Self { twist, ..self }
    }

    const fn shared(self, fate: &'static str, word: &'static str) -> Self {
        Self { job: Job::Shared(fate, word), ..self }
    }

    /// How many items become orphans.
    pub fn orphans(&self) -> usize {
        self.wants.iter().filter(|want| **want != NOTHING).count()
    }

    /// As charges name it.
    pub fn model(&self) -> &'static str {
        match self.provider {
            FAL => "fal-ai/still/life",
            VEO => "veo-simulated",
            _ => "acme/still-life",
        }
    }
}

/// Charges that all is well with.
pub const WELL: &[Kind] = &[
    one("well r", 40, REPLICATE, "ok", &[NOTHING]).but(Twist::Stored(1)),
    one("well f", 30, FAL, "ok", &[NOTHING]).but(Twist::Stored(1)),
    one("well v", 15, VEO, "ok", &[NOTHING]).but(Twist::Stored(1)),
    one("well batch", 8, FAL, "ok4", &[NOTHING; 4]).but(Twist::Stored(4)),
    each("well shots", 2, REPLICATE, &["ok", "ok", "ok"], &[NOTHING; 3]).but(Twist::Stored(3)),
    one("deleted", 2, FAL, "ok", &[NOTHING]).but(Twist::Deleted),
    one("moved", 1, VEO, "ok", &[NOTHING]).but(Twist::Moved),
    one("free", 1, REPLICATE, "failed", &[NOTHING]).but(Twist::Free),
    one("future", 1, REPLICATE, "failed", &[NOTHING]).but(Twist::Future),
];

/// Charges with at least one output that is not in its place, and their partners.
pub const TROUBLED: &[Kind] = &[
    // Replicate: one question.
    one("r ok", 8, REPLICATE, "ok", &[RECOVERED]),
    one("r video", 1, REPLICATE, "ok-video", &[RECOVERED]),
    one("r batch", 2, REPLICATE, "ok4", &[RECOVERED; 4]),
    one("r one failed", 2, REPLICATE, "one-failed", &[RECOVERED, RECOVERED, RECOVERED, MISSING]),
    one("r words", 1, REPLICATE, "inline", &[RECOVERED]),
    one("r empty", 1, REPLICATE, "empty", &[MISSING]),
    one("r failed", 4, REPLICATE, "failed", &[BROKEN]),
    one("r failed batch", 2, REPLICATE, "failed", &[BROKEN; 3]),
    one("r safety", 2, REPLICATE, "safety", &[UNSAFE]),
    one("r aborted", 1, REPLICATE, "queue-timeout", &[CANCELLED]),
    one("r cancelled", 1, REPLICATE, "cancelled", &[CANCELLED]).but(Twist::Cancelled),
    one("r queued", 1, REPLICATE, "queued", &[RUNNING]),
    one("r running", 2, REPLICATE, "running", &[RUNNING]),
    one("r partial", 1, REPLICATE, "partial", &[RUNNING; 2]),
    one("r unknown", 2, REPLICATE, "unknown", &[NEVER]),
    one("r unknown young", 1, REPLICATE, "unknown", &["open maybe_not_visible_yet"]).but(Twist::Young),
    one("r expired", 2, REPLICATE, "expired", &[EXPIRED]),
    one("r gone", 1, REPLICATE, "gone", &[EXPIRED]),
    one("r lost", 1, REPLICATE, "lost", &[EXPIRED]),
    one("r forbidden", 1, REPLICATE, "forbidden", &[RETRY]),
    one("r file down", 1, REPLICATE, "file-down", &[RETRY]),
    one("r file broken", 1, REPLICATE, "file-broken", &[RETRY]),
    one("r unauthorized", 1, REPLICATE, "unauthorized", &["open unauthorized"]),
    one("r rate limited", 1, REPLICATE, "ratelimited", &["open rate_limited"]),
    one("r redirect", 1, REPLICATE, "redirect", &[UNREADABLE]),
    one("r garbage", 1, REPLICATE, "garbage", &[UNREADABLE]),
    one("r novel", 1, REPLICATE, "novel", &[UNREADABLE]),
    one("r deep", 1, REPLICATE, "deep", &[UNREADABLE]),
    // fal: the status, then the result.
    one("f ok", 8, FAL, "ok", &[RECOVERED]),
    one("f batch", 2, FAL, "ok4", &[RECOVERED; 4]),
    one("f two of three", 2, FAL, "two-of-three", &[RECOVERED, RECOVERED, MISSING]),
    one("f words", 1, FAL, "inline", &[RECOVERED]),
    one("f empty", 1, FAL, "empty", &[MISSING]),
    one("f failed", 4, FAL, "failed", &[SERVER]),
    one("f failed batch", 2, FAL, "failed", &[SERVER; 4]),
    one("f safety", 2, FAL, "safety", &[UNSAFE]),
    one("f queue timeout", 2, FAL, "queue-timeout", &["refunded queue_timeout"]),
    one("f cancelled", 1, FAL, "cancelled", &[CANCELLED]),
    one("f queued", 1, FAL, "queued", &[RUNNING]),
    one("f running", 2, FAL, "running", &[RUNNING]),
    one("f unknown", 2, FAL, "unknown", &[NEVER]),
    one("f result dropped", 1, FAL, "expired", &[UNREADABLE]),
    one("f gone", 1, FAL, "gone", &[EXPIRED]),
    one("f lost", 1, FAL, "lost", &[EXPIRED]),
    one("f file down", 1, FAL, "file-down", &[RETRY]),
    // Veo: a long-running operation; its ids are paths.
    one("v ok", 6, VEO, "ok", &[RECOVERED]),
    one("v batch", 2, VEO, "ok2", &[RECOVERED; 2]),
    one("v one held back", 2, VEO, "one-failed", &[RECOVERED, RECOVERED, RECOVERED, UNSAFE]),
    one("v inside", 1, VEO, "inline", &[RECOVERED]),
    one("v empty", 1, VEO, "empty", &[MISSING]),
    one("v failed", 3, VEO, "failed", &[SERVER]),
    one("v safety", 2, VEO, "safety", &[UNSAFE]),
    one("v deadline", 1, VEO, "queue-timeout", &[SERVER]),
    one("v cancelled", 1, VEO, "cancelled", &[CANCELLED]),
    one("v running", 2, VEO, "running", &[RUNNING]),
    one("v unknown", 1, VEO, "unknown", &[NEVER]),
    one("v expired", 1, VEO, "expired", &[EXPIRED]),
    one("v forbidden", 1, VEO, "forbidden", &[RETRY]),
    // Whatever the provider.
    none("never submitted", 2, FAL, &["refunded no_provider_job"]),
    none("maybe not submitted", 1, VEO, &["open maybe_not_submitted_yet"]).but(Twist::Young),
    one("nobody's", 1, "nobody", "failed", &["open unknown_provider"]),
    one("offline", 1, OFFLINE, "failed", &[OPEN]),
    each("shots", 3, REPLICATE, &["ok", "failed", "running"], &[RECOVERED, BROKEN, RUNNING]),
    each("shots f", 2, FAL, &["ok", "safety", "unknown", "ok"], &[RECOVERED, UNSAFE, NEVER, RECOVERED]),
    // The failure that the platform recorded.
    one("reported", 3, REPLICATE, "running", &[REPORTED]).but(Twist::Failed),
    one("reported unknown", 1, FAL, "unknown", &[REPORTED]).but(Twist::Failed),
    one("reported, yet made", 2, VEO, "ok", &[RECOVERED]).but(Twist::Failed),
    one("cancelled, yet made", 1, FAL, "ok", &[RECOVERED]).but(Twist::Cancelled),
    one("cancelled, made, gone", 1, REPLICATE, "expired", &["closed completed_after_cancel"])
        .but(Twist::Cancelled),
    one("refunded by platform", 1, REPLICATE, "failed", &["closed already_refunded", BROKEN])
        .but(Twist::RefundedFirst),
    one("refunded as a whole", 1, FAL, "failed", &["held already_refunded"; 2]).but(Twist::RefundedWhole),
    // The stored output, and its place.
    one("rest of a batch", 1, FAL, "ok4", &[NOTHING, NOTHING, NOTHING, RECOVERED]).but(Twist::Stored(3)),
    one("rest of a short batch", 1, REPLICATE, "two-of-three", &[NOTHING, RECOVERED, MISSING])
        .but(Twist::Stored(1)),
    one("swapped a", 1, REPLICATE, "ok", &[RELINKED]).but(Twist::StoredOn("swapped b")),
    one("swapped b", 1, REPLICATE, "ok", &[RELINKED]).but(Twist::StoredOn("swapped a")),
    one("ring a", 1, FAL, "ok", &[RELINKED]).but(Twist::StoredOn("ring b")),
    one("ring b", 1, FAL, "ok", &[RELINKED]).but(Twist::StoredOn("ring c")),
    one("ring c", 1, FAL, "ok", &[RELINKED]).but(Twist::StoredOn("ring a")),
    one("lent", 1, VEO, "ok", &[RELINKED]).but(Twist::StoredOn("borrower")),
    one("borrower", 1, VEO, "failed", &[SERVER]),
    one("unlinked", 1, VEO, "ok", &[RELINKED]).but(Twist::Unlinked),
    one("in the wrong place", 1, FAL, "ok", &[RELINKED]).but(Twist::WrongPlace),
    one("claimed", 1, REPLICATE, "ok", &["held duplicate_job"]).but(Twist::StoredOn("claimant")),
    none("claimant", 1, REPLICATE, &[NOTHING]),
    one("rival a", 1, FAL, "ok", &["held duplicate_job"]).shared("ok", "rival"),
    one("rival b", 1, FAL, "ok", &["held duplicate_job"]).shared("ok", "rival"),
    // Cases that a person has to correct.
    one("mismatched", 1, REPLICATE, "failed", &["held items_mismatch"]).but(Twist::Mismatched),
    one("no items", 1, FAL, "failed", &["held items_mismatch"]).but(Twist::NoItems),
    one("no balance", 1, VEO, "failed", &["held no_balance"]).but(Twist::NoBalance),
];

/// Many refunds for few questions, beside recoveries that must go on: for the brake.
pub const MOSTLY_REFUNDS: &[Kind] = &[
    one("f failed batch", 10, FAL, "failed", &[SERVER; 9]),
    one("r failed batch", 6, REPLICATE, "failed", &[BROKEN; 9]),
    one("v safety", 4, VEO, "safety", &[UNSAFE; 2]),
    one("r ok", 4, REPLICATE, "ok", &[RECOVERED]),
    one("f ok", 4, FAL, "ok", &[RECOVERED]),
    one("v ok", 4, VEO, "ok", &[RECOVERED]),
    one("r running", 2, REPLICATE, "running", &[RUNNING]),
    one("unlinked", 2, VEO, "ok", &[RELINKED]).but(Twist::Unlinked),
];
