//! One world: the platform's deeds, the workers' passes, and what must be true after each.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use makegood::brake;
use makegood::demo::simulator::Canned;
use makegood::ops::stop::Stop;
use makegood::pass::{self, Orders, Parts, Rules};
use makegood::recovery::Storage;
use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, Row as _};

use super::deeds::{Deed, deeds};
use super::plan::{END, LEAP, Pass, Plan};
use super::stage::{Stage, WORKERS};
use super::tally::Tally;
use super::{MINUTE, at, books, start};

/// From a charge to the end of its window, in minutes.
const WINDOW: i64 = 24 * 60;
/// What the brake held so long ago has been looked at again since, in minutes: two passes, and a lease of one that died.
const LET_GO: i64 = 180;

pub struct World<'a> {
    stage: &'a Stage,
    plan: Plan,
    folder: PathBuf,
    workers: Vec<Parts>,
    tally: Tally,
    /// How long a pass takes here, by one that nobody disturbed.
    usual: Duration,
    /// To which minute the clock has leapt last.
    leapt_to: i64,
}

impl<'a> World<'a> {
    pub async fn new(stage: &'a Stage, plan: Plan) -> Self {
        let folder = stage.folder.path().join(format!("world-{}", plan.seed));
        std::fs::create_dir(&folder).unwrap();
        stage.clock.set(at(0));
        stage.empty().await;
        let brake = brake::Limits {
            refunds_per_hour: plan.brake,
            own_faults_per_day: plan.own_faults,
            ..brake::Limits::default()
        };
        let worker = |nth: usize| Parts {
            store: stage.stores[nth].clone().with_clock(stage.clock.clone()),
            providers: Arc::clone(&stage.providers),
            storage: Arc::new(Storage::open("file:./outputs", &folder).unwrap()),
            fetcher: Arc::clone(&stage.fetcher),
            rules: Rules {
                brake,
                batch: 8,
                release_when_gone: plan.release_when_gone,
                ..stage.rules.clone()
            },
        };
        let workers = (0..WORKERS).map(worker).collect();
        let tally = Tally {
            worlds: 1,
            charges: plan.charges.len() as u64,
            items: plan.charges.iter().map(|charge| charge.items.len() as u64).sum(),
            kinds: plan.kinds().into_iter().map(|kind| (kind, 1)).collect(),
            ..Tally::default()
        };
        Self { stage, plan, folder, workers, tally, usual: Duration::from_millis(5), leapt_to: 0 }
    }

