//! Applies a planned fault to a worker's run at the planned moment, and reports the result.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::plan::{ByHand, Mishap, Moment, Own, Trouble};
use super::proxy::{Held, Then};
use super::server::lines;
use super::{IMPATIENT, LEASE_MINUTES, World, platform};
use crate::binary::Run;

/// Runs a program that cannot write more than this many blocks into any file, and gets an error
/// instead of a signal.
const FULL_DISK: &str = "trap '' XFSZ; ulimit -f \"$1\"; shift; exec \"$@\"";
/// The operating system's errors for a file that is too large, and for a directory that is gone.
const TOO_LARGE: &str = "(os error 27)";
const NO_DIRECTORY: &str = "(os error 20)";

/// How long a worker is held up for an action of the platform.
const CROSSED: Duration = Duration::from_millis(30);

impl World<'_> {
    /// A pass, or a person's errand, that something happens to.
    pub async fn troubled(&self, step: usize, worker: usize, mishap: Mishap) {
        let proxy = &self.proxies[worker];
        let at = match mishap.moment {
            Moment::Message(_) | Moment::Commit(_) => Some(mishap.moment),
            Moment::After(_) => None,
        };
        let mut trap = proxy.begin(at);
        let blocks =
            if let Trouble::Full { blocks } = mishap.trouble { Some(blocks.to_string()) } else { None };
        let prefix =
            blocks.iter().flat_map(|blocks| ["sh", "-c", FULL_DISK, "sh", blocks]).collect::<Vec<_>>();
        let errand = match mishap.by_hand {
            Some(by) => self.errand(by).await,
            None => Vec::new(),
        };
        let arguments: Vec<&str> =
            if errand.is_empty() { vec!["run"] } else { errand.iter().map(String::as_str).collect() };
        let mut run =
            self.makegood_by(&prefix, Some(worker), &arguments).env(IMPATIENT.0, IMPATIENT.1).start();
        self.count(|tally| {
            tally.runs += 1;
            tally.by_hand += u64::from(!errand.is_empty());
        });
        let held = match mishap.moment {
            Moment::After(wait) => {
                tokio::select! {
                    () = tokio::time::sleep(wait) => Ok(None),
                    () = has_ended(&mut run) => Err(()),
                }
            }
            Moment::Message(_) | Moment::Commit(_) => {
                tokio::select! {
                    held = &mut trap => Ok(held.ok()),
                    () = has_ended(&mut run) => Err(()),
                }
            }
        };
        let began = Instant::now();
        let mut words = format!("step {step}, worker {worker}: {mishap}");
        match held {
            Ok(held) => words += &self.strike(worker, &mut run, held, mishap.trouble).await,
            Err(()) => words += ", not reached",
        }
        let ended = run.ended().await;
        self.count(|tally| {
            tally.kills += u64::from(ended.status.signal() == Some(9));
            // `makegood refund` also says so if there is nothing to do.
            tally.failed += u64::from(ended.code == Some(1) && errand.is_empty());
            tally.by_hand_done += u64::from(ended.code == Some(0) && !errand.is_empty());
            tally.lost_leases += u64::from(ended.stdout.contains("lease_ran_out"));
            tally.postponed += u64::from(ended.stdout.contains("\"locked\""));
            tally.disk_full += ended.stderr.matches(TOO_LARGE).count() as u64;
            tally.directory_gone += ended.stderr.matches(NO_DIRECTORY).count() as u64;
        });
        let more = format!("; it ended with {} after {} ms more", ended.status, began.elapsed().as_millis());
        words += &more;
        if ended.code == Some(1) {
            let more = format!(": {}", ended.stderr.lines().last().unwrap_or_default());
            words += &more;
        }
        self.tell(words);
        let as_it_should = matches!(ended.code, Some(0 | 1 | 3)) || ended.status.signal() == Some(9);
        if !as_it_should || ended.stderr.contains("panicked") {
            self.give_up(&format!("a worker ended like this: {ended:?}"));
        }
    }

    /// The operator's command, if any item waits.
    async fn errand(&self, by: ByHand) -> Vec<String> {
        // Also what no pass has come to yet: they are about to.
        let waiting = "SELECT i.charge_id || '/' || i.output_index FROM charge_items i
             WHERE NOT EXISTS (SELECT 1 FROM makegood_orphans o WHERE o.charge_id = i.charge_id AND o.output_index = i.output_index
                                                                AND o.state NOT IN ('open', 'held')) ORDER BY 1";
        let waiting = lines(&self.pool, waiting).await;
        let Some(item) = waiting.get(by.pick % waiting.len().max(1)) else {
            return Vec::new();
        };
        [by.command, item, "--by", "mia", "--reason", "that is the plan", "--wait", "1s"]
            .map(str::to_owned)
            .to_vec()
    }

    /// Applies a fault to a run, and returns the result.
    async fn strike(&self, worker: usize, run: &mut Run, held: Option<Held>, trouble: Trouble) -> String {
        let proxy = &self.proxies[worker];
        match trouble {
            Trouble::None | Trouble::Full { .. } => go_on(held, Then::Forward),
            Trouble::Kill { heard } => return self.kill(worker, run, held, heard).await,
            Trouble::Cut { heard } => {
                self.count(|tally| tally.cuts += 1);
                match held {
                    Some(held) if heard => self.mute(held).await,
                    Some(held) => held.go_on(Then::Drop),
                    None => proxy.cut(),
                }
            }
            Trouble::Pause { heard, minutes } => {
                return self.pause(worker, run, held, (heard, minutes)).await;
            }
            Trouble::Restart { immediate, on_its_way } => {
                self.count(|tally| {
                    tally.restarts += 1;
                    tally.crashes += u64::from(immediate);
                });
                match (held, on_its_way) {
                    (Some(held), Some(after)) => {
                        self.count(|tally| {
                            tally.met_on_its_way += 1;
                            tally.met_at_commit += u64::from(held.is_commit);
                        });
                        let arrives = async {
                            tokio::time::sleep(after).await;
                            held.go_on(Then::Forward);
                        };
                        tokio::join!(self.server.restart(immediate), arrives);
                    }
                    (held, _) => {
                        self.server.restart(immediate).await;
                        go_on(held, Then::Forward);
                    }
                }
            }
            Trouble::Leap { minutes } => {
                self.count(|tally| tally.leaps += 1);
                platform::leap(&self.pool, minutes).await;
                go_on(held, Then::Forward);
            }
            Trouble::Cross { what, pick } => {
                let claimed = platform::claimed_by(&self.pool, &worker.to_string()).await;
                let Some(claim) = claimed.get(pick % claimed.len().max(1)) else {
                    go_on(held, Then::Forward);
                    return ", with nothing in hand".to_owned();
                };
                let words: Vec<&str> = claim.split(' ').collect();
                let made = self.made.lock().unwrap()[words[0]].clone();
                self.count(|tally| {
                    tally.crossed += 1;
                    tally.holds += u64::from(matches!(what, Own::HoldBalances));
                });
                let goes_on = async {
                    // Long enough for the action to finish, or to wait for the worker's lock.
                    tokio::time::sleep(CROSSED).await;
                    go_on(held, Then::Forward);
                };
                let item = words[1].parse().unwrap();
                tokio::join!(platform::act(&self.pool, &made, what, item), goes_on);
                return format!(", about {}/{item}", made.id);
            }
            Trouble::Slow { by } => {
                self.count(|tally| tally.slowed += 1);
                proxy.slow(by);
                go_on(held, Then::Forward);
            }
        }
        String::new()
    }

    async fn mute(&self, held: Held) {
        let is_commit = held.is_commit;
        let lost = u64::from(held.mute().await);
        self.count(|tally| {
            let kind = if is_commit { &mut tally.commits_unheard } else { &mut tally.others_unheard };
            *kind += lost;
        });
    }

    async fn kill(&self, worker: usize, run: &mut Run, held: Option<Held>, heard: bool) -> String {
        let in_transaction = self.proxies[worker].open_transactions() > 0;
        let claimed = platform::claimed_by(&self.pool, &worker.to_string()).await.len();
        match held {
            Some(held) if heard => {
                self.mute(held).await;
                run.kill();
            }
            held => {
                run.kill();
                go_on(held, Then::Drop);
            }
        }
        self.count(|tally| {
            let kind = match (in_transaction, claimed) {
                (true, _) => &mut tally.kills_in_transactions,
                (false, 0) => &mut tally.kills_idle,
                (false, _) => &mut tally.kills_with_leases,
            };
            *kind += 1;
        });
        format!(", {} transaction, {claimed} claimed", if in_transaction { "in a" } else { "in no" })
    }

    /// It is suspended past its lease, and others take over its items, except those that it has
    /// locked.
    async fn pause(
        &self,
        worker: usize,
        run: &mut Run,
        held: Option<Held>,
        (heard, minutes): (bool, i64),
    ) -> String {
        let Some(id) = run.id() else { return String::new() };
        signal("STOP", id).await;
        let held = match held {
            Some(held) if heard => {
                held.go_on(Then::Forward);
                None
            }
            held => held,
        };
        let before = platform::claimed_by(&self.pool, &worker.to_string()).await;
        platform::leap(&self.pool, LEASE_MINUTES + minutes).await;
        let other = self.makegood(None, &["run"]).env(IMPATIENT.0, IMPATIENT.1).output().await;
        let after = platform::claimed_by(&self.pool, &worker.to_string()).await;
        let taken = before.iter().filter(|claim| !after.contains(claim)).count();
        go_on(held, Then::Forward);
        signal("CONT", id).await;
        self.count(|tally| {
            tally.pauses += 1;
            tally.takeovers += taken as u64;
        });
        format!(", another pass meanwhile ended with {} and took {taken} of {}", other.status, before.len())
    }
}

fn go_on(held: Option<Held>, then: Then) {
    if let Some(held) = held {
        held.go_on(then);
    }
}

async fn has_ended(run: &mut Run) {
    while !run.has_ended() {
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

async fn signal(name: &str, id: u32) {
    let id = id.to_string();
    let mut sent = tokio::process::Command::new("sh");
    sent.args(["-c", "kill -\"$1\" \"$2\"", "sh", name, &id]).stderr(Stdio::null());
    // It may have ended in this very moment.
    let _ended = sent.status().await;
}
