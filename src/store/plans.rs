//! Whether the platform's relations can be searched, for `makegood check`: plans are explained,
//! nothing is run.
//!
//! The hot statements are explained on the real relations, with the plan that serves all parameters
//! and with whole reads and joins of whole relations made as dear as PostgreSQL can make them. So a
//! statement reads a whole table only where nothing else is possible, however small the tables are
//! by now, and a new installation passes. First the single searches that statements need are
//! explained by themselves, because a statement without an index may read any of its tables whole.
//! What is left is a view that can be searched alone and not in a join.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::db::{DbError, Statement};
use super::{Store, statements};

/// PostgreSQL reads a table with fewer rows in the order of an index rather than search it many
/// times.
const SMALL_TABLE: i64 = 10_000;

/// A way in which statements search a relation of the platform's: a small statement that does only
/// this.
#[derive(Debug)]
struct Search {
    statement: &'static Statement,
    relation: &'static str,
    /// What an index must begin with.
    columns: &'static [&'static str],
}

macro_rules! search {
    ($name:ident, $statement:ident, $relation:literal, [$($column:literal),+]) => {
        const $name: &Search =
            &Search { statement: statements::$statement, relation: $relation, columns: &[$($column),+] };
    };
}

search!(CHARGE, SEARCH_CHARGES_BY_ID, "charges", ["id"]);
search!(CHARGES_BY_TIME, SEARCH_CHARGES_BY_TIME, "charges", ["charged_at", "id"]);
search!(CHARGES_BY_JOB, SEARCH_CHARGES_BY_JOB, "charges", ["provider_job_id"]);
search!(ITEMS, SEARCH_ITEMS_BY_CHARGE, "charge_items", ["charge_id", "output_index"]);
search!(ITEMS_BY_JOB, SEARCH_ITEMS_BY_JOB, "charge_items", ["provider_job_id"]);
search!(ITEMS_BY_FAILURE, SEARCH_ITEMS_BY_FAILURE, "charge_items", ["failed_at"]);
search!(OUTPUTS, SEARCH_OUTPUTS_BY_ITEM, "stored_outputs", ["charge_id", "output_index"]);
search!(OUTPUTS_BY_JOB, SEARCH_OUTPUTS_BY_JOB, "stored_outputs", ["provider_job_id"]);
search!(LEDGER, SEARCH_LEDGER_BY_CHARGE, "ledger_entries", ["charge_id"]);
search!(BALANCES, SEARCH_BALANCES_BY_ACCOUNT, "balances", ["account_id", "bucket"]);

/// All of them.
const SEARCHES: [&Search; 10] = [
    CHARGE,
    CHARGES_BY_TIME,
    CHARGES_BY_JOB,
    ITEMS,
    ITEMS_BY_JOB,
    ITEMS_BY_FAILURE,
    OUTPUTS,
    OUTPUTS_BY_JOB,
    LEDGER,
    BALANCES,
];

/// The statements that every pass runs on the platform's relations, each with the searches that it
/// needs.
const HOT: [(&Statement, &[&Search]); 14] = [
    (statements::FIND_UNDELIVERED, &[CHARGES_BY_TIME, CHARGE, ITEMS, OUTPUTS, OUTPUTS_BY_JOB]),
    (statements::FIND_FAILED, &[ITEMS_BY_FAILURE, ITEMS, CHARGE, OUTPUTS]),
    (statements::FIND_LISTED, &[ITEMS, CHARGE, OUTPUTS, OUTPUTS_BY_JOB]),
    (statements::FIND_STORED_LATE, &[ITEMS, CHARGE, OUTPUTS, OUTPUTS_BY_JOB]),
    (statements::CHARGES_IN_THE_FUTURE, &[CHARGES_BY_TIME]),
    (statements::ODD_TIMES, &[CHARGES_BY_TIME, ITEMS_BY_FAILURE]),
    (statements::OPEN_ORPHANS, &[CHARGE, ITEMS]),
    (statements::ORPHAN_ROWS, &[CHARGE]),
    (statements::ITEMS_OF_CHARGES, &[ITEMS, CHARGE]),
    (statements::ITEMS_OF_JOBS, &[CHARGES_BY_JOB, ITEMS_BY_JOB, ITEMS, CHARGE]),
    (statements::OUTPUTS_OF_CHARGES, &[OUTPUTS]),
    (statements::OUTPUTS_OF_JOBS, &[OUTPUTS_BY_JOB]),
    (statements::REFUNDS_OF_CHARGES, &[LEDGER]),
    (statements::BALANCE_ROWS, &[BALANCES]),
];

