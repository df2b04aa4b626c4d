//! Follows docs/adopting.md literally: sets its example of a platform over views up from the page's
//! own SQL, and runs a pass as the page's role. So the page cannot become outdated.

use std::path::Path;

use makegood::demo::simulator::{Simulator, write_provider_files};
use serde_json::Value;
use sqlx::{Connection as _, Executor as _, PgConnection};
use url::Url;

use crate::binary::{Ended, makegood};
use crate::database::{ROLE, as_least_privileged_in, database};
use crate::s3::bucket::Bucket;

/// The example's blocks of SQL, in their order.
fn example() -> Vec<&'static str> {
    let page = include_str!("../../docs/adopting.md");
    let (_, section) = page.split_once("### An example, from the tables").expect("the page has the example");
    let (section, _) = section.split_once("\n## ").expect("another section follows");
    let blocks = section.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sql\n"));
    blocks.collect()
}

struct Platform {
    owner: PgConnection,
    url: String,
    directory: tempfile::TempDir,
    _simulator: Simulator,
}

impl Platform {
    async fn makegood(&self, arguments: &[&str]) -> Ended {
        command(self.directory.path(), &self.url, arguments).await
    }

    async fn run(&mut self, sql: &str) {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        self.owner.execute(sqlx::raw_sql(sql)).await.unwrap();
    }

    async fn text(&mut self, sql: &str) -> String {
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned())).fetch_one(&mut self.owner).await.unwrap()
    }

    /// Status of each run, with what it has in the wallet's ledger and its assets.
    async fn runs(&mut self) -> String {
        self.text(
            "SELECT string_agg(concat_ws(' ', r.job, r.status,
                 (SELECT sum(t.amount) FROM app.transactions t WHERE t.run_id = r.id),
                 (SELECT count(*) FROM app.assets a WHERE a.run_id = r.id)), '; ' ORDER BY r.job) FROM app.runs r",
        )
        .await
    }
}

async fn command(directory: &Path, url: &str, arguments: &[&str]) -> Ended {
    makegood(arguments)
        .within(directory)
        .env("DATABASE_URL", url)
        .env("MAKEGOOD__PROVIDERS__DIR", "providers")
        .env("MAKEGOOD__RECOVERY__ALLOW_LOOPBACK", "true")
        .output()
        .await
}

#[tokio::test]
async fn the_example_of_the_page_works_to_the_letter() {
    let database = database().await;
    let simulator = Simulator::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    write_provider_files(&directory.path().join("providers"), &simulator.base_url()).unwrap();
    let mut owner = PgConnection::connect(&database.url).await.unwrap();

    let blocks = example();
    let [tables, views, triggers, indexes, search_path] = blocks[..] else {
        panic!("{} blocks", blocks.len())
    };
    for sql in [tables, views, triggers, indexes] {
        owner.execute(sql).await.unwrap();
    }
    // The tests' server may be reached by a socket, which is a parameter too.
    let joint = if database.url.contains('?') { '&' } else { '?' };
    let with_path = format!("{}{joint}options=-csearch_path%3Dmakegood", database.url);
    assert!(
        include_str!("../../docs/adopting.md")
            .contains("?options=-csearch_path%3Dmakegood' makegood migrate")
    );
    let migrated = command(directory.path(), &with_path, &["migrate"]).await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    let url = as_least_privileged_in(&database, "makegood").await;
    let name = Url::parse(&database.url).unwrap().path().trim_start_matches('/').to_owned();
    let search_path =
        search_path.replace(" makegood IN DATABASE platform", &format!(" {ROLE} IN DATABASE {name}"));
    owner.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(search_path))).await.unwrap();

    let mut platform = Platform { owner, url, directory, _simulator: simulator };
    platform
        .run(
            "INSERT INTO app.users SELECT gen_random_uuid();
             INSERT INTO app.transactions (user_id, amount, kind, created)
             SELECT id, 100, 'purchase', now() AT TIME ZONE 'UTC' - interval '9 hours' FROM app.users;
             INSERT INTO app.runs (id, user_id, vendor, model, job, cost, created, failed)
             SELECT gen_random_uuid(), u.id, 'replicate', 'acme/still', job, 10,
                    now() AT TIME ZONE 'UTC' - interval '3 hours', failed
             FROM app.users u, (VALUES ('failed-1', NULL), ('ok-1', NULL), ('running-1', NULL), ('ok-2', NULL),
                                       ('unknown-1', now() AT TIME ZONE 'UTC'), (NULL, NULL)) AS jobs(job, failed);
             INSERT INTO app.transactions (user_id, run_id, amount, kind, created)
             SELECT user_id, id, -cost, 'charge', created FROM app.runs;
             INSERT INTO app.assets (run_id, url, mime, created)
             SELECT id, 's3://b/x', 'image/png', created FROM app.runs WHERE job = 'ok-2';
             UPDATE app.runs SET status = 'done' WHERE job = 'ok-2'",
        )
        .await;
    let checked = platform.makegood(&["check"]).await;
    let told: Value = serde_json::from_str(&checked.stdout).unwrap();
    assert_eq!((checked.code, &told["failed"]), (Some(0), &Value::from(0)), "{told:#}");

    let ran = platform.makegood(&["run"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["findings"], Value::Array(Vec::new()), "{report:#}");
    // Neither delivered nor pending for ever: what failed or was never submitted is given back.
    assert_eq!(
        platform.runs().await,
        "failed-1 refunded 0 0; ok-1 done -10 1; ok-2 done -10 1; running-1 pending -10 0; unknown-1 refunded 0 0; \
         refunded 0 0"
    );
    let balance = "SELECT credits::text FROM makegood.balances";
    assert_eq!(platform.text(balance).await, "70");
    let ids = "SELECT string_agg(replace(t.makegood_id, r.id::text, 'RUN') || ' ' || replace(t.refund_id, r.id::text, 'RUN'), '; ')
               FROM app.transactions t JOIN app.runs r ON r.id = t.run_id WHERE r.job = 'failed-1' AND t.kind = 'refund'";
    assert_eq!(platform.text(ids).await, "makegood:RUN/0:wallet makegood:RUN/0");

    // The next pass ends too, and finds nothing.
    let again = platform.makegood(&["run"]).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(platform.text(balance).await, "70");
    let checked = platform.makegood(&["check"]).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");

    // If one index of the page is missing, `check` fails and names it.
    platform.run("DROP INDEX app.runs_timezone_id_idx").await;
    let checked = platform.makegood(&["check"]).await;
    assert!(checked.code == Some(1) && checked.stdout.contains("indexes: charges"), "{checked:?}");
}

