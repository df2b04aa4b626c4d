//! Checks whether the database answers, has what makegood needs, and grants the necessary rights.

use super::{Findings, Grade, connection, posting};
use crate::cli::parts::open_store;
use crate::cli::words::count;
use crate::clock::Clock;
use crate::config::{DatabaseKind, Settings};
use crate::duration::format_rounded;
use crate::report::chain;
use crate::store::{DbError, LEDGER_SAMPLE, OWN_VERSION, Store, Unlinked, UnlinkedRefunds, WholeRead, Why};

const MIGRATE: &str = "run `makegood migrate`";
/// A larger difference between clocks is a warning.
const MAX_CLOCK_SKEW: std::time::Duration = std::time::Duration::from_secs(30);

/// Opens the database. It does not create a missing file; `makegood migrate` does.
pub(super) async fn open(settings: &Settings, found: &mut Findings) -> Option<Store> {
    let url = &settings.database.url;
    let kind = match url.kind() {
        DatabaseKind::Postgres => "PostgreSQL",
        DatabaseKind::Sqlite => "SQLite: for trying out and simulations, not for production",
    };
    if url.file().is_some_and(|file| !file.exists()) {
        found.fail(
            "database",
            format!("there is no file {url}"),
            "check database.url; `makegood migrate` creates the file",
        );
        return None;
    }
    let opened = async {
        let store = open_store(settings).await?;
        let now = store.now().await?;
        Ok::<_, DbError>((store, now))
    };
    match opened.await {
        Ok((store, now)) => {
            found.ok("database", format!("{url} answers ({kind})"));
            connection::check(&store, found);
            let here = Clock::System.now();
            let apart = now.since(here).max(here.since(now));
            if apart > MAX_CLOCK_SKEW {
                found.warn(
                    "clock",
                    format!("this machine's clock and the database's are {} apart", format_rounded(apart)),
                    "makegood uses the database's clock; correct this machine's",
                );
            }
            Some(store)
        }
        Err(DbError::Connect(refusal)) => {
            found.fail("database", refusal.what(), refusal.remedy());
            None
        }
        Err(error) => {
            found.fail(
                "database",
                chain(&error),
                "check database.url or DATABASE_URL, and whether the server is up",
            );
            None
        }
    }
}

/// Checks the relations, tables, indexes and rights. Returns whether passes can work.
pub(super) async fn check(store: &Store, found: &mut Findings) -> bool {
    let contract = contract(store, found).await;
    if contract {
        super::times::check(store, found).await;
    }
    let own = own_tables(store, found).await;
    let writes = posting::takes_writes(store, found).await;
    if contract && own {
        indexes(store, found).await;
        let granted = rights(store, found).await;
        posting::check(store, writes && granted, found).await;
    }
    contract && own
}

/// Looks for refunds of the platform that passes cannot see. These would be paid a second time.
pub(super) async fn refunds(store: &Store, found: &mut Findings) {
    const ABOUT: &str = "refunds";
    const LINK: &str = "see docs/adopting.md on how to link refunds";
    let unlinked = match store.unlinked_refunds().await {
        Ok(unlinked) => unlinked,
        Err(error) => {
            let says = format!("the platform's own refunds could not be read: {}", chain(&error));
            found.warn(ABOUT, says, "see whether `ledger_entries` can be searched by `charge_id`");
            return;
        }
    };
    if unlinked.is_empty() {
        found.ok(
            ABOUT,
            format!("no refund of the platform's own is unlinked in a sample of {LEDGER_SAMPLE} entries"),
        );
    }
    for UnlinkedRefunds { lack, entries, examples } in unlinked {
        let many = count(i128::from(entries), "refund", "refunds");
        let examples: Vec<String> = examples.iter().map(|id| format!("`{id}`")).collect();
        let examples = examples.join(", ");
        match lack {
            Unlinked::NoCharge => found.warn(
                ABOUT,
                format!("{many} of the platform's own in ledger_entries without a charge: {examples}; no pass can see these, so they would be refunded a second time"),
                format!("let each name its charge and item; {LINK}"),
            ),
            Unlinked::UnknownCharge => found.warn(
                ABOUT,
                format!("{many} of the platform's own in ledger_entries for a charge that is not in charges: {examples}; no pass can see these"),
                format!("let charge_id be the id of the row in charges; {LINK}"),
            ),
            Unlinked::NoItem => found.warn(
                ABOUT,
                format!("{many} of the platform's own in ledger_entries for a charge and none of its items: {examples}; the rest of such a charge is held for a person"),
                format!("set output_index; {LINK}"),
            ),
        }
    }
}

