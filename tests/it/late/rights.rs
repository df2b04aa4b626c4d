//! The role of docs/adopting.md, as which every world runs, has no right that this page does not
//! grant, and `makegood check` reports each of them if it is missing.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::database;
use crate::world::World;

#[tokio::test]
async fn the_role_of_the_page_can_change_nothing_that_is_known_after_a_refund() {
    let world = World::postgres().await;
    world.charge("c1").job("failed-1").insert().await;
    let url = database::as_least_privileged(&world.database).await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    for sql in [
        "DELETE FROM stored_outputs",
        "DELETE FROM makegood_late_questions",
        "DELETE FROM makegood_late_successes",
        "UPDATE makegood_late_successes SET provider = 'x'",
        "SELECT makegood_store_output('x', 'c1', 0, 'u', 't', 1, NULL)",
    ] {
        let error = sqlx::raw_sql(sql).execute(&mut connection).await.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501", "{sql}: {error}");
    }
}

/// The rights that the page grants, one by one, each as the statement that revokes it.
fn revocations() -> Vec<String> {
    let mut each = Vec::new();
    let sql = database::grants().split_whitespace().collect::<Vec<_>>().join(" ");
    for grant in sql.split(';').filter_map(|statement| statement.trim().strip_prefix("GRANT ")) {
        let (verbs, rest) = grant.split_once(" ON ").unwrap();
        let relations = rest.split_once(" TO ").unwrap().0;
        let (kind, relations) = match relations.strip_prefix("FUNCTION ") {
            Some(functions) => ("FUNCTION ", functions),
            None => ("", relations),
        };
        let verbs = match verbs.strip_prefix("UPDATE (") {
            Some(columns) => {
                columns.trim_end_matches(')').split(", ").map(|column| format!("UPDATE ({column})")).collect()
            }
            None => verbs.split(", ").map(str::to_owned).collect::<Vec<_>>(),
        };
        for relation in relations.split(", ") {
            let role = database::ROLE;
            each.extend(
                verbs.iter().map(|verb| format!("REVOKE {verb} ON {kind}{relation} FROM {role}, PUBLIC")),
            );
        }
    }
    each
}

#[tokio::test]
async fn the_doctor_misses_every_right_of_the_page() {
    let world = World::postgres().await;
    let mut owner = PgConnection::connect(&world.database.url).await.unwrap();
    let missing = include_str!("../../../src/store/postgres/missing_rights.sql");
    let role = database::ROLE;
    let mut tried = 0;
    for revoke in revocations() {
        // Views that people read, and what lets the role see anything at all.
        if ["billing_activity", "usage_history", "billable_usage", "SCHEMA"]
            .iter()
            .any(|word| revoke.contains(word))
        {
            continue;
        }
        let mut undone = owner.begin().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("{revoke}; SET LOCAL ROLE {role}")))
            .execute(&mut *undone)
            .await
            .unwrap();
        let told = sqlx::raw_sql(missing).fetch_all(&mut *undone).await.unwrap();
        assert_eq!(told.len(), 1, "{revoke}");
        undone.rollback().await.unwrap();
        tried += 1;
    }
    assert_eq!(tried, 79);
    sqlx::raw_sql(AssertSqlSafe(format!("SET ROLE {role}"))).execute(&mut owner).await.unwrap();
    assert!(sqlx::raw_sql(missing).fetch_all(&mut owner).await.unwrap().is_empty());
}
