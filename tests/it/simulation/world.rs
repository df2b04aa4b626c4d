//! One world: the platform's actions, the workers' passes, and the checks after each.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use makegood::brake;
use makegood::detect::{self, DetectionTurn};
use makegood::pass::{Parts, Rules, Sharing, Wanted};
use makegood::recovery::ObjectStorage;
use sha2::{Digest as _, Sha256};

use super::bench::{Did, Shift, Work};
use super::deeds::{Deed, deeds};
use super::job::Says;
use super::oracle::{self, Moment, Noted};
use super::plan::{Item, LEAP, Operator, Pass, Plan, WORKERS};
use super::stage::{Kit, Stage};
use super::tally::{self, Tally};
use super::{MINUTE, at, books, start};
use crate::faults::plan::Dice;

/// From a charge to the end of its window, in minutes.
const WINDOW: i64 = 24 * 60;
/// After this time an orphan that the brake held has been examined again, in minutes: two passes,
/// and a lease of one that died.
const LET_GO: i64 = 180;

/// In most worlds the workers ask side by side from the beginning. In some the first takes all
/// slots of a provider, and the others leave the provider to it: a dead or suspended worker keeps
/// its slots, because the clock stands still meanwhile.
fn sharing(seed: u64) -> Sharing {
    let pause = Duration::from_millis(20);
    let processes = if seed.is_multiple_of(4) { 1 } else { WORKERS };
    Sharing { first_look: pause, look_every: pause, tries: 2, processes, ..Sharing::default() }
}

/// The detection lease of a dead or suspended worker would never expire, because the clock stands
/// still.
fn turn() -> DetectionTurn {
    DetectionTurn { looks: 2, look_every: Duration::from_millis(5), ..DetectionTurn::default() }
}

pub struct World<'a> {
    stage: &'a Stage,
    plan: Plan,
    folder: PathBuf,
    /// And last the operator.
    workers: Vec<Parts>,
    tally: Tally,
    /// The invariants, with this world's limits.
    always: Vec<(&'static str, String)>,
    /// The items that the pass at this minute must have made good: charges and items by their index
    /// in the plan.
    made_good_by: HashMap<i64, Vec<(usize, usize)>>,
    /// The answer about each job, and whether its first output is offered: all its other outputs
    /// change together with it.
    told: Vec<(Says, bool)>,
    /// The last event that was judged.
    judged: i64,
    /// To which minute the clock has leapt last.
    leapt_to: i64,
}

impl<'a> World<'a> {
    pub async fn new(stage: &'a Stage, plan: Plan) -> Self {
        let folder = stage.folder.path().join(format!("world-{}", plan.seed));
        std::fs::create_dir(&folder).unwrap();
        stage.clock.set(at(0));
        stage.empty().await;
        let brake = brake::BrakeLimits {
            refunds_per_hour: plan.brake,
            own_faults_per_day: plan.own_faults,
            ..brake::BrakeLimits::default()
        };
        let worker = |kit: &Kit| Parts {
            store: kit.store.clone(),
            providers: Arc::clone(&kit.providers),
            storage: Arc::new(ObjectStorage::open("file:./outputs", &folder).unwrap()),
            fetcher: Arc::clone(&stage.fetcher),
            rules: Rules {
                brake,
                batch: 8,
                release_when_gone: plan.release_when_gone,
                sharing: sharing(plan.seed),
                detect: detect::DetectRules { turn: turn(), ..stage.rules.detect.clone() },
                ..stage.rules.clone()
            },
        };
        let workers = stage.kits.iter().map(worker).collect();
        let tally = Tally {
            worlds: 1,
            charges: plan.charges.len() as u64,
            items: plan.charges.iter().map(|charge| charge.items.len() as u64).sum(),
            kinds: plan.kinds().into_iter().map(|kind| (kind, 1)).collect(),
            ..Tally::default()
        };
        let limits = |sql: &str| {
            sql.replace("$brake", &plan.brake.to_string())
                .replace("$own_faults", &plan.own_faults.to_string())
                .replace("$slack_us", &(plan.slack() * 60_000_000).to_string())
                .replace(
                    "$ahead_us",
                    &(plan.skew.map_or(0, |skew| skew.minutes.max(0)) * 60_000_000).to_string(),
                )
        };
        let always = books::ALWAYS.iter().map(|(what, sql)| (*what, limits(sql))).collect();
        let mut made_good_by: HashMap<i64, Vec<(usize, usize)>> = HashMap::new();
        for (nth, charge) in plan.charges.iter().enumerate() {
            for index in 0..charge.items.len() {
                if let Some(minute) = oracle::made_good_by(&plan, nth, index) {
                    made_good_by.entry(minute).or_default().push((nth, index));
                }
            }
        }
        Self {
            stage,
            plan,
            folder,
            workers,
            tally,
            always,
            made_good_by,
            told: Vec::new(),
            judged: 0,
            leapt_to: 0,
        }
    }

