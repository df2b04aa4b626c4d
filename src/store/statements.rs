//! Every statement there is: its text stands in a `.sql` file of its name.
//!
//! `both/` where the dialects agree, else one file in `postgres/` and one in `sqlite/`. [`ALL`] lists them,
//! so that a test can have each one prepared by both databases: none goes unchecked.

use super::db::Statement;

macro_rules! statements {
    (both { $($both:ident = $both_name:literal,)* } each { $($each:ident = $each_name:literal,)* }) => {
        $(pub const $both: &Statement = &Statement {
            name: $both_name,
            postgres: include_str!(concat!("both/", $both_name, ".sql")),
            sqlite: include_str!(concat!("both/", $both_name, ".sql")),
        };)*
        $(pub const $each: &Statement = &Statement {
            name: $each_name,
            postgres: include_str!(concat!("postgres/", $each_name, ".sql")),
            sqlite: include_str!(concat!("sqlite/", $each_name, ".sql")),
        };)*
        /// All of them.
        pub const ALL: &[&Statement] = &[$($both,)* $($each,)*];
    };
}

statements! {
    both {
    ADD_TO_BALANCE = "add_to_balance",
    BRAKE_ENGAGE = "brake_engage",
    BRAKE_FREE_ORPHANS = "brake_free_orphans",
    BRAKE_RELEASE = "brake_release",
    BRAKE_STATE = "brake_state",
    CHARGES_IN_THE_FUTURE = "charges_in_the_future",
    CHUNK_END = "chunk_end",
    COUNTERS = "counters",
    CURSOR_POSITION = "cursor_position",
    DUE_ORPHANS = "due_orphans",
    DUE_PROVIDERS = "due_providers",
    FIND_FAILED = "find_failed",
    HASTEN_FAILED = "hasten_failed",
    INSERT_BRAKE_EVENT = "insert_brake_event",
    LAST_PASS = "last_pass",
    LAST_SUCCESS = "last_success",
    PASS_BEGIN = "pass_begin",
    PASS_FINISH = "pass_finish",
    UNRESOLVED = "unresolved",
    }
    each {
    BALANCE_ROWS = "balance_rows",
    BRAKE_LOCK = "brake_lock",
    BRAKE_RECENT = "brake_recent",
    CLAIM = "claim",
    CLOCK = "clock",
    COUNT_UP = "count_up",
    CURSOR_ADVANCE = "cursor_advance",
    EXTEND_LEASES = "extend_leases",
    FIND_LISTED = "find_listed",
    FIND_UNDELIVERED = "find_undelivered",
    INSERT_ANSWERS = "insert_answers",
    INSERT_EVENTS = "insert_events",
    INSERT_LEDGER_ENTRIES = "insert_ledger_entries",
    INSERT_RECOVERIES = "insert_recoveries",
    INSERT_REFUNDS = "insert_refunds",
    INSERT_RESOLUTIONS = "insert_resolutions",
    INSERT_STORED_OUTPUTS = "insert_stored_outputs",
    ITEMS_OF_CHARGES = "items_of_charges",
    ITEMS_OF_JOBS = "items_of_jobs",
    LOCK_CHARGES = "lock_charges",
    LOCK_ORPHANS = "lock_orphans",
    OPEN_ORPHANS = "open_orphans",
    ORPHAN_ROWS = "orphan_rows",
    OUTPUTS_OF_CHARGES = "outputs_of_charges",
    OUTPUTS_OF_JOBS = "outputs_of_jobs",
    RAISE_REFUNDED = "raise_refunded",
    REFUNDS_OF_CHARGES = "refunds_of_charges",
    RELEASE_LEASES = "release_leases",
    RELINK_OUTPUTS = "relink_outputs",
    REOPEN_ORPHANS = "reopen_orphans",
    SETTLE_ORPHANS = "settle_orphans",
    SUPERSEDE_RESOLUTIONS = "supersede_resolutions",
    }
}
