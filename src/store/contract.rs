//! Whether the database is as makegood needs it, for `makegood check`, `makegood migrate` and the
//! start of a pass.
//!
//! Columns are described, not read (`types`): so a wrong one is found on empty tables too. SQLite
//! has no types that hold; there a row is read as a pass would read it, and on PostgreSQL too once
//! all types fit. What writes the relations take, and what row security hides, is in `writes`; what
//! comes of a refund or an output is tried in `settle::trial`. Writes nothing that stays.

use serde_json::{Value as Json, json};

use super::db::{DbError, Row, Statement};
use super::{Store, first, statements};
use crate::clock::Timestamp;

mod types;
mod writes;

pub use writes::Balance;

use types::{Found, Wanted};

/// Its name, what makegood reads it as, and whether it may be null.
type Column = (&'static str, Wanted, bool);

/// The contract relations, each with the statement that reads one row, and with its columns.
const RELATIONS: [(&str, &Statement, &[Column]); 6] = [
    (
        "charges",
        statements::CONTRACT_CHARGES,
        &[
            ("id", Wanted::Text, false),
            ("account_id", Wanted::Text, false),
            ("project_id", Wanted::Text, true),
            ("node_id", Wanted::Text, true),
            ("provider", Wanted::Text, false),
            ("model", Wanted::Text, false),
            ("provider_job_id", Wanted::Text, true),
            ("charged_at", Wanted::Instant, false),
            ("subscription_credits", Wanted::Whole, false),
            ("wallet_credits", Wanted::Whole, false),
            ("cancelled_at", Wanted::Instant, true),
        ],
    ),
    (
        "charge_items",
        statements::CONTRACT_CHARGE_ITEMS,
        &[
            ("charge_id", Wanted::Text, false),
            ("output_index", Wanted::Whole, false),
            ("credits", Wanted::Whole, false),
            ("provider_job_id", Wanted::Text, true),
            ("provider_output_index", Wanted::Whole, true),
            ("failed_at", Wanted::Instant, true),
        ],
    ),
    (
        "stored_outputs",
        statements::CONTRACT_STORED_OUTPUTS,
        &[
            ("id", Wanted::Text, false),
            ("charge_id", Wanted::Text, true),
            ("output_index", Wanted::Whole, true),
            ("provider", Wanted::Text, false),
            ("provider_job_id", Wanted::Text, false),
            ("provider_output_index", Wanted::Whole, false),
            ("project_id", Wanted::Text, true),
            ("node_id", Wanted::Text, true),
            ("uri", Wanted::Text, true),
            ("content_type", Wanted::Text, true),
            ("size_bytes", Wanted::Whole, true),
            ("sha256", Wanted::Text, true),
            ("stored_at", Wanted::Instant, false),
            ("moved_at", Wanted::Instant, true),
            ("deleted_at", Wanted::Instant, true),
        ],
    ),
    (
        "balances",
        statements::CONTRACT_BALANCES,
        &[
            ("account_id", Wanted::Text, false),
            ("bucket", Wanted::Text, false),
            ("credits", Wanted::Whole, false),
        ],
    ),
    (
        "ledger_entries",
        statements::CONTRACT_LEDGER_ENTRIES,
        &[
            ("id", Wanted::Text, false),
            ("account_id", Wanted::Text, false),
            ("bucket", Wanted::Text, false),
            ("credits", Wanted::Whole, false),
            ("kind", Wanted::Text, false),
            ("charge_id", Wanted::Text, false),
            ("output_index", Wanted::Whole, true),
            ("refund_id", Wanted::Text, true),
            ("posted_at", Wanted::Instant, false),
        ],
    ),
    (ACCOUNTS, statements::CONTRACT_ACCOUNTS, &[("id", Wanted::Text, false), ("kind", Wanted::Text, true)]),
];

/// The relation that a platform need not have: only `explain` reads it. Nothing about it fails.
const ACCOUNTS: &str = "accounts";

/// Something that is wrong with what the platform provides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Which relation.
    pub relation: &'static str,
    /// What is wrong.
    pub says: String,
    /// What to do.
    pub advice: String,
    /// Passes fail on it or refund wrongly; otherwise it can wait.
    pub fails: bool,
}

impl Flaw {
    /// Whatever is wrong with a relation that only `explain` reads can wait.
    fn or_optional(self) -> Self {
        if self.relation != ACCOUNTS {
            return self;
        }
        let advice = format!(
            "{}; or take SELECT on it away, or leave it: only `makegood explain` reads it",
            self.advice
        );
        Self { advice, fails: false, ..self }
    }
}