    async fn run(&self, sql: &str) {
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&self.stage.sql).await;
        done.unwrap_or_else(|error| panic!("{sql}\n{error}"));
    }

    async fn lines(&self, sql: &str) -> Vec<String> {
        let sql = sql.replace("$start", &start().micros().to_string());
        let rows = sqlx::raw_sql(AssertSqlSafe(sql.clone())).fetch_all(&self.stage.sql).await;
        let rows = rows.unwrap_or_else(|error| panic!("{sql}\n{error}"));
        rows.iter().map(|row| row.get::<Option<String>, _>(0).unwrap_or_else(|| "NULL".to_owned())).collect()
    }

    /// Lives through the 48 hours.
    pub async fn live(mut self) -> Tally {
        self.run(
            "INSERT INTO accounts VALUES ('a0', 'user'), ('a1', 'user'), ('a2', 'workspace'), ('a3', 'user');
             INSERT INTO balances SELECT id, b.column1, 100000 FROM accounts, (VALUES ('subscription'), ('wallet')) AS b;",
        )
        .await;
        let mut deeds = deeds(&self.plan);
        deeds.sort_by_key(|deed| deed.at);
        self.tally.deeds = deeds.len() as u64;
        let mut deeds = deeds.into_iter().peekable();
        let passes = std::mem::take(&mut self.plan.passes);
        let mut braked_since = None;
        let mut held = false;
        for (nth, pass) in passes.iter().enumerate() {
            let (mut first, mut meanwhile) = (Vec::new(), Vec::new());
            let mut after = 0;
            while let Some(deed) = deeds.next_if(|deed| deed.at <= pass.at) {
                after += 1;
                let beside = pass.meanwhile > 0 && after % pass.meanwhile == 0;
                if beside { &mut meanwhile } else { &mut first }.push(deed);
            }
            for deed in first {
                self.does(&deed, deed.at.max(self.leapt_to)).await;
            }
            self.stage.clock.set(at(self.plan.clock(pass.at)));
            self.answers(pass.at);
            self.storage(pass.at);
            self.passes(pass, &meanwhile).await;
            self.nothing_is_overdue(pass.at).await;
            if nth.is_multiple_of(8) || pass.at == END {
                self.books_balance().await;
                held |= !self.lines(books::HELD).await.is_empty();
            }
            let engaged = self.workers[0].store.brake().await.unwrap().engaged_at.is_some();
            braked_since = engaged.then(|| braked_since.unwrap_or(pass.at));
            if let (Some(since), Some(after)) = (braked_since, self.plan.released_after)
                && pass.at - since >= after
            {
                self.workers[0].store.release_brake("a person", "that is the plan").await.unwrap();
                braked_since = None;
            }
        }
        self.files_are_there().await;
        self.tally.braked = u64::from(held);
        for end in self.lines(books::ENDS).await {
            *self.tally.ends.entry(end).or_default() += 1;
        }
        std::fs::remove_dir_all(&self.folder).unwrap();
        self.tally
    }

    async fn does(&self, deed: &Deed, minute: i64) {
        let now = at(self.plan.clock(minute)).micros().to_string();
        self.run(&deed.sql.replace("$now", &now)).await;
    }

    /// What the providers say at this minute.
    fn answers(&self, minute: i64) {
        for charge in &self.plan.charges {
            let mut outages = self.plan.outages.iter();
            let outage = outages
                .find(|each| each.provider == charge.provider && (each.from..each.until).contains(&minute));
            for job in &charge.jobs {
                let (status, body) = job.answer(minute, outage);
                self.stage.simulator.set_answer(&job.id, Canned::json(status, &body));
            }
        }
    }

    /// Whether anything can be written: no directory can be made where a file is, nor written to that is not there.
    fn storage(&self, minute: i64) {
        let full = self.plan.full.is_some_and(|(from, until)| (from..until).contains(&minute));
        let (outputs, away) = (self.folder.join("outputs"), self.folder.join("away"));
        if full && !outputs.is_file() {
            if outputs.exists() {
                std::fs::rename(&outputs, &away).unwrap();
            }
            std::fs::write(&outputs, "in the way").unwrap();
        } else if !full && outputs.is_file() {
            std::fs::remove_file(&outputs).unwrap();
            if away.exists() {
                std::fs::rename(&away, &outputs).unwrap();
            }
        }
    }

    /// Workers side by side, of which some die, and the platform beside them: it acts while a question about a job of
    /// the same charge is under way, so between makegood's look at the charge and its settle.
    async fn passes(&mut self, pass: &Pass, meanwhile: &[Deed]) {
        let (usual, clock) = (self.usual, &self.stage.clock);
        let runs = pass.workers.iter().zip(&self.workers).map(|(dies, parts)| async move {
            // A process of its own: what another one remembered died with it.
            let store = parts.store.clone().with_clock(clock.clone());
            let parts = Parts { store, ..parts.clone() };
            let orders = Orders { mode: "schedule", dry_run: false, since: None, stop: Stop::new() };
            let run = Box::pin(pass::run(&parts, orders, |_| {}));
            match dies {
                None => Some(run.await),
                // Dropped where it stands: what it has begun is rolled back, what it has claimed stays leased.
                Some(share) => tokio::time::timeout(usual * *share / 1000, run).await.ok(),
            }
        });
        let beside = meanwhile.iter().map(|deed| (deed.charge, deed.sql.clone()));
        *self.stage.beside.lock().unwrap() = beside.collect();
        let began = Instant::now();
        let leap = async {
            if let Some(share) = pass.leap {
                tokio::time::sleep(usual * share / 1000).await;
                clock.set(clock.now() + MINUTE * u32::try_from(LEAP).unwrap());
            }
        };
        let (ended, ()) = tokio::join!(futures_util::future::join_all(runs), leap);
        let took = began.elapsed();
        self.stage.platform_is_done().await;
        // Nobody was asked about these.
        let left = std::mem::take(&mut *self.stage.beside.lock().unwrap());
        let now = clock.now().micros().to_string();
        for (_, sql) in &left {
            self.run(&sql.replace("$now", &now)).await;
        }
        if pass.leap.is_some() {
            self.leapt_to = pass.at + i64::try_from(LEAP).unwrap();
        }
        if pass.workers.iter().all(Option::is_none) {
            self.usual = (self.usual + took) / 2;
        }
        for ended in ended {
            self.tally.passes += 1;
            match ended {
                None => self.tally.died += 1,
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    self.give_up(&format!("a pass failed: {}", makegood::report::chain(&error)), "").await;
                }
            }
        }
    }

    async fn nothing_is_overdue(&self, minute: i64) {
        let before = minute - WINDOW - self.plan.slack();
        if before <= 0 {
            return;
        }
        let since = at(minute - LET_GO - self.plan.slack());
        let sql = books::OVERDUE
            .replace("$before", &at(before).micros().to_string())
            .replace("$held_since", &since.micros().to_string());
        let wrong = self.lines(&sql).await;
        if let Some(first) = wrong.first() {
            self.give_up(
                &format!("P15, at minute {minute}, {} overdue: {}", wrong.len(), wrong.join("; ")),
                first,
            )
            .await;
        }
    }

    async fn books_balance(&self) {
        let slack = self.plan.slack() * 60_000_000;
        for (what, sql) in books::ALWAYS {
            let sql =
                sql.replace("$brake", &self.plan.brake.to_string()).replace("$slack_us", &slack.to_string());
            let wrong = self.lines(&sql).await;
            if let Some(first) = wrong.first() {
                self.give_up(&format!("{} {what}: {}", wrong.len(), wrong.join("; ")), first).await;
            }
        }
    }

    async fn files_are_there(&self) {
        let recovered = "SELECT charge_id || '/' || output_index || ' ' || uri || ' ' || size_bytes || ' ' || sha256 || ' ' || provider_job_id || ' '
                                || provider_output_index FROM stored_outputs WHERE id LIKE 'makegood:%'";
        for line in self.lines(recovered).await {
            let words: Vec<&str> = line.split(' ').collect();
            let path = url::Url::parse(words[1]).unwrap().to_file_path().unwrap();
            let there = std::fs::read_to_string(&path).unwrap_or_default();
            let bytes: Vec<String> =
                Sha256::digest(&there).iter().map(|byte| format!("{byte:02x}")).collect();
            if there != format!("output {} of {}", words[5], words[4])
                || there.len().to_string() != words[2]
                || bytes.concat() != words[3]
            {
                self.give_up(&format!("{line}: the file says {there:?}"), &line).await;
            }
        }
    }

    /// Fails with the seed, the world around, and the story of the item.
    async fn give_up(&self, why: &str, item: &str) -> ! {
        let plan = &self.plan;
        let item = item.split(' ').next().unwrap_or_default();
        let charge = item.split('/').next().unwrap_or_default();
        let mut told = format!(
            "world {}: {why}\nscripts/simulate.sh 1 {} lives through it again, MAKEGOOD_TEST_SEED={} cargo test simulation:: too\n\
             the clock: {:?}\noutages: {:?}\nnothing can be stored: {:?}\n\
             brake at {} an hour, released after {:?}, by itself: {}; own faults held from {} a day\n",
            plan.seed,
            plan.seed,
            plan.seed,
            plan.skew,
            plan.outages,
            plan.full,
            plan.brake,
            plan.released_after,
            plan.release_when_gone,
            plan.own_faults
        );
        let planned = plan.charges.iter().find(|each| each.id == charge);
        if let Some(planned) = planned {
            let more = format!("planned, in minutes: {planned:?}\n");
            told += &more.replace(&i64::MAX.to_string(), "never");
        }
        // Of a whole charge: all its items.
        let items = match item.split_once('/') {
            Some(_) => vec![item.to_owned()],
            None => (0..planned.map_or(0, |charge| charge.items.len()))
                .map(|index| format!("{charge}/{index}"))
                .collect(),
        };
        for item in items {
            let (charge, index) = item.split_once('/').unwrap_or((&item, "0"));
            let story = books::STORY.replace("$charge", charge).replace("$index", index);
            let lines = self.lines(&story).await.join("\n  ");
            let more = format!("what happened to {item} (minutes by makegood's clock):\n  {lines}\n");
            told += &more;
        }
        panic!("{told}");
    }
}