/// For each relation of the platform's that passes read a statement that reads from it alone.
const RELATIONS: [(&str, &Statement); 5] = [
    ("balances", statements::CONTRACT_BALANCES),
    ("charge_items", statements::CONTRACT_CHARGE_ITEMS),
    ("charges", statements::CONTRACT_CHARGES),
    ("ledger_entries", statements::CONTRACT_LEDGER_ENTRIES),
    ("stored_outputs", statements::CONTRACT_STORED_OUTPUTS),
];

/// A relation of the platform's that statements would read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeRead {
    /// The statements.
    pub statements: Vec<&'static str>,
    /// The contract relation.
    pub relation: &'static str,
    /// The tables that are read: the relation itself, or what stands behind the view.
    pub tables: Vec<String>,
    /// The columns by which it cannot be searched. None: it can be by itself, but not from within
    /// these statements.
    pub columns: &'static [&'static str],
    /// The index to create, where the columns come from one table.
    pub index: Option<String>,
    /// Why.
    pub why: Why,
}

/// Why a relation is read whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// No index begins with the columns.
    NoIndex,
    /// No index begins with the columns, and none may help: the view aggregates, numbers rows or
    /// returns sets, and may compute the columns so.
    Computed,
    /// It can be searched by itself, and not in a join.
    InJoins,
    /// The view groups or sorts all charges of a stretch of time before the first of them comes
    /// out: each chunk reads the stretch again.
    EachChunk,
    /// It is what a function returns: all of it for each search, by reads that no plan shows.
    Function,
}

impl Store {
    /// The relations of the platform's that the statements of a pass would read whole. Writes
    /// nothing.
    pub async fn whole_reads(&self) -> Result<Vec<WholeRead>, DbError> {
        if !self.is_postgres() {
            return self.whole_searches().await;
        }
        let plans = self.db.plans(&RELATIONS.map(|(_, statement)| statement)).await?;
        // A table may stand behind several relations.
        let mut behind: BTreeMap<String, BTreeSet<&'static str>> = BTreeMap::new();
        for ((relation, _), plan) in RELATIONS.iter().zip(&plans) {
            for table in tables(plan) {
                behind.entry(table).or_default().insert(*relation);
            }
        }
        let mut found = functions(&plans);
        let indexes = self.indexes().await?;
        let whole = |plan: &Json, even_small: bool| -> BTreeSet<String> {
            let mut whole = read_whole(plan, &indexes, even_small);
            whole.retain(|table| behind.contains_key(table));
            whole
        };
        let mut explained = BTreeSet::new();
        let plans = self.db.plans(&SEARCHES.map(|search| search.statement)).await?;
        for (search, plan) in SEARCHES.iter().zip(&plans) {
            let tables = whole(plan, true);
            if !tables.is_empty() {
                let statements = search.needed_by();
                explained.extend(statements.iter().copied());
                found.push(WholeRead {
                    statements,
                    relation: search.relation,
                    tables: tables.into_iter().collect(),
                    columns: search.columns,
                    index: index(plan),
                    why: if index(plan).is_none() && computes(plan) { Why::Computed } else { Why::NoIndex },
                });
            } else if search.columns == CHARGES_BY_TIME.columns && reads_all_first(plan) {
                found.push(WholeRead {
                    statements: search.needed_by(),
                    relation: search.relation,
                    tables: driving_tables(plan),
                    columns: search.columns,
                    index: None,
                    why: Why::EachChunk,
                });
            }
        }
        // A statement that needs an impossible search may read other tables whole instead: that is
        // no news.
        let plans = self.db.plans(&HOT.map(|(statement, _)| statement)).await?;
        for ((statement, _), plan) in HOT.iter().zip(&plans) {
            if explained.contains(statement.name) {
                continue;
            }
            for table in whole(plan, false) {
                let known = found.iter_mut().find(|each| each.why == Why::InJoins && each.tables[0] == table);
                if let Some(known) = known {
                    known.statements.push(statement.name);
                    continue;
                }
                let relation = behind.get(&table).and_then(|all| all.first()).copied().unwrap_or_default();
                let statements = vec![statement.name];
                found.push(WholeRead {
                    statements,
                    relation,
                    tables: vec![table],
                    columns: &[],
                    index: None,
                    why: Why::InJoins,
                });
            }
        }
        Ok(found)
    }

