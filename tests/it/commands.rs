//! The commands that people type, run as they run them: exit codes and output, and that commands
//! which only read change nothing.

#![expect(clippy::unwrap_used, reason = "a test that cannot prepare its world has failed")]

mod by_hand;
mod cases;
mod forged;
mod key_command;
mod providers;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use makegood::clock::{Clock, Timestamp};
use makegood::demo::simulator::{Simulator, write_provider_files};
use serde_json::Value;
use sqlx::{Connection as _, Executor as _, PgConnection, SqliteConnection};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::binary::{Ended, Makegood, makegood};
use crate::database::{TestDatabase, as_eraser, as_least_privileged, database, sqlite};

/// A small platform on one database, a simulated provider, and an empty directory to work in.
pub struct World {
    database: TestDatabase,
    /// makegood connects as a role with the least rights.
    url: String,
    /// Answers as long as the world is there.
    _simulator: Simulator,
    directory: TempDir,
}

impl World {
    /// With the reference schema and five charges: two that failed, one that is done, one that
    /// still runs, one stored.
    pub async fn new(database: TestDatabase) -> Self {
        let simulator = Simulator::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        write_provider_files(&directory.path().join("providers"), &simulator.base_url()).unwrap();
        let url = database.url.clone();
        let mut world = Self { database, url, _simulator: simulator, directory };
        let migrated = world.makegood(&["migrate", "--reference-schema"]).output().await;
        assert_eq!(migrated.code, Some(0), "{migrated:?}");
        world.url = as_least_privileged(&world.database).await;
        world.execute(&world.seed()).await;
        world
    }

    /// Lets makegood's role at relations that were made anew.
    pub async fn grant(&self) {
        as_least_privileged(&self.database).await;
    }

    /// From here on makegood connects as the role that may erase; returns how it did before.
    pub async fn become_eraser(&mut self) -> String {
        let eraser = as_eraser(&self.database).await;
        std::mem::replace(&mut self.url, eraser)
    }

    /// From here on makegood connects like this.
    pub fn become_role(&mut self, url: String) {
        self.url = url;
    }

    /// How the owner of the tables connects.
    pub fn owner_url(&self) -> &str {
        &self.database.url
    }

    pub fn is_postgres(&self) -> bool {
        self.database.url.starts_with("postgres")
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// An instant this many minutes ago, in SQL.
    pub fn ago(&self, minutes: u64) -> String {
        self.instant(Clock::System.now() - Duration::from_mins(minutes))
    }

    /// An instant this many minutes from now.
    pub fn ahead(&self, minutes: u64) -> String {
        self.instant(Clock::System.now() + Duration::from_mins(minutes))
    }

    fn instant(&self, at: Timestamp) -> String {
        if self.is_postgres() { format!("timestamptz '{at}'") } else { at.micros().to_string() }
    }

    fn seed(&self) -> String {
        let mut sql = "INSERT INTO accounts VALUES ('u1', 'user');\
                       INSERT INTO balances VALUES ('u1', 'subscription', 0), ('u1', 'wallet', 0);"
            .to_owned();
        for (id, job, minutes) in [
            ("failed-1", "failed-1", 240),
            ("failed-2", "failed-2", 250),
            ("done", "ok-1", 120),
            ("running", "running-1", 1500),
            ("stored", "ok-2", 300),
        ] {
            let at = self.ago(minutes);
            let _ = write!(
                sql,
                "INSERT INTO charges VALUES ('{id}', 'u1', 'p', 'n', 'replicate', 'acme/still', '{job}', {at}, 6, 4, NULL);\
                 INSERT INTO charge_items VALUES ('{id}', 0, 10, NULL, NULL, NULL);"
            );
        }
        let at = self.ago(290);
        let _ = write!(
            sql,
            "INSERT INTO stored_outputs VALUES ('o2', 'stored', 0, 'replicate', 'ok-2', 0, 'p', 'n', 's3://b/o2', 'image/png', \
             1, 'ab', {at}, NULL, NULL);"
        );
        sql
    }

    pub async fn execute(&self, sql: &str) {
        let sql = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()));
        if self.is_postgres() {
            PgConnection::connect(&self.database.url).await.unwrap().execute(sql).await.unwrap();
        } else {
            SqliteConnection::connect(&self.database.url).await.unwrap().execute(sql).await.unwrap();
        }
    }

    /// A session of its own, on PostgreSQL.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.database.url).await.unwrap()
    }

    pub async fn number(&self, sql: &'static str) -> i64 {
        if self.is_postgres() {
            let mut connection = PgConnection::connect(&self.database.url).await.unwrap();
            sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
        } else {
            let mut connection = SqliteConnection::connect(&self.database.url).await.unwrap();
            sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
        }
    }

    /// All that could have been changed.
    async fn trace(&self) -> [i64; 4] {
        [
            self.number("SELECT count(*) FROM makegood_orphan_events").await,
            self.number("SELECT count(*) FROM makegood_answers").await,
            self.number(
                "SELECT CAST(coalesce(sum(lease_token + questions), 0) AS bigint) FROM makegood_orphans",
            )
            .await,
            self.number("SELECT CAST(sum(credits) AS bigint) FROM balances").await,
        ]
    }

    pub fn makegood(&self, arguments: &[&str]) -> Makegood {
        makegood(arguments)
            .within(self.path())
            .env("DATABASE_URL", &self.url)
            .env("MAKEGOOD__PROVIDERS__DIR", "providers")
            .env("MAKEGOOD__RECOVERY__ALLOW_LOOPBACK", "true")
    }

    pub async fn run(&self) -> Ended {
        self.makegood(&["run"]).output().await
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let ended = self.makegood(arguments).output().await;
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
    }

    pub async fn text(&self, arguments: &[&str]) -> String {
        let ended = self.makegood(&[arguments, &["--output", "text"]].concat()).output().await;
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        ended.stdout
    }
}