/// Before: exit 101 with the lease left behind, or files where their URI does not point.
#[tokio::test]
async fn a_bucket_is_reached_by_the_variables_of_its_service_or_refused_by_their_names() {
    let world = crate::commands::World::new(crate::database::sqlite()).await;
    let bucket = Bucket::default();
    let endpoint = bucket.serve().await;
    let host = endpoint.trim_start_matches("http://").to_owned();
    let with = |arguments: &[&str], endpoint: &str, may_be_http: bool| {
        let mut command = world
            .makegood(arguments)
            .env("MAKEGOOD__STORAGE__URL", "s3://outputs/recovered")
            .env("AWS_ENDPOINT_URL", endpoint)
            .env("AWS_REGION", "auto")
            .env("AWS_ACCESS_KEY_ID", "id")
            .env("AWS_SECRET_ACCESS_KEY", "secret");
        if may_be_http {
            command = command.env("AWS_ALLOW_HTTP", "true");
        }
        command.output()
    };
    for (endpoint, may_be_http, says) in [
        (host.clone(), true, "AWS_ENDPOINT_URL has no scheme"),
        (format!("{endpoint}/outputs"), true, "AWS_ENDPOINT_URL ends in `outputs`"),
        (endpoint.clone(), false, "set AWS_ALLOW_HTTP=true"),
    ] {
        let ended = with(&["run"], &endpoint, may_be_http).await;
        assert!(ended.code == Some(2) && ended.stderr.contains(says), "{ended:?}");
        let ended = with(&["check"], &endpoint, may_be_http).await;
        assert!(ended.code == Some(1) && ended.stdout.contains(says), "{ended:?}");
    }
    assert_eq!(world.number("SELECT count(*) FROM makegood_orphans").await, 0, "no pass has begun");
    assert!(bucket.hashes().is_empty());

    let ended = with(&["check"], &endpoint, true).await;
    let read = "read back by its URI (s3://outputs/recovered/%2Dcheck/";
    assert!(ended.code == Some(0) && ended.stdout.contains(read), "{ended:?}");
    assert!(bucket.hashes().is_empty(), "the probe is gone");
    let ended = with(&["run"], &endpoint, true).await;
    assert_ne!(ended.code, Some(1), "{ended:?}");
    let stored: Vec<String> = bucket.hashes().into_keys().collect();
    assert!(matches!(&stored[..], [path] if path.starts_with("/outputs/recovered/done/0/")), "{stored:?}");
    let uri = "SELECT count(*) FROM stored_outputs WHERE uri LIKE 's3://outputs/recovered/done/0/%'";
    assert_eq!(world.number(uri).await, 1);
}