    async fn indexes(&self) -> Result<Indexes, DbError> {
        let mut indexes = Indexes::default();
        for row in self.rows(statements::INDEX_LEADS, &[]).await? {
            let schema = row.text("schema")?;
            indexes.leads.insert(format!("{schema}.{}", row.text("index")?), row.text("leads")?);
            indexes.rows.insert(format!("{schema}.{}", row.text("relation")?), row.int("rows")?);
        }
        Ok(indexes)
    }

    /// On SQLite only the searches by themselves: its plans name aliases, not tables.
    async fn whole_searches(&self) -> Result<Vec<WholeRead>, DbError> {
        let plans = self.db.plans(&SEARCHES.map(|search| search.statement)).await?;
        let bad = SEARCHES.iter().zip(&plans).filter(|(_, plan)| {
            let steps = plan.as_array().into_iter().flatten().filter_map(Json::as_str);
            steps.into_iter().any(|step| step.starts_with("SCAN "))
        });
        Ok(bad
            .map(|(search, _)| WholeRead {
                statements: search.needed_by(),
                relation: search.relation,
                tables: vec![search.relation.to_owned()],
                columns: search.columns,
                index: None,
                why: Why::NoIndex,
            })
            .collect())
    }
}

impl Search {
    fn needed_by(&self) -> Vec<&'static str> {
        HOT.iter()
            .filter(|(_, needs)| needs.iter().any(|need| need.statement.name == self.statement.name))
            .map(|(statement, _)| statement.name)
            .collect()
    }
}

/// The nodes of a plan, from the top.
fn nodes(plan: &Json) -> Vec<&Json> {
    let below = plan["Plans"].as_array().into_iter().flatten().flat_map(nodes);
    std::iter::once(plan).chain(below).collect()
}

/// `schema.table` of a node that reads a table.
fn table(node: &Json) -> Option<String> {
    Some(format!("{}.{}", node["Schema"].as_str()?, node["Relation Name"].as_str()?))
}

fn tables(plan: &Json) -> Vec<String> {
    nodes(plan).into_iter().filter_map(table).collect()
}

/// The relations that no table stands behind, but a function.
fn functions(plans: &[Json]) -> Vec<WholeRead> {
    let mut found = Vec::new();
    for ((relation, _), plan) in RELATIONS.iter().zip(plans) {
        let name =
            |node: &Json| Some(format!("{}.{}", node["Schema"].as_str()?, node["Function Name"].as_str()?));
        let names: Vec<String> = nodes(plan).into_iter().filter_map(name).collect();
        if tables(plan).is_empty() && !names.is_empty() {
            let searches = SEARCHES.iter().filter(|search| search.relation == *relation);
            let statements: BTreeSet<&'static str> = searches.flat_map(|search| search.needed_by()).collect();
            found.push(WholeRead {
                statements: statements.into_iter().collect(),
                relation,
                tables: names,
                columns: &[],
                index: None,
                why: Why::Function,
            });
        }
    }
    found
}