pub async fn worlds() -> [World; 2] {
    let postgres = database().await;
    [World::new(postgres).await, World::new(sqlite()).await]
}

#[tokio::test]
async fn p23_a_charge_is_explained_before_and_after_a_pass_and_asking_changes_nothing() {
    for world in worlds().await {
        let before = world.trace().await;
        let explained = world.json(&["explain", "failed-1", "--ask"]).await;
        assert_eq!(explained["meaning"][0]["state"], "not looked into");
        assert_eq!(explained["asked"]["items"][0]["evidence"]["verdict"], "failed");
        assert_eq!(explained["asked"]["items"][0]["decision"]["action"], "refund");
        assert_eq!(world.trace().await, before);
        assert_eq!(world.number("SELECT count(*) FROM makegood_orphans").await, 0);

        // The one that still runs was charged more than 24 hours ago, so it is late.
        assert_eq!(world.run().await.code, Some(3));
        let before = world.trace().await;
        for (target, states) in [
            (
                "failed-1/0",
                ["refunded", "10 credits were refunded on", "6 to the subscription and 4 to the wallet"],
            ),
            ("done", ["recovered", "Its output was recovered on", "makegood:done/0:1"]),
            ("running", ["open", "It is LATE", "The provider was asked 1 time"]),
            ("stored", ["stored", "Its output o2 was stored on", "paid"]),
        ] {
            let page = world.text(&["explain", target]).await;
            for says in states {
                assert!(page.contains(says), "{target}: {says:?} is not in\n{page}");
            }
            let explained = world.json(&["explain", target, "--ask"]).await;
            let asked = explained["asked"]["items"].as_array().unwrap().len();
            assert_eq!(asked, usize::from(target == "running" || target == "stored"), "{target}");
        }
        assert_eq!(world.trace().await, before);

        for (target, says) in [("nope", "there is no charge `nope`"), ("done/7", "no output 7; it has 0")] {
            let ended = world.makegood(&["explain", target]).output().await;
            assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
            assert!(ended.stderr.contains(says), "{ended:?}");
        }
    }
}

#[tokio::test]
async fn p24_the_report_shows_resolved_and_late_items() {
    for world in worlds().await {
        world.run().await;
        let report = world.json(&["report"]).await;
        let made: Vec<(&str, i64, i64)> = report["made_good"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| {
                (
                    row["kind"].as_str().unwrap(),
                    row["items"].as_i64().unwrap(),
                    row["wallet_credits"].as_i64().unwrap(),
                )
            })
            .collect();
        assert_eq!(made, [("recover", 1, 0), ("refund", 2, 8)]);
        assert_eq!(report["late_total"], 1);
        assert_eq!(report["late"][0]["charge_id"], "running");
        assert_eq!(report["waiting"][0]["credits"], 10);
        let nothing = world.json(&["report", "--since", "0s"]).await;
        assert_eq!(nothing["made_good"].as_array().unwrap().len(), 0);
        assert_eq!(nothing["late_total"], 1);

        let page = world.text(&["report"]).await;
        assert!(page.contains("LATE: 1 item is past the window"), "{page}");
        assert!(page.contains("2 refunds, 1 output recovered, 0 relinked"), "{page}");

        let csv = world.makegood(&["report", "--since", "30d", "--output", "csv"]).output().await;
        let mut rows: Vec<Vec<&str>> = csv.stdout.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!(rows.remove(0)[..3], ["status", "charge_id", "output_index"]);
        rows.sort();
        let statuses: Vec<(&str, &str)> = rows.iter().map(|row| (row[0], row[1])).collect();
        assert_eq!(
            statuses,
            [("open", "running"), ("recovered", "done"), ("refunded", "failed-1"), ("refunded", "failed-2")]
        );
        assert_eq!(rows[0][12], "true", "the column `late`");
        assert_eq!(rows[2][10..12], ["6", "4"]);
    }
}