const PROVIDE: &str = "provide it as a table or a view; `makegood migrate --reference-schema` makes all of them where the \
                       platform has none";

fn flaw(relation: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Flaw {
    Flaw { relation, says: says.into(), advice: advice.into(), fails: true }
}

/// How an entry of the ledger fails to say what was refunded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unlinked {
    /// It names no charge.
    NoCharge,
    /// It names a charge that there is not.
    UnknownCharge,
    /// It names a charge and none of its items.
    NoItem,
}

/// Refunds of the platform's own that passes cannot see, or not in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnlinkedRefunds {
    /// What they lack.
    pub lack: Unlinked,
    /// How many, among the entries that were read.
    pub entries: i64,
    /// The ids of one or two of them.
    pub examples: Vec<String>,
}

/// Entries that are read of each kind: so many say whether a platform links its refunds.
pub const LEDGER_SAMPLE: i64 = 10_000;

/// Charges that are read to learn which providers are in use.
const PROVIDERS_SAMPLE: i64 = 50_000;

/// Whether a view may give the column as a bare NULL, which has the type text. It works while it is
/// null, because passes compare it with nothing.
fn may_be_bare_null(name: &str, base: &str) -> bool {
    base == "text" && ["cancelled_at", "moved_at", "deleted_at"].contains(&name)
}

fn read(row: &Row, (name, wanted, nullable): Column) -> Result<(), DbError> {
    match (wanted, nullable) {
        (Wanted::Text, false) => row.text(name).map(drop),
        (Wanted::Text, true) => row.maybe_text(name).map(drop),
        (Wanted::Whole, false) => row.int(name).map(drop),
        (Wanted::Whole, true) => row.maybe_int(name).map(drop),
        (Wanted::Instant, false) => row.time(name).map(drop),
        (Wanted::Instant, true) => row.maybe_time(name).map(drop),
    }
}

impl Store {
    /// Refunds of the platform's own in the ledger that name no charge, a charge that there is not,
    /// or no item. Reads at most [`LEDGER_SAMPLE`] entries of each kind.
    pub async fn unlinked_refunds(&self) -> Result<Vec<UnlinkedRefunds>, DbError> {
        let rows = self.rows(statements::UNLINKED_REFUNDS, &[LEDGER_SAMPLE.into()]).await?;
        rows.iter()
            .map(|row| {
                let lack = match row.text("lack")?.as_str() {
                    "no_charge" => Unlinked::NoCharge,
                    "unknown_charge" => Unlinked::UnknownCharge,
                    _ => Unlinked::NoItem,
                };
                let mut examples = vec![row.text("first_example")?, row.text("last_example")?];
                examples.dedup();
                Ok(UnlinkedRefunds { lack, entries: row.int("entries")?, examples })
            })
            .collect()
    }

    /// What is wrong with the contract relations and their columns: all of it at once, on empty
    /// tables too, and before makegood's own tables are there. Empty: passes can read them.
    pub async fn contract(&self) -> Result<Vec<Flaw>, DbError> {
        let mut flaws = self.contract_columns().await?;
        for (relation, statement, columns) in RELATIONS {
            // A value is of no more interest where its type is wrong.
            let is_wrong = |flaw: &Flaw| flaw.relation == relation && (flaw.fails || relation == ACCOUNTS);
            if !flaws.iter().any(is_wrong) {
                flaws.extend(self.read_one(relation, statement, columns).await.map(Flaw::or_optional));
            }
        }
        Ok(flaws)
    }

