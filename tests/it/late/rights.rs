//! The role of docs/adopting.md, as which every world runs, can do nothing that this page does not ask for.

use sqlx::{Connection as _, PgConnection};

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
        "SELECT makegood_store_output('x', 'c1', 0, 'u', 't', 1, 'h')",
    ] {
        let error = sqlx::raw_sql(sql).execute(&mut connection).await.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501", "{sql}: {error}");
    }
}