async fn contract(store: &Store, found: &mut Findings) -> bool {
    let flaws = match store.contract().await {
        Ok(flaws) => flaws,
        Err(error) => {
            found.fail("contract", format!("the relations could not be described: {}", chain(&error)), "");
            return false;
        }
    };
    for flaw in &flaws {
        let grade = if flaw.fails { Grade::Fail } else { Grade::Warn };
        found.add(grade, &format!("contract: {}", flaw.relation), &*flaw.says, &*flaw.advice);
    }
    if flaws.is_empty() {
        found.ok("contract", "5 relations with the required columns and types");
    }
    !flaws.iter().any(|flaw| flaw.fails)
}

async fn own_tables(store: &Store, found: &mut Findings) -> bool {
    match store.own_version().await {
        Ok(Some(OWN_VERSION)) => {
            found.ok("own tables", format!("up to date (version {OWN_VERSION})"));
            true
        }
        Ok(Some(newer)) if newer > OWN_VERSION => {
            found.warn(
                "own tables",
                format!("version {newer}: made by a newer makegood; this one knows version {OWN_VERSION}"),
                "correct during an upgrade; otherwise use the newer makegood",
            );
            true
        }
        Ok(older) => {
            let older = older.map_or_else(|| "none".to_owned(), |version| version.to_string());
            found.fail("own tables", format!("version {older} instead of {OWN_VERSION}"), MIGRATE);
            false
        }
        Err(error) if error.is_about_missing_tables() => {
            found.fail("own tables", "they do not exist", MIGRATE);
            false
        }
        Err(error) => {
            found.fail("own tables", chain(&error), MIGRATE);
            false
        }
    }
}

/// Checks whether the statements of a pass search the platform's relations by index.
async fn indexes(store: &Store, found: &mut Findings) {
    let reads = match store.whole_reads().await {
        Ok(reads) => reads,
        Err(error) => {
            let says = format!("the plans of the statements could not be read: {}", chain(&error));
            found.warn("indexes", says, "see whether a view on the platform's tables fails");
            return;
        }
    };
    if reads.is_empty() {
        found.ok("indexes", "no statement of a pass reads a whole relation of the platform's");
    }
    for read in reads {
        let about = format!("indexes: {}", read.relation);
        let (says, advice) = (whole_read(&read), index_advice(&read));
        if store.is_postgres() {
            found.fail(&about, says, advice);
        } else {
            found.warn(&about, says, advice);
        }
    }
}

fn whole_read(read: &WholeRead) -> String {
    let statements: Vec<String> = read.statements.iter().map(|name| format!("`{name}`")).collect();
    let tables = read.tables.join(" and ");
    let is_view = read.tables.iter().any(|table| table.split('.').next_back() != Some(read.relation));
    let behind = if is_view { format!(" (behind `{}`)", read.relation) } else { String::new() };
    let statements = statements.join(", ");
    if read.why == Why::Function {
        return format!(
            "`{}` is what the function {tables} returns: all of it for each search",
            read.relation
        );
    }
    if read.why == Why::EachChunk {
        return format!(
            "{statements} would read each stretch of time in {tables}{behind} again for every chunk of it: the view groups \
             or sorts before it returns the first charge"
        );
    }
    format!("{statements} would read the whole of {tables}{behind}")
}