/// The tables that a plan reads from the beginning to the end, by themselves or through an index.
/// `even_small`: also small ones in the order of an index.
fn read_whole(plan: &Json, indexes: &Indexes, even_small: bool) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for node in nodes(plan) {
        let Some(table) = table(node) else { continue };
        let alias = node["Alias"].as_str().unwrap_or_default();
        let is_searched = match node["Node Type"].as_str().unwrap_or_default() {
            "Index Scan" | "Index Only Scan" => indexes.is_searched(&table, alias, node, even_small),
            "Bitmap Heap Scan" => nodes(node)
                .iter()
                .filter(|below| below["Node Type"] == "Bitmap Index Scan")
                .all(|below| indexes.is_searched(&table, alias, below, even_small)),
            // By its place in the table.
            "Tid Scan" | "Tid Range Scan" | "ModifyTable" => true,
            _ => false,
        };
        if !is_searched {
            found.insert(table);
        }
    }
    found
}

/// The indexes that there are.
#[derive(Debug, Default)]
struct Indexes {
    /// What each begins with.
    leads: BTreeMap<String, String>,
    /// How many rows each table has that has an index.
    rows: BTreeMap<String, i64>,
}

impl Indexes {
    /// Whether an index is searched: with a condition on what it begins with. One on a later column
    /// alone goes through the whole index. A statement may read a small table in the order of an
    /// index, as nothing is faster.
    fn is_searched(&self, table: &str, alias: &str, node: &Json, even_small: bool) -> bool {
        let Some(condition) = node["Index Cond"].as_str() else {
            return !even_small && self.rows.get(table).is_none_or(|rows| *rows < SMALL_TABLE);
        };
        let schema = table.split('.').next().unwrap_or_default();
        let name = format!("{schema}.{}", node["Index Name"].as_str().unwrap_or_default());
        // An index that was made a moment ago.
        let Some(leads) = self.leads.get(&name) else { return true };
        let plain = |text: &str| -> String {
            let text = text.replace(&format!("{alias}."), "");
            text.chars().filter(|letter| !"()\" ".contains(*letter)).collect()
        };
        let is_column = leads.chars().all(|letter| letter.is_alphanumeric() || "_\"".contains(letter));
        if is_column {
            let condition = condition.replace(&format!("{alias}."), "");
            let words = condition.split(|letter: char| !(letter.is_alphanumeric() || "_.".contains(letter)));
            let column = plain(leads);
            return words.into_iter().any(|word| word == column);
        }
        plain(condition).contains(&plain(leads))
    }
}

/// The nodes through which the rows of a plan come one by one: what is read for each of them, on
/// the inner side of a join or in a sub-select, is left out.
fn driving(plan: &Json) -> Vec<&Json> {
    let outer =
        |node: &&Json| matches!(node["Parent Relationship"].as_str(), Some("Outer" | "Subquery" | "Member"));
    let below = plan["Plans"].as_array().into_iter().flatten().filter(outer).flat_map(driving);
    std::iter::once(plan).chain(below).collect()
}

fn driving_tables(plan: &Json) -> Vec<String> {
    driving(plan).into_iter().filter_map(table).collect()
}

/// Whether a node needs all rows below it before it returns the first one: a LIMIT above saves
/// nothing. An incremental sort needs only those of one instant.
fn reads_all_first(plan: &Json) -> bool {
    driving(plan).into_iter().any(|node| match node["Node Type"].as_str().unwrap_or_default() {
        "Sort" | "Hash" | "SetOp" => true,
        "Aggregate" => node["Strategy"] != "Sorted",
        _ => false,
    })
}