    /// The same of all that is described and not read: no row decides.
    pub async fn contract_columns(&self) -> Result<Vec<Flaw>, DbError> {
        let columns: Vec<(&'static str, Column)> = RELATIONS
            .iter()
            .flat_map(|(relation, _, columns)| columns.iter().map(|column| (*relation, *column)))
            .collect();
        let list: Vec<Json> = columns
            .iter()
            .map(|(relation, (name, ..))| json!({"relation": relation, "name": name}))
            .collect();
        let rows = self.rows(statements::DESCRIBE_COLUMNS, &[(&Json::Array(list)).into()]).await?;
        let mut flaws: Vec<Flaw> = Vec::new();
        for ((relation, (name, wanted, _)), row) in columns.into_iter().zip(&rows) {
            if row.int("is_there")? == 0 {
                let says = "there is no such relation where this role looks (its search path)";
                if relation != ACCOUNTS && !flaws.iter().any(|flaw| flaw.relation == relation) {
                    flaws.push(flaw(relation, says, PROVIDE));
                }
                continue;
            }
            let Some(shown) = row.maybe_text("shown")? else {
                let says = format!("{relation} has no column `{name}`");
                flaws.push(flaw(relation, says, format!("add it, as `{}`", wanted.sql())));
                continue;
            };
            if !self.is_postgres() {
                continue;
            }
            let base = row.text("base")?;
            let found = Found { shown: &shown, base: &base };
            // makegood_items gives it the type of output_index.
            if name == "provider_output_index"
                && relation == "charge_items"
                && ["integer", "smallint"].contains(&base.as_str())
            {
                continue;
            }
            if let Some(misfit) = types::misfit(name, wanted, found) {
                let (says, advice) = types::words(relation, name, wanted, found, &misfit);
                let fails = misfit.fails && !may_be_bare_null(name, &base);
                flaws.push(Flaw { relation, says, advice, fails });
            }
        }
        Ok(flaws.into_iter().map(Flaw::or_optional).collect())
    }

    /// Reads one row as a pass would.
    async fn read_one(
        &self,
        relation: &'static str,
        statement: &'static Statement,
        columns: &[Column],
    ) -> Option<Flaw> {
        let advice = || format!("see whether `SELECT * FROM {relation} LIMIT 1` works for this role");
        let rows = match self.rows(statement, &[]).await {
            Ok(rows) => rows,
            // The platform need not have it, and need not let passes read it.
            Err(error)
                if relation == ACCOUNTS && (error.is_about_missing_tables() || error.is_about_rights()) =>
            {
                return None;
            }
            Err(error) => {
                let error = self.name_unreadable_time(error, u32::MAX).await;
                return Some(flaw(relation, crate::report::chain(&error), advice()));
            }
        };
        let row = rows.first()?;
        let unread = columns.iter().find(|column| read(row, **column).is_err());
        unread.map(|(name, wanted, nullable)| {
            let is = match (self.is_postgres(), *wanted) {
                (_, Wanted::Text) => "text",
                (_, Wanted::Whole) => "a whole number",
                (true, Wanted::Instant) => "a finite time",
                (false, Wanted::Instant) => "a whole number of microseconds since 1970",
            };
            let or_null = if *nullable { " or null" } else { "" };
            let id = ["id", "charge_id", "account_id"].into_iter().find_map(|id| row.text(id).ok());
            let of = id.map_or_else(String::new, |id| format!(" of `{id}`"));
            let advice = format!("it must be {is}{or_null} in each row");
            flaw(relation, format!("{relation}.{name}{of} is not {is}{or_null}"), advice)
        })
    }

    /// The newest of makegood's own migrations that the database has.
    pub async fn own_version(&self) -> Result<Option<i64>, DbError> {
        let rows = self.rows(statements::OWN_VERSION, &[]).await?;
        first(statements::OWN_VERSION, &rows)?.maybe_int("version")
    }

    /// What a pass needs and this role may not do: relation and right.
    pub async fn missing_rights(&self) -> Result<Vec<(String, String)>, DbError> {
        let rows = self.rows(statements::MISSING_RIGHTS, &[]).await?;
        rows.iter().map(|row| Ok((row.text("relation")?, row.text("needed")?))).collect()
    }

    /// What this role may do and a pass does not need, where it could raise balances or erase
    /// evidence: relation or function, and right. Nothing on SQLite, which has no roles.
    pub async fn excess_rights(&self) -> Result<Vec<(String, String)>, DbError> {
        if !self.is_postgres() {
            return Ok(Vec::new());
        }
        let rows = self.rows(statements::EXCESS_RIGHTS, &[]).await?;
        rows.iter().map(|row| Ok((row.text("relation")?, row.text("excess")?))).collect()
    }

    /// Schemas on the search path in which others than their owner may create objects, with these
    /// roles. Nothing on SQLite.
    pub async fn open_schemas(&self) -> Result<Vec<(String, String)>, DbError> {
        if !self.is_postgres() {
            return Ok(Vec::new());
        }
        let rows = self.rows(statements::OPEN_SCHEMAS, &[]).await?;
        rows.iter().map(|row| Ok((row.text("schema")?, row.text("roles")?))).collect()
    }

    /// Which providers charges name from `since` on, and how many: of the newest
    /// [`PROVIDERS_SAMPLE`] of these charges.
    pub async fn recent_providers(&self, since: Timestamp) -> Result<Vec<(String, i64)>, DbError> {
        let rows = self.rows(statements::RECENT_PROVIDERS, &[since.into(), PROVIDERS_SAMPLE.into()]).await?;
        rows.iter()
            .map(|row| Ok((row.maybe_text("provider")?.unwrap_or_default(), row.int("charges")?)))
            .collect()
    }
}
