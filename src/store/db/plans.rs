//! How the database would run a statement, as it says itself. Nothing is run, and nothing stays: on
//! PostgreSQL all of it is one transaction that is rolled back. What the plans mean is for
//! `store::plans` to say.

use serde_json::Value as Json;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};

use super::{Db, DbError, Statement};

impl Db {
    /// How the database would run each statement; nothing is run. PostgreSQL: a plan for all
    /// parameters, as JSON, where reading a whole table and joining whole relations are the last
    /// resort. SQLite: the steps, as a list of texts.
    pub async fn plans(&self, statements: &[&'static Statement]) -> Result<Vec<Json>, DbError> {
        let mut plans = Vec::new();
        match self {
            Self::Postgres(server) => {
                let failed = |source| DbError::Transaction { what: "begin", source };
                let mut tx = server.begin().await?;
                // Only for this transaction, which is rolled back.
                let settings =
                    "SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off;
                                SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off";
                tx.execute(sqlx::raw_sql(settings)).await.map_err(failed)?;
                for statement in statements {
                    let failed = |source| DbError::Statement { statement: statement.name, source };
                    let nulls = vec!["null"; parameters(statement.postgres)].join(", ");
                    let nulls = if nulls.is_empty() { nulls } else { format!("({nulls})") };
                    let text = format!(
                        "PREPARE makegood_explains AS {}\n; EXPLAIN (VERBOSE, FORMAT JSON) EXECUTE makegood_explains{nulls};
                         DEALLOCATE makegood_explains",
                        statement.postgres
                    );
                    let rows = tx.fetch_all(sqlx::raw_sql(AssertSqlSafe(text))).await.map_err(failed)?;
                    let plan = rows.first().ok_or(sqlx::Error::RowNotFound).map_err(failed)?;
                    // In the simple protocol JSON is text.
                    let plan: String = plan.try_get_unchecked(0).map_err(failed)?;
                    let plan: Json = serde_json::from_str(&plan)
                        .map_err(|error| failed(sqlx::Error::Decode(error.into())))?;
                    plans.push(plan[0]["Plan"].clone());
                }
            }
            Self::Sqlite(pool) => {
                for statement in statements {
                    let failed = |source| DbError::Statement { statement: statement.name, source };
                    let text = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", statement.sqlite));
                    let rows = pool.fetch_all(sqlx::raw_sql(text)).await.map_err(failed)?;
                    let steps = rows.iter().map(|row| row.try_get::<String, _>("detail").map(Json::from));
                    plans.push(steps.collect::<Result<_, _>>().map_err(failed)?);
                }
            }
        }
        Ok(plans)
    }
}

/// How many parameters a statement has: the highest `$n` outside of its comments.
fn parameters(text: &str) -> usize {
    let code = text.lines().filter(|line| !line.starts_with("--"));
    let numbers = code.flat_map(|line| line.split('$').skip(1)).filter_map(|rest| {
        let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next()?;
        digits.parse().ok()
    });
    numbers.max().unwrap_or(0)
}