#[tokio::test]
async fn p24_the_brake_shows_what_it_holds_until_a_person_releases_it() {
    for world in worlds().await {
        let braked = || world.makegood(&["run"]).env("MAKEGOOD__BRAKE__MAX_REFUNDS_PER_HOUR", "1");
        assert_eq!(braked().output().await.code, Some(3));
        let status = world.json(&["brake", "status"]).await;
        assert_eq!(status["engaged"], true);
        assert_eq!((&status["held"][0]["items"], &status["held"][0]["credits"]), (&1.into(), &10.into()));
        assert_eq!(status["events"][0]["by_whom"], "makegood");
        let page = world.text(&["brake", "status"]).await;
        assert!(page.starts_with("THE BRAKE IS ON since "), "{page}");
        assert!(page.contains("It holds 1 refund of 10 credits"), "{page}");
        assert!(world.text(&["report"]).await.contains("THE BRAKE IS ON"));

        let nameless = world.makegood(&["brake", "release", "--by", " ", "--reason", "x"]).output().await;
        assert_eq!(nameless.code, Some(2), "{nameless:?}");
        let released = world.json(&["brake", "release", "--by", "ada", "--reason", "checked"]).await;
        assert_eq!((&released["released"], &released["freed"]), (&true.into(), &1.into()));
        let again = world.json(&["brake", "release", "--by", "ada", "--reason", "checked"]).await;
        assert_eq!(again["released"], false);
        let story = world.text(&["explain", "failed-2"]).await + &world.text(&["explain", "failed-1"]).await;
        assert!(story.contains("It is open: the brake held it and was released."), "{story}");
        world.run().await;
        assert_eq!(world.number("SELECT count(*) FROM makegood_refunds").await, 2);
        let page = world.text(&["brake", "status"]).await;
        assert!(page.starts_with("The brake is off.\n"), "{page}");
        assert!(page.contains("released  ada       checked"), "{page}");
    }
}