    async fn run(&self, sql: &str) {
        let done = self.stage.sql().run(sql).await;
        done.unwrap_or_else(|error| panic!("world {}: {sql}\n{error}", self.plan.seed));
    }

    async fn lines(&self, sql: &str) -> Vec<String> {
        self.asked(&sql.replace("$start", &start().micros().to_string()), &[], false).await
    }

    /// The same with numbers for `?1` and so on. `often`: it is kept prepared.
    async fn asked(&self, sql: &str, numbers: &[i64], often: bool) -> Vec<String> {
        let lines = self.stage.sql().asked(sql, numbers, often).await;
        let lines = lines.unwrap_or_else(|error| panic!("world {}: {sql}\n{error}", self.plan.seed));
        lines.into_iter().map(|line| line.unwrap_or_else(|| "NULL".to_owned())).collect()
    }

    /// Simulates the 48 hours.
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
        // Nothing is there for certain before the first pass, where things happen in the middle of
        // it.
        let mut before = i64::MIN;
        for pass in &passes {
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
            self.set_clocks(pass.at);
            self.answers(pass.at);
            self.storage(pass.at);
            self.passes(pass, &meanwhile).await;
            let surely_done = if meanwhile.is_empty() { pass.at } else { before };
            let decided = self.judge(Moment { minute: pass.at, surely_done }).await;
            self.nothing_is_overdue(pass.at).await;
            if decided || after > 0 || pass.at == self.plan.end() {
                self.books_balance().await;
            }
            held |= self.plan.brake + self.plan.own_faults > 0 && !self.lines(books::HELD).await.is_empty();
            before = pass.at;
            let brake = self.stage.desk.brake().await.unwrap();
            let engaged = brake.engaged_at.is_some() || brake.own_faults_at.is_some();
            braked_since = engaged.then(|| braked_since.unwrap_or(pass.at));
            if let (Some(since), Some(after)) = (braked_since, self.plan.released_after)
                && pass.at - since >= after
            {
                self.stage.desk.release_brake("a person", "that is the plan").await.unwrap();
                // Times do not show it, because the clock may have been set meanwhile.
                self.run(
                    "INSERT INTO brake_releases SELECT coalesce(max(resolution_id), 0) FROM makegood_refunds",
                )
                .await;
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

    fn set_clocks(&self, minute: i64) {
        let now = self.plan.clock(minute);
        self.stage.clock.set(at(now));
        // The operator's clock is right, as far as the world's is.
        for (kit, ahead) in self.stage.kits.iter().zip(self.plan.clocks.into_iter().chain([0])) {
            kit.clock.set(at(now + ahead));
        }
    }

    /// The providers' answers at this minute that differ from those before.
    fn answers(&mut self, minute: i64) {
        let mut told = std::mem::take(&mut self.told).into_iter();
        for charge in &self.plan.charges {
            let outage = self.plan.outage(charge.provider, minute);
            for job in &charge.jobs {
                let answer = (job.says(minute, outage), job.offered(0, minute));
                if told.next() != Some(answer) {
                    self.stage.simulator.set_answer(&job.id, job.answer(minute, outage));
                }
                self.told.push(answer);
            }
        }
    }

    /// Whether anything can be written: no directory can be made where a file is, nor written to
    /// that is not there.
    fn storage(&self, minute: i64) {
        let full = self.plan.is_full(minute);
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

    /// Workers side by side, of which some die, and the platform beside them: it acts while a
    /// question about a job of the same charge is under way, so between makegood's look at the
    /// charge and its settle.
    async fn passes(&mut self, pass: &Pass, meanwhile: &[Deed]) {
        let beside = meanwhile.iter().map(|deed| (deed.charge, deed.sql.clone()));
        *self.stage.beside.lock().unwrap() = beside.collect();
        let at_work = self.workers.iter().cloned().zip(pass.workers.iter().copied()).enumerate();
        let mut runs: Vec<_> = at_work.map(|(seat, (parts, fate))| (seat, parts, Work::Pass, fate)).collect();
        if let Some(operator) = pass.operator
            && let Some(wanted) = self.wanted(operator).await
        {
            runs.push((WORKERS, self.workers[WORKERS].clone(), Work::ByHand(wanted), operator.fate));
        }
        let clocks: Vec<_> =
            self.stage.kits.iter().map(|kit| &kit.clock).chain([&self.stage.clock]).cloned().collect();
        let leap = pass.leap.map(|turn| {
            let leap = move || {
                for clock in clocks {
                    clock.set(clock.now() + MINUTE * u32::try_from(LEAP).unwrap());
                }
            };
            (turn, Box::new(leap) as Box<dyn FnOnce() + Send>)
        });
        let dice = Dice::new(self.plan.seed.wrapping_mul(1_000_003).wrapping_add_signed(pass.at));
        let ended = self.stage.bench.work(Shift { runs, dice, leap }).await;
        self.stage.platform_is_done().await;
        if let Err(why) = self.stage.all_is_written().await {
            let (seed, minute) = (self.plan.seed, pass.at);
            panic!("world {seed}: at minute {minute} all have ended, and still {why}\n{ended:#?}");
        }
        // The provider was not asked about these.
        let left = std::mem::take(&mut *self.stage.beside.lock().unwrap());
        let now = self.stage.clock.now().micros().to_string();
        for (_, sql) in &left {
            self.run(&sql.replace("$now", &now)).await;
        }
        if pass.leap.is_some() {
            self.leapt_to = pass.at + i64::try_from(LEAP).unwrap();
        }
        for ended in ended {
            match ended {
                None => self.tally.died += 1,
                Some(Ok(Did::Pass(_))) => self.tally.passes += 1,
                Some(Ok(Did::ByHand(ended))) => {
                    *self.tally.by_hand.entry(tally::by_hand(&ended)).or_default() += 1;
                }
                Some(Err(error)) => {
                    self.give_up(&format!("a pass failed: {}", makegood::report::chain(&error)), "").await;
                }
            }
        }
    }

    /// The operator's item, if there is any.
    async fn wanted(&self, operator: Operator) -> Option<Wanted> {
        let waiting = self.lines(books::WAITING).await;
        let items = if operator.of_those_that_wait && !waiting.is_empty() {
            waiting
        } else {
            self.lines(books::ITEMS).await
        };
        let nth = operator.pick.checked_rem(items.len() as u64)?;
        Some(Wanted {
            item: items[usize::try_from(nth).unwrap()].parse().unwrap(),
            deed: operator.deed,
            by: "mia".to_owned(),
            why: "that is the plan".to_owned(),
            // A wait would be real time.
            patience: Duration::ZERO,
        })
    }

    /// The decisions of this pass, and those that it should have made. True: there are new rows in
    /// the books.
    async fn judge(&mut self, moment: Moment) -> bool {
        let mut news = false;
        for line in self.asked(books::DECIDED, &[self.judged, start().micros()], true).await {
            let words: Vec<&str> = line.split(' ').collect();
            let noted = Noted {
                charge: words[1][1..].parse().unwrap(),
                index: words[2].parse().unwrap(),
                kind: words[3].to_owned(),
                reason: words[4].to_owned(),
                at: words[5].parse().unwrap(),
                opened_at: words[6].parse().unwrap(),
            };
            if let Some(flaw) = oracle::flaw(&self.plan, &noted, moment) {
                let item = format!("{}/{}", words[1], words[2]);
                let (kind, reason) = (&noted.kind, &noted.reason);
                self.give_up(&format!("{item}: {kind} {reason} at minute {}: {flaw}", moment.minute), &item)
                    .await;
            }
            self.judged = words[0].parse().unwrap();
            news |= noted.kind != "wait";
        }
        for (nth, index) in self.made_good_by.remove(&moment.minute).unwrap_or_default() {
            let charge = &self.plan.charges[nth].id;
            let sql = books::STANDS.replace("$charge", charge).replace("$index", &index.to_string());
            let stands = self.lines(&sql).await.pop().unwrap_or_else(|| "unknown".to_owned());
            if ["unknown", "open", "held"].iter().any(|word| stands.starts_with(word)) {
                let item = format!("{charge}/{index}");
                let minute = moment.minute;
                self.give_up(
                    &format!("{item} is {stands} at minute {minute}, and could be made good"),
                    &item,
                )
                .await;
            }
        }
        news
    }

    async fn nothing_is_overdue(&self, minute: i64) {
        let before = minute - WINDOW - self.plan.slack();
        if before <= 0 {
            return;
        }
        let since = at(minute - LET_GO - self.plan.slack());
        let mut wrong = self.asked(books::OVERDUE, &[at(before).micros(), since.micros()], true).await;
        wrong.retain(|line| !self.excused(line, minute));
        if let Some(first) = wrong.first() {
            self.give_up(
                &format!("P15, at minute {minute}, {} overdue: {}", wrong.len(), wrong.join("; ")),
                first,
            )
            .await;
        }
    }

    /// Whether the plan explains why an item is neither delivered nor refunded: a brake that was
    /// not released for long, an output that two items have a claim to, or the user's own
    /// cancelling.
    fn excused(&self, line: &str, minute: i64) -> bool {
        let words: Vec<&str> = line.split(' ').collect();
        let (nth, index) = words[0][1..].split_once('/').unwrap();
        let nth: usize = nth.parse().unwrap();
        let charge = &self.plan.charges[nth];
        let item: &Item = &charge.items[index.parse::<usize>().unwrap()];
        match (words[1], words[2]) {
            ("held", "duplicate_job") => oracle::is_claimed_twice(&self.plan, nth, item),
            ("closed", "completed_after_cancel") => charge.cancelled <= minute,
            (_, _) if words[3] == "braked" && self.plan.brake > 0 => true,
            // Beyond the limit for faults of ours, as long as it is one.
            ("held", "brake") => {
                self.plan.own_faults > 0
                    && (minute - LET_GO..=minute).any(|then| {
                        oracle::is_own_fault(self.plan.says(charge, item, then)) || self.plan.is_full(then)
                    })
            }
            (_, _) => false,
        }
    }

    async fn books_balance(&self) {
        for (what, sql) in &self.always {
            let wrong = self.asked(sql, &[], true).await;
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

    /// Fails with the seed, the world, and the history of the item.
    async fn give_up(&self, why: &str, item: &str) -> ! {
        let plan = &self.plan;
        let item = item.split(' ').next().unwrap_or_default();
        let charge = item.split('/').next().unwrap_or_default();
        let on = self.stage.is_on_postgres().then_some(" --postgres");
        let mut told = format!(
            "world {}{}: {why}\nscripts/simulate.sh{} 1 {} lives through it again, MAKEGOOD_TEST_SEED={} cargo test simulation:: too\n\
             the clock: {:?}, the workers': {:?}\noutages: {:?}\nnothing can be stored: {:?}\n\
             brake at {} an hour, released after {:?}, by itself: {}; own faults held from {} a day\n",
            plan.seed,
            on.map_or("", |_| " on PostgreSQL"),
            on.unwrap_or_default(),
            plan.seed,
            plan.seed,
            plan.skew,
            plan.clocks,
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
