//! What kept the tables from being made or upgraded, and what to do about it.
//!
//! PostgreSQL's own detail and hint are passed on, with the line of the migration that it refused:
//! it names a column where the message does not.

use sqlx::migrate::MigrateError as SqlxMigrateError;
use sqlx::postgres::PgErrorPosition;

use crate::store::db::{self, DbError};

/// Where the contract is described.
const CONTRACT: &str = "docs/adopting.md lists the columns and their types";

/// The tables could not be made or upgraded.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The lock that keeps two migrations apart belongs to a session, which a pooler does not keep.
    #[error(
        "could not migrate the database through the pooler at {place}. Run `makegood migrate` with the address of the \
         server itself in DATABASE_URL; all other commands may go through the pooler"
    )]
    Pooled {
        /// Where the pooler is.
        place: String,
    },
    /// No connection.
    #[error("could not connect to the database to migrate it")]
    Connect(#[source] sqlx::Error),
    /// The contract relations are not as makegood needs them. Found before anything was changed.
    #[error(
        "makegood's own tables were not made or upgraded, and nothing was changed, because of the platform's relations: {}. \
         docs/adopting.md lists the columns and their types",
        .0.join("; ")
    )]
    Contract(Vec<String>),
    /// The tables were made by a newer binary.
    #[error(
        "could not migrate {what}: the database has migration {found} of it, and this makegood knows {known} as the newest: \
         nothing was changed; use the makegood that made it, or a newer one"
    )]
    Newer {
        /// Which set.
        what: &'static str,
        /// What the database has.
        found: i64,
        /// The newest that this binary has.
        known: i64,
    },
    /// A migration that was run has another text in this binary.
    #[error(
        "could not migrate {what}: its migration {version} was run with another text than this makegood has, as {history} \
         records by its checksum: nothing was changed; use the makegood that ran it, or a release that came after it. Do not \
         change {history}: what the other text did would not be known"
    )]
    Changed {
        /// Which set.
        what: &'static str,
        /// Its table of what was run.
        history: &'static str,
        /// Which migration.
        version: i64,
    },
    /// A statement of a migration failed; all that this run did was undone.
    #[error("could not migrate {what}: {why}. Nothing of it stays; {advice}")]
    Failed {
        /// Which set, and which migration of it.
        what: String,
        /// What the database said.
        why: String,
        /// What to do.
        advice: &'static str,
    },
    /// The tables are there, but a statement of makegood's is refused.
    #[error(
        "makegood's own tables are up to date, but its statement `{statement}` cannot be run on the platform's relations: \
         {why}. {advice}; then `makegood check` says whether all is as needed"
    )]
    Statement {
        /// The name of its file.
        statement: &'static str,
        /// What the database said.
        why: String,
        /// What to do.
        advice: String,
    },
}

impl MigrateError {
    /// Whether it is the binary that does not fit the tables: trying again does not help.
    pub const fn is_about_the_binary(&self) -> bool {
        matches!(self, Self::Newer { .. } | Self::Changed { .. })
    }

    /// What sqlx says of a set of migrations. `texts`: the migrations.
    pub(super) fn of_set(set: &super::Set, error: SqlxMigrateError, postgres: bool) -> Self {
        let (what, history) = (set.what, set.history);
        match error {
            SqlxMigrateError::VersionMissing(found) => {
                Self::Newer { what, found, known: set.newest(postgres) }
            }
            SqlxMigrateError::VersionMismatch(version) => Self::Changed { what, history, version },
            SqlxMigrateError::ExecuteMigration(error, version) => Self::Failed {
                what: format!("{what} (migration {version})"),
                why: told(&error, set.text(version, postgres)),
                advice: advice(&error, set),
            },
            SqlxMigrateError::Execute(error) => {
                Self::Failed { what: what.to_owned(), why: told(&error, ""), advice: advice(&error, set) }
            }
            other => Self::Failed {
                what: what.to_owned(),
                why: other.to_string(),
                advice: "`makegood check` says what the database has",
            },
        }
    }