/// Whether the plan computes columns that no index can hold.
fn computes(plan: &Json) -> bool {
    let kinds = ["Aggregate", "WindowAgg", "ProjectSet", "Function Scan", "Unique", "SetOp"];
    nodes(plan).into_iter().any(|node| node["Node Type"].as_str().is_some_and(|kind| kinds.contains(&kind)))
}

/// The index that a search needs: on what its columns come from, if the first of them come from one
/// table.
fn index(plan: &Json) -> Option<String> {
    let nodes = nodes(plan);
    let mut reads = nodes.iter().filter(|node| node["Relation Name"].is_string());
    let (read, None) = (reads.next()?, reads.next()) else { return None };
    let alias = read["Alias"].as_str()?;
    let columns = plan["Output"].as_array()?.iter().map_while(|column| {
        let column = column.as_str()?;
        let bare = column.replace(&format!("\"{alias}\"."), "").replace(&format!("{alias}."), "");
        // A column as it is, or an expression, which an index takes in parentheses of its own.
        let is_column = bare.chars().all(|letter| letter.is_alphanumeric() || letter == '_' || letter == '"');
        // What does not name the table comes from a sub-select, a function or an aggregate.
        let of_table = bare != column || is_column;
        (of_table && !names_another(&bare))
            .then(|| if is_column || is_enclosed(&bare) { bare } else { format!("({bare})") })
    });
    let columns: Vec<String> = columns.collect();
    if columns.is_empty() {
        return None;
    }
    Some(format!("CREATE INDEX CONCURRENTLY ON {} ({})", table(read)?, columns.join(", ")))
}

/// Whether an expression without the table's own alias still names a column of something, or
/// aggregates.
fn names_another(bare: &str) -> bool {
    let is_name = |letter: char| letter.is_alphanumeric() || "_\"".contains(letter);
    let qualified = bare.match_indices('.').any(|(at, _)| {
        let (before, after) = (&bare[..at], &bare[at + 1..]);
        let owner = before.rsplit(|letter| !is_name(letter)).next().unwrap_or_default();
        let rest = after.trim_start_matches(is_name);
        let is_number = owner.chars().all(|letter| letter.is_ascii_digit());
        // A function or a type with its schema names no column.
        let is_type = before.trim_end_matches(is_name).ends_with("::");
        !is_number && !is_type && rest.len() < after.len() && !rest.starts_with('(')
    });
    let aggregates = ["max(", "min(", "sum(", "count(", "avg(", "row_number(", "generate_series("];
    qualified || aggregates.iter().any(|name| bare.contains(name))
}

