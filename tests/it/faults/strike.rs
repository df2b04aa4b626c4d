//! Does to a run of a worker what the plan has for it, at the moment that it names, and tells what came of it.

use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use super::plan::{Mishap, Moment, Trouble};
use super::proxy::{Held, Then};
use super::{IMPATIENT, LEASE_MINUTES, World, platform};
use crate::binary::Run;

/// Runs a program that can write no more than 512 bytes into any file, and is told so instead of killed for it.
const FULL_DISK: [&str; 4] = ["sh", "-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\"", "sh"];

impl World<'_> {
    /// A pass that something happens to.
    pub async fn troubled(&self, step: usize, worker: usize, mishap: Mishap) {
        let proxy = &self.proxies[worker];
        let at = match mishap.moment {
            Moment::Message(_) | Moment::Commit(_) => Some(mishap.moment),
            Moment::After(_) => None,
        };
        let mut trap = proxy.begin(at);
        let prefix: &[&str] = if matches!(mishap.trouble, Trouble::Full) { &FULL_DISK } else { &[] };
        let mut run = self.makegood_by(prefix, Some(worker), &["run"]).env(IMPATIENT.0, IMPATIENT.1).start();
        self.count(|tally| tally.runs += 1);
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
            tally.failed += u64::from(ended.code == Some(1));
            tally.lost_leases += u64::from(ended.stdout.contains("lease_ran_out"));
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

    /// Does to a run what is to be done to it; says what came of it.
    async fn strike(&self, worker: usize, run: &mut Run, held: Option<Held>, trouble: Trouble) -> String {
        let proxy = &self.proxies[worker];
        match trouble {
            Trouble::None | Trouble::Full => go_on(held, Then::Forward),
            Trouble::Kill { heard } => {
                let mut lost = false;
                match held {
                    Some(held) if heard => {
                        lost = held.mute().await;
                        run.kill();
                    }
                    held => {
                        run.kill();
                        go_on(held, Then::Drop);
                    }
                }
                self.count(|tally| tally.answers_lost += u64::from(lost));
            }
            Trouble::Cut { heard } => {
                self.count(|tally| tally.cuts += 1);
                match held {
                    Some(held) if heard => {
                        let lost = held.mute().await;
                        self.count(|tally| tally.answers_lost += u64::from(lost));
                    }
                    Some(held) => held.go_on(Then::Drop),
                    None => proxy.cut(),
                }
            }
            Trouble::Pause { heard, minutes } => {
                let Some(id) = run.id() else { return String::new() };
                self.count(|tally| tally.pauses += 1);
                signal("STOP", id).await;
                let held = match held {
                    Some(held) if heard => {
                        held.go_on(Then::Forward);
                        None
                    }
                    held => held,
                };
                platform::leap(&self.pool, LEASE_MINUTES + minutes).await;
                // Others take over what it had in hand; what it has locked, they cannot.
                let other = self.makegood(None, &["run"]).env(IMPATIENT.0, IMPATIENT.1).output().await;
                go_on(held, Then::Forward);
                signal("CONT", id).await;
                return format!(", another pass meanwhile ended with {}", other.status);
            }
            Trouble::Restart { immediate } => {
                self.server.restart(immediate).await;
                self.count(|tally| {
                    tally.restarts += 1;
                    tally.crashes += u64::from(immediate);
                });
                go_on(held, Then::Forward);
            }
            Trouble::Leap { minutes } => {
                self.count(|tally| tally.leaps += 1);
                platform::leap(&self.pool, minutes).await;
                go_on(held, Then::Forward);
            }
            Trouble::Slow { by } => {
                proxy.slow(by);
                go_on(held, Then::Forward);
            }
        }
        String::new()
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
    sent.args(["-c", "kill -\"$1\" \"$2\"", "sh", name, &id]).stderr(std::process::Stdio::null());
    // It may have ended in this very moment.
    let _ended = sent.status().await;
}