#[tokio::test]
async fn p24_the_brake_is_engaged_for_one_provider_and_released_for_one_account() {
    for world in worlds().await {
        let by = ["--by", "ida", "--reason", "checked"];
        let json = |arguments: &[&'static str]| [&["brake"], arguments, &by[..]].concat();
        let engaged = world.json(&json(&["engage", "--provider", "fal"])).await;
        assert_eq!((&engaged["engaged"], &engaged["unknown_provider"]), (&true.into(), &false.into()));
        assert_eq!(world.json(&json(&["engage", "--provider", "fal"])).await["engaged"], false);
        let misspelt = world.json(&json(&["engage", "--provider", "fall"])).await;
        assert_eq!(misspelt["unknown_provider"], true);
        let page = world.text(&["brake", "status"]).await;
        assert!(
            page.contains("THE BRAKE IS ON FOR fal ONLY since ") && page.contains("why   ida: checked"),
            "{page}"
        );
        assert!(world.text(&["report"]).await.contains("THE BRAKE IS ON FOR fal ONLY"));
        assert_eq!(world.json(&json(&["release", "--provider", "fal"])).await["released"], true);
        assert_eq!(world.json(&json(&["release", "--provider", "fall"])).await["released"], true);

        // The limit holds the account in this pass, which reports it. The next pass does not.
        let limited =
            || world.makegood(&["run"]).env("MAKEGOOD__BRAKE__MAX_REFUNDS_PER_DAY_PER_ACCOUNT", "1");
        let first = limited().output().await;
        assert_eq!(first.code, Some(3), "{first:?}");
        let status = world.json(&["brake", "status"]).await;
        assert_eq!((&status["engaged"], &status["accounts_held"]), (&false.into(), &1.into()), "{status}");
        let account = status["accounts"][0]["account_id"].as_str().unwrap().to_owned();
        let page = world.text(&["brake", "status"]).await;
        assert!(page.starts_with("The brake is off.\n") && page.contains("1 account is held"), "{page}");
        assert!(world.text(&["report"]).await.contains("1 account is held"));
        let nobody = world.json(&json(&["release", "--account", "nobody"])).await;
        assert_eq!(nobody["released"], false);
        let both = ["brake", "release", "--account", "a", "--provider", "b", "--by", "x", "--reason", "y"];
        assert_eq!(world.makegood(&both).output().await.code, Some(2));
        let release = ["brake", "release", "--account", &account, "--by", "ida", "--reason", "checked"];
        let released = world.json(&release).await;
        assert_eq!((&released["released"], &released["freed"]), (&true.into(), &1.into()));
        world.run().await;
        assert_eq!(world.number("SELECT count(*) FROM makegood_refunds").await, 2);
    }
}

#[tokio::test]
async fn a_run_leaves_its_metrics_and_a_dry_run_none() {
    for world in worlds().await {
        let file = world.path().join("makegood.prom");
        let with_file = |arguments: &[&str]| {
            world.makegood(arguments).env("MAKEGOOD__METRICS__TEXTFILE", file.to_str().unwrap())
        };
        assert_eq!(with_file(&["run", "--dry-run"]).output().await.code, Some(0));
        assert!(!file.exists());
        let ended = with_file(&["run"]).output().await;
        assert_eq!(ended.code, Some(3), "{ended:?}");
        let metrics = std::fs::read_to_string(&file).unwrap();
        for line in [
            "makegood_refunds_total{provider=\"replicate\",reason=\"provider_error\"} 2\n",
            "makegood_refunded_credits_total{bucket=\"subscription\"} 12\n",
            "makegood_recoveries_total{provider=\"replicate\",kind=\"recover\"} 1\n",
            "makegood_orphans{state=\"open\",provider=\"replicate\"} 1\n",
            "makegood_orphans_past_window 1\n",
            "makegood_resolution_seconds_count 3\n",
            "makegood_resolution_seconds_bucket{le=\"7200\"} 0\n",
            "makegood_resolution_seconds_bucket{le=\"14400\"} 1\n",
            "makegood_resolution_seconds_bucket{le=\"21600\"} 3\n",
            "makegood_provider_requests_total{provider=\"replicate\",outcome=\"answered\"} 4\n",
            "makegood_provider_circuit_open{provider=\"replicate\"} 0\n",
            "makegood_pass_duration_seconds_count 1\n",
        ] {
            assert!(metrics.contains(line), "{line} is not in\n{metrics}");
        }
        assert!(!metrics.contains("makegood_last_success_timestamp_seconds 0\n"), "{metrics}");
        let reports: Vec<&str> = ended.stderr.lines().filter(|line| line.contains("\"pass done\"")).collect();
        assert_eq!(reports.len(), 1, "{ended:?}");
        let report: Value = serde_json::from_str(reports[0]).unwrap();
        assert_eq!((&report["refunded"], &report["past_window"]), (&2.into(), &1.into()));

        // The push fails: a warning, and the pass's result does not change.
        let ended = world
            .makegood(&["run"])
            .env("MAKEGOOD__METRICS__PUSHGATEWAY", "http://127.0.0.1:1")
            .output()
            .await;
        assert_eq!(ended.code, Some(3), "{ended:?}");
        assert!(ended.stderr.contains("could not push the metrics to http://127.0.0.1:1"), "{ended:?}");
    }
}

async fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_daemon_serves_metrics_before_its_first_pass_and_makes_good_in_it() {
    for world in worlds().await {
        world.run().await;
        // A port that was free a moment ago.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let daemon = |cron: &str| {
            world
                .makegood(&["schedule"])
                .env("MAKEGOOD__METRICS__LISTEN", &address)
                .env("MAKEGOOD__SCHEDULE__CRON", cron)
                .start()
        };
        // New Year's: no pass comes meanwhile, unless the year ends just now.
        let mut run = daemon("0 0 0 1 1 *");
        run.says("answering /metrics").await;
        let metrics = get(&address, "/metrics").await;
        assert!(metrics.contains("\nmakegood_orphans_past_window 1\n"), "{metrics}");
        assert!(metrics.contains("reason=\"provider_error\"} 2\n"), "{metrics}");
        assert!(get(&address, "/readyz").await.starts_with("HTTP/1.1 200 "));
        run.terminate().await;
        let ended = run.ended().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");

        let at = world.ago(60);
        world
            .execute(&format!(
                "INSERT INTO charges VALUES ('later', 'u1', 'p', 'n', 'replicate', 'acme/still', 'failed-3', {at}, 6, 4, NULL);\
                 INSERT INTO charge_items VALUES ('later', 0, 10, NULL, NULL, NULL);"
            ))
            .await;
        let mut run = daemon("* * * * * *");
        run.says("\"pass done\"").await;
        let metrics = get(&address, "/metrics").await;
        assert!(metrics.contains("makegood_pass_duration_seconds_count"), "{metrics}");
        run.terminate().await;
        let ended = run.ended().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(world.number("SELECT count(*) FROM makegood_refunds").await, 3);
    }
}

#[tokio::test]
async fn without_tables_every_command_says_what_to_do() {
    let database = database().await;
    for arguments in [&["run"][..], &["schedule"], &["report"], &["explain", "x"], &["brake", "status"]] {
        let ended = makegood(arguments)
            .env("DATABASE_URL", &database.url)
            .env("MAKEGOOD__METRICS__LISTEN", "127.0.0.1:0")
            .output()
            .await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains("Run `makegood migrate` first"), "{arguments:?}: {ended:?}");
    }
}