/// Whether one pair of parentheses encloses all of it.
fn is_enclosed(text: &str) -> bool {
    let mut depth = 0_usize;
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && at + letter.len_utf8() < text.len() {
            return false;
        }
    }
    text.starts_with('(')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_is_read_whole_unless_an_index_is_searched_by_what_it_begins_with() {
        let indexes = Indexes {
            leads: BTreeMap::from([
                ("app.by_id".to_owned(), "id".to_owned()),
                ("app.by_time".to_owned(), "to_timestamp((ms / 1000))".to_owned()),
            ]),
            rows: BTreeMap::from([("app.runs".to_owned(), SMALL_TABLE)]),
        };
        let read = |kind: &str| {
            let node = json!({"Node Type": kind, "Schema": "app", "Relation Name": "runs", "Alias": "r"});
            node.as_object().cloned().unwrap_or_default()
        };
        let scan = |kind: &str, index: &str, condition: Option<&str>| {
            let mut node = read(kind);
            node.insert("Index Name".into(), json!(index));
            node.insert("Index Cond".into(), json!(condition));
            Json::Object(node)
        };
        let bitmap = |condition: Option<&str>| {
            let mut node = read("Bitmap Heap Scan");
            let below =
                json!({"Node Type": "Bitmap Index Scan", "Index Name": "by_id", "Index Cond": condition});
            node.insert("Plans".into(), json!([below]));
            Json::Object(node)
        };
        for (node, whole) in [
            (Json::Object(read("Seq Scan")), true),
            (Json::Object(read("ModifyTable")), false),
            (scan("Index Scan", "by_id", None), true),
            (scan("Index Only Scan", "by_id", None), true),
            (scan("Index Scan", "by_id", Some("(r.id = $1)")), false),
            (scan("Index Scan", "by_id", Some("(r.charge_id = d.id)")), true),
            (scan("Index Scan", "by_time", Some("(to_timestamp((r.ms / 1000)) > $1)")), false),
            (scan("Index Scan", "by_time", Some("(r.id = $1)")), true),
            (bitmap(None), true),
            (bitmap(Some("(r.id = $1)")), false),
        ] {
            let found = read_whole(&json!({"Node Type": "Limit", "Plans": [node]}), &indexes, false);
            assert_eq!(found.contains("app.runs"), whole, "{node}");
        }
        let small = Indexes { rows: BTreeMap::new(), ..indexes };
        for (node, even_small, whole) in [
            (scan("Index Scan", "by_id", None), false, false),
            (scan("Index Scan", "by_id", None), true, true),
            (Json::Object(read("Seq Scan")), false, true),
        ] {
            assert_eq!(!read_whole(&node, &small, even_small).is_empty(), whole, "{node}");
        }
    }

    #[test]
    fn the_index_is_on_what_the_columns_of_a_view_come_from() {
        let plan = |output: &[&str]| {
            json!({"Node Type": "Limit", "Output": output, "Plans": [
                {"Node Type": "Seq Scan", "Schema": "app", "Relation Name": "runs", "Alias": "runs"}]})
        };
        for (output, columns) in [
            (&["runs.created_at", "runs.id"][..], "created_at, id"),
            (
                &["(to_timestamp((runs.ms / 1000)))", "(runs.id)::text"],
                "(to_timestamp((ms / 1000))), ((id)::text)",
            ),
            (&["\"runs\".id"], "id"),
            (&["app.utc((runs.at)::app.text_time)"], "(app.utc((at)::app.text_time))"),
            // What a sub-select numbers, or a function returns, has no place in an index.
            (&["(runs.id)::text", "(g.i)::bigint"], "((id)::text)"),
        ] {
            let expected = format!("CREATE INDEX CONCURRENTLY ON app.runs ({columns})");
            assert_eq!(index(&plan(output)), Some(expected));
        }
        let joined = json!({"Output": ["a.x"], "Plans": [
            {"Schema": "app", "Relation Name": "a", "Alias": "a"}, {"Schema": "app", "Relation Name": "b", "Alias": "b"}]});
        assert_eq!(index(&joined), None);
        for computed in ["x.id", "max(runs.failed)"] {
            assert_eq!(index(&plan(&[computed])), None, "{computed}");
        }
    }

    #[test]
    fn a_chunk_reads_its_stretch_again_where_the_view_groups_or_sorts_it_first() {
        let node = |kind: &str, relationship: &str, below: Vec<Json>| json!({"Node Type": kind, "Parent Relationship": relationship, "Plans": below});
        let scan = || json!({"Node Type": "Index Scan", "Parent Relationship": "Outer", "Schema": "app", "Relation Name": "runs"});
        let sum = || node("Aggregate", "Inner", vec![scan()]);
        for (below, expected) in [
            (scan(), false),
            (node("Sort", "Outer", vec![scan()]), true),
            (node("Incremental Sort", "Outer", vec![scan()]), false),
            (node("Aggregate", "Outer", vec![scan()]), true),
            // A sum for each row, in a sub-select or LATERAL.
            (node("Nested Loop", "Outer", vec![scan(), sum()]), false),
            (node("Nested Loop", "Outer", vec![node("Sort", "Outer", vec![scan()]), sum()]), true),
        ] {
            assert_eq!(
                reads_all_first(&json!({"Node Type": "Limit", "Plans": [below]})),
                expected,
                "{below}"
            );
        }
    }
}