    /// A statement that the database will not prepare.
    pub(super) fn of_statement(error: &DbError) -> Self {
        let DbError::Statement { statement, source } = error else {
            let why = crate::report::chain(error);
            return Self::Statement { statement: "", why, advice: String::new() };
        };
        let statement = *statement;
        Self::Statement { statement, why: told(source, ""), advice: statement_advice(statement, source) }
    }
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(std::borrow::Cow::into_owned)
}

/// What the database said: PostgreSQL's message with its detail and hint, and the line that it is
/// about.
fn told(error: &sqlx::Error, text: &str) -> String {
    let Some(said) = db::postgres(error) else {
        return crate::report::chain(error);
    };
    let mut told = said.message().to_owned();
    let line = match said.position() {
        Some(PgErrorPosition::Original(position)) => line_at(text, position),
        Some(PgErrorPosition::Internal { position, query }) => line_at(query, position),
        None => None,
    };
    let line = line.map(|line| format!("in the line `{line}`"));
    let more = [said.detail().map(str::to_owned), said.hint().map(str::to_owned), line];
    for more in more.into_iter().flatten() {
        told.push_str("; ");
        told.push_str(more.trim_end_matches('.'));
    }
    told
}

/// The line of a text that has the character of this number, counted from 1.
fn line_at(text: &str, position: usize) -> Option<&str> {
    let before: usize = text.chars().take(position.checked_sub(1)?).map(char::len_utf8).sum();
    let start = text.get(..before)?.rfind('\n').map_or(0, |at| at + 1);
    text.get(start..)?.lines().next().map(str::trim).filter(|line| !line.is_empty())
}

fn advice(error: &sqlx::Error, set: &super::Set) -> &'static str {
    match code(error).as_deref().unwrap_or_default() {
        "42501" => {
            "run `makegood migrate` as the owner of the schema (database.url), or grant its role what is missing \
             (`GRANT USAGE, CREATE ON SCHEMA … TO …`)"
        }
        "3F000" => "set the search_path of the role that migrates to the schema of the platform's relations",
        "55P03" => {
            "another session holds a lock on a relation that the migration changes: look for it in pg_stat_activity \
             (pg_blocking_pids), let it end, and run `makegood migrate` again"
        }
        "57014" => {
            "it took longer than a statement of a migration may, an hour: look for what slows the database down"
        }
        "25006" => "point database.url at the primary: this server takes no writes",
        "42P07" | "42710" => set.taken,
        "42P01" => {
            "the contract relations (charges, charge_items, stored_outputs, balances, ledger_entries) must exist \
             first, as tables or views of the platform; `makegood migrate --reference-schema` makes them where there are none"
        }
        "42703" => {
            "add the column to the platform's table or view; docs/adopting.md lists the columns and their types"
        }
        "42883" | "42804" | "42846" => {
            "a column of the platform's has another type than makegood needs: select it with a cast in a view, ids as \
             `id::text AS id`, numbers as `::bigint`, times as `::timestamptz`"
        }
        _ => "correct what the database says, and run `makegood migrate` again",
    }
}

/// A view takes no writes by itself where it reads more than one table.
fn statement_advice(statement: &str, error: &sqlx::Error) -> String {
    let verb = match statement {
        "insert_stored_outputs" => "INSERT",
        "relink_outputs" => "UPDATE",
        _ => "",
    };
    if code(error).as_deref() == Some("55000") && !verb.is_empty() {
        return format!(
            "Write the trigger that takes it: `CREATE TRIGGER {name} INSTEAD OF {verb} ON stored_outputs FOR EACH ROW EXECUTE \
             FUNCTION …`, whose function writes NEW to the platform's own table and returns NEW",
            name = if verb == "INSERT" { "insert_output" } else { "update_output" }
        );
    }
    format!("Provide what it names in the platform's table or view ({CONTRACT})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_by_the_number_of_a_character() {
        let text = "CREATE VIEW x AS\n  SELECT 'ä'\n  FROM charges c WHERE c.id = 1;\n";
        let of = |word: &str| text.chars().count() - text.split_once(word).unwrap().1.chars().count();
        assert_eq!(line_at(text, 1), Some("CREATE VIEW x AS"));
        assert_eq!(line_at(text, of("c.id")), Some("FROM charges c WHERE c.id = 1;"));
        assert_eq!(line_at(text, 0), None);
        assert_eq!(line_at("", 7), None);
    }
}
