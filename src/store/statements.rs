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
    BALANCE_NOW = "balance_now",
    BALANCE_TWICE = "balance_twice",
    BRAKE_ENGAGE = "brake_engage",
    BRAKE_EVENTS = "brake_events",
    BRAKE_FREE_ORPHANS = "brake_free_orphans",
    BRAKE_RELEASE = "brake_release",
    BRAKE_STATE = "brake_state",
    CHARGES_IN_THE_FUTURE = "charges_in_the_future",
    CHUNK_END = "chunk_end",
    CONTRACT_ACCOUNTS = "contract_accounts",
    CONTRACT_BALANCES = "contract_balances",
    CONTRACT_CHARGE_ITEMS = "contract_charge_items",
    CONTRACT_CHARGES = "contract_charges",
    CONTRACT_LEDGER_ENTRIES = "contract_ledger_entries",
    CONTRACT_STORED_OUTPUTS = "contract_stored_outputs",
    COUNTERS = "counters",
    CURSOR_POSITION = "cursor_position",
    DUE_ORPHANS = "due_orphans",
    DUE_PROVIDERS = "due_providers",
    FIND_FAILED = "find_failed",
    FIND_LEFTOVERS = "find_leftovers",
    HASTEN_FAILED = "hasten_failed",
    INSERT_BRAKE_EVENT = "insert_brake_event",
    LAST_PASS = "last_pass",
    LAST_SUCCESS = "last_success",
    NAME_UPLOAD = "name_upload",
    NOTE_PROVIDER_STATE = "note_provider_state",
    ORPHANS_OF_CHARGE = "orphans_of_charge",
    OWN_VERSION = "own_version",
    PASS_BEGIN = "pass_begin",
    PASS_FINISH = "pass_finish",
    PROVIDER_STATES = "provider_states",
    RECENT_PROVIDERS = "recent_providers",
    REVIEW_MADE_GOOD = "review_made_good",
    REVIEW_MADE_GOOD_ITEMS = "review_made_good_items",
    REVIEW_UNRESOLVED = "review_unresolved",
    REVIEW_UNRESOLVED_ITEMS = "review_unresolved_items",
    STORY_ANSWERS = "story_answers",
    STORY_CHARGE = "story_charge",
    STORY_EVENTS = "story_events",
    STORY_ITEMS = "story_items",
    STORY_ORPHANS = "story_orphans",
    STORY_OUTPUTS = "story_outputs",
    STORY_REFUNDS = "story_refunds",
    STORY_RESOLUTIONS = "story_resolutions",
    UNRESOLVED = "unresolved",
    }
    each {
    ADD_TO_BALANCES = "add_to_balances",
    BALANCE_ROWS = "balance_rows",
    BEGIN_UPLOADS = "begin_uploads",
    BRAKE_LOCK = "brake_lock",
    BRAKE_RECENT = "brake_recent",
    CLAIM = "claim",
    CLOCK = "clock",
    COUNT_UP = "count_up",
    CURSOR_ADVANCE = "cursor_advance",
    END_DEAD_LEASES = "end_dead_leases",
    EXTEND_LEASES = "extend_leases",
    FIND_LISTED = "find_listed",
    FIND_UNDELIVERED = "find_undelivered",
    FORGET_UPLOADS = "forget_uploads",
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
    MARK_SWEPT = "mark_swept",
    MISSING_RIGHTS = "missing_rights",
    OPEN_ORPHANS = "open_orphans",
    ORPHAN_ROWS = "orphan_rows",
    OUTPUTS_OF_CHARGES = "outputs_of_charges",
    OUTPUTS_OF_JOBS = "outputs_of_jobs",
    RAISE_REFUNDED = "raise_refunded",
    REFUNDS_OF_CHARGES = "refunds_of_charges",
    RELATION_KINDS = "relation_kinds",
    RELEASE_LEASES = "release_leases",
    RELINK_OUTPUTS = "relink_outputs",
    REOPEN_ORPHANS = "reopen_orphans",
    SETTLE_ORPHANS = "settle_orphans",
    SUPERSEDE_RESOLUTIONS = "supersede_resolutions",
    }
}