fn index_advice(read: &WholeRead) -> String {
    let columns: Vec<String> = read.columns.iter().map(|column| format!("`{column}`")).collect();
    let come = if columns.len() == 1 { "comes" } else { "come" };
    let source = format!("what {} of `{}` {come} from", columns.join(" and "), read.relation);
    match &read.index {
        _ if read.why == Why::Function => {
            "write the view over tables, or the function so that PostgreSQL puts its query into the view (LANGUAGE sql, \
             STABLE, one SELECT)"
                .to_owned()
        }
        _ if read.why == Why::EachChunk => format!(
            "write the view without GROUP BY, DISTINCT, ORDER BY and window functions: a sum of other rows as a sub-select, \
             or as CROSS JOIN LATERAL (SELECT sum(…) … WHERE …) (docs/adopting.md, \"Over views\"), and an index on what \
             {} of `{}` come from",
            columns.join(" and "),
            read.relation
        ),
        _ if columns.is_empty() => format!(
            "each column of `{0}` can be searched by itself, but not in these statements: write the view without GROUP BY, DISTINCT and LIMIT, \
             and give each table that it joins a key on the joined columns",
            read.relation
        ),
        Some(index) => format!("create an index on {source}: {index}"),
        None if read.why == Why::Computed => format!(
            "create an index that begins with {source}; no index serves what an aggregate, a window function or a function \
             computes: let the view show a column of a table there (docs/adopting.md, \"Over views\")"
        ),
        None => format!("create an index that begins with {source}"),
    }
}

/// Returns whether no right is missing.
async fn rights(store: &Store, found: &mut Findings) -> bool {
    match store.missing_rights().await {
        Ok(missing) if missing.is_empty() => {
            excess(store, found).await;
            return true;
        }
        Ok(missing) => {
            let list: Vec<String> =
                missing.iter().map(|(relation, right)| format!("{right} on {relation}")).collect();
            found.fail(
                "rights",
                format!(
                    "{} missing for a pass: {}",
                    count(missing.len() as i128, "right is", "rights are"),
                    list.join(", ")
                ),
                "grant them to the role that runs passes; `explain` and `report` only read",
            );
        }
        Err(error) => found.warn("rights", format!("could not be read: {}", chain(&error)), ""),
    }
    false
}

/// Looks for rights by which the role of the passes could raise balances.
async fn excess(store: &Store, found: &mut Findings) {
    let read = async { Ok::<_, DbError>((store.excess_rights().await?, store.open_schemas().await?)) };
    let (excess, open) = match read.await {
        Ok(read) => read,
        Err(error) => {
            found.warn("rights", format!("could not be read: {}", chain(&error)), "");
            return;
        }
    };
    let (erases, excess): (Vec<_>, Vec<_>) = excess.into_iter().partition(|(_, right)| right == "EXECUTE");
    for (function, _) in erases {
        found.warn(
            "rights",
            format!("this role could erase evidence by itself: EXECUTE on {function}"),
            "no pass needs that: grant it to a role of its own (docs/erasure.md)",
        );
    }
    if excess.is_empty() {
        found.ok("rights", "enough for a pass, and no right to raise a balance");
    } else {
        let list: Vec<String> =
            excess.iter().map(|(relation, right)| format!("{right} on {relation}")).collect();
        found.warn(
            "rights",
            format!("this role could raise balances by itself: {}", list.join(", ")),
            "no pass needs that: run passes as a role of its own without these rights (docs/adopting.md, \
             \"The database role\")",
        );
    }
    if !open.is_empty() {
        let list: Vec<String> =
            open.iter().map(|(schema, roles)| format!("{roles} in schema `{schema}`")).collect();
        found.warn(
            "search path",
            format!("roles other than the owner may create objects in its schemas: {}", list.join("; ")),
            "such an object could be run with makegood's rights: REVOKE CREATE ON SCHEMA … FROM …",
        );
    }
}
