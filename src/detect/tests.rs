use std::collections::BTreeMap;

use super::*;
use crate::store::{Backlog, Cursor, Over, Refused};

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

fn now() -> Timestamp {
    Timestamp::parse("2026-03-01T12:00:00Z").unwrap()
}

fn rules() -> DetectRules {
    DetectRules {
        grace: 15 * MINUTE,
        overlap: HOUR,
        start_at: None,
        backlog_age: 7 * DAY,
        full_look_every: FULL_LOOK_EVERY,
        turn: DetectionTurn::default(),
        chunk: 100,
        window: DAY,
        margin: 2 * HOUR,
        lease: 15 * MINUTE,
    }
}

fn graces() -> Graces {
    let special = vec![
        ("fast".to_owned(), None, 5 * MINUTE),
        ("slow".to_owned(), Some("slow/film".to_owned()), 40 * MINUTE),
    ];
    Graces { default: 15 * MINUTE, special }
}

const fn cursor(position: Timestamp, saved_at: Timestamp) -> Cursor {
    Cursor { position, saved_at, counted: None }
}

/// The positions after a complete pass that began at `at`.
fn saved_by_a_pass(at: Timestamp) -> Saved {
    Saved {
        failed: Some(cursor(at - HOUR, at)),
        grace: Some(cursor(at - 40 * MINUTE - HOUR, at)),
        six_hours: Some(cursor(at - 7 * HOUR, at)),
        twenty_hours: Some(cursor(at - 21 * HOUR, at)),
        fresh: Some(cursor(at, at)),
        ..Saved::default()
    }
}

fn planned(saved: &Saved) -> Plan {
    plan::plan(&rules(), &graces(), saved, None, now())
}

/// Name, beginning and end of each stretch.
fn spans(plan: &Plan) -> Vec<(&'static str, Timestamp, Timestamp)> {
    plan.stretches.iter().map(|each| (each.scan.name, each.scan.after, each.scan.until)).collect()
}

/// The positions that a completed plan saves.
fn saved_by_plan(plan: &Plan) -> BTreeMap<&'static str, Timestamp> {
    let mut all = BTreeMap::new();
    for stretch in &plan.stretches {
        if let Saves::Positions(marks) = &stretch.saves {
            all.extend(marks.iter().filter_map(|mark| mark.reached(stretch.scan.until)));
        }
    }
    all
}

#[test]
fn p14_the_first_pass_examines_a_week_of_charges_those_inside_their_window_first() {
    let plan = planned(&Saved::default());
    assert!(plan.is_full);
    assert_eq!(plan.late, Some(Backlog { after: now() - 7 * DAY, until: now() - DAY }));
    assert_eq!(
        spans(&plan),
        [
            ("failed", now() - 7 * DAY, now()),
            ("twenty_hours", now() - DAY, now() - 20 * HOUR),
            ("six_hours", now() - 20 * HOUR, now() - 6 * HOUR),
            ("grace", now() - 6 * HOUR, now() - 5 * MINUTE),
            ("backlog", now() - 7 * DAY, now() - DAY),
        ]
    );

    let start_at = now() - 30 * HOUR;
    let rules = DetectRules { start_at: Some(start_at), ..rules() };
    let plan = plan::plan(&rules, &graces(), &Saved::default(), None, now());
    assert_eq!(plan.late, Some(Backlog { after: start_at, until: now() - DAY }));
    assert!(plan.stretches.iter().all(|each| each.scan.after >= start_at));
}

#[test]
fn p14_a_saved_position_stays_behind_charges_that_may_still_change() {
    let behind = BTreeMap::from([
        ("failed", now() - HOUR),
        ("grace", now() - 40 * MINUTE - HOUR),
        ("six_hours", now() - 7 * HOUR),
        ("twenty_hours", now() - 21 * HOUR),
        ("backlog", now() - DAY),
    ]);
    assert_eq!(saved_by_plan(&planned(&Saved::default())), behind, "the largest grace and the overlap");
}

#[test]
fn p14_after_a_stopped_pass_the_next_one_continues_where_it_was() {
    let plan = planned(&Saved::default());
    let Saves::Positions(marks) = &plan.stretches[1].saves else { panic!("it saves positions") };
    let reached = |up_to| marks.iter().filter_map(|mark| mark.reached(up_to)).collect::<Vec<_>>();
    let at = now() - 22 * HOUR;
    assert_eq!(reached(at), [("grace", at), ("six_hours", at), ("twenty_hours", at)]);
    assert_eq!(reached(now() - DAY), [], "nothing was scanned");
    let at = now() - 10 * HOUR;
    assert_eq!(reached(at), [("grace", at), ("six_hours", at), ("twenty_hours", now() - 21 * HOUR)]);

    // A minute later: each look continues from there, and charges whose window ended meanwhile join
    // the backlog.
    let stopped = Some(cursor(now() - DAY + Duration::from_secs(1), now() - MINUTE));
    let backlog = Some(Backlog { after: now() - 7 * DAY, until: now() - DAY - MINUTE });
    let saved =
        Saved { grace: stopped, six_hours: stopped, twenty_hours: stopped, backlog, ..Saved::default() };
    assert_eq!(
        spans(&planned(&saved))[1..],
        [
            ("twenty_hours", now() - DAY + Duration::from_secs(1), now() - 20 * HOUR),
            ("six_hours", now() - 20 * HOUR, now() - 6 * HOUR),
            ("grace", now() - 6 * HOUR, now() - 5 * MINUTE),
            ("backlog", now() - 7 * DAY, now() - DAY - MINUTE),
        ]
    );
    let long_ago = Some(cursor(now() - 30 * HOUR, now() - 30 * HOUR));
    let saved = Saved { grace: long_ago, six_hours: long_ago, twenty_hours: long_ago, ..Saved::default() };
    let plan = planned(&saved);
    assert_eq!(plan.late, Some(Backlog { after: now() - 30 * HOUR, until: now() - DAY }), "after an outage");
    assert_eq!(spans(&plan).last().unwrap(), &("backlog", now() - 30 * HOUR, now() - DAY));
}

#[test]
fn p14_a_pass_a_minute_later_examines_only_charges_whose_grace_has_ended() {
    let plan = planned(&saved_by_a_pass(now() - MINUTE));
    assert!(!plan.is_full && plan.late.is_none());
    let before = |age| (now() - MINUTE - age, now() - age);
    let named = |name, (after, until)| (name, after, until);
    // A charge that is committed up to a minute late is found at once.
    let grace = |age| ("grace", now() - 2 * MINUTE - age, now() - age);
    assert_eq!(
        spans(&plan),
        [
            ("failed", now() - HOUR - MINUTE, now()),
            named("twenty_hours", before(20 * HOUR)),
            named("six_hours", before(6 * HOUR)),
            grace(40 * MINUTE),
            grace(15 * MINUTE),
            grace(5 * MINUTE),
        ]
    );
    assert!(plan.stretches.last().unwrap().completes_fresh);
    let ended: Vec<_> = plan.stretches.iter().map(|each| each.scan.grace_ended_within).collect();
    let minutes = Some(2 * MINUTE);
    assert_eq!(
        ended,
        [None, None, None, minutes, minutes, minutes],
        "charges with other graces were examined before"
    );
    assert!(planned(&Saved::default()).stretches.iter().all(|each| each.scan.grace_ended_within.is_none()));
    assert_eq!(saved_by_plan(&plan), BTreeMap::from([("failed", now() - HOUR)]), "no other position moves");
}

#[test]
fn p14_the_overlap_is_scanned_again_in_time_for_late_commits() {
    let full = |minutes: u32| planned(&saved_by_a_pass(now() - minutes * MINUTE)).is_full;
    assert_eq!([1, 6, 7, 60].map(full), [false, false, true, true]);
    let plan = planned(&saved_by_a_pass(now() - 9 * MINUTE));
    assert_eq!(
        spans(&plan)[1..],
        [
            ("twenty_hours", now() - 21 * HOUR - 9 * MINUTE, now() - 20 * HOUR),
            ("six_hours", now() - 7 * HOUR - 9 * MINUTE, now() - 6 * HOUR),
            ("grace", now() - HOUR - 49 * MINUTE, now() - 5 * MINUTE),
        ]
    );
}

#[test]
fn the_looks_go_back_to_their_positions_in_different_passes() {
    let mut saved = saved_by_a_pass(now() - 7 * MINUTE);
    let mut went_back = Vec::new();
    for minute in 0..17 {
        let at = now() + minute * MINUTE;
        let plan = plan::plan(&rules(), &graces(), &saved, None, at);
        went_back.push(plan.marks.iter().map(|mark| mark.name).collect::<Vec<_>>());
        for mark in plan.marks.iter() {
            let (_, position) = mark.reached(mark.until).unwrap();
            let look = match mark.name {
                "grace" => &mut saved.grace,
                "six_hours" => &mut saved.six_hours,
                _ => &mut saved.twenty_hours,
            };
            *look = Some(cursor(position, at));
        }
        saved.fresh = Some(cursor(at, at));
    }
    let turns = (0..17).map(|minute| match minute % 7 {
        0 => vec!["grace"],
        1 => vec!["six_hours"],
        2 => vec!["twenty_hours"],
        _ => vec![],
    });
    assert_eq!(went_back, turns.collect::<Vec<_>>());
}

#[test]
fn p14_a_look_goes_back_where_the_number_of_charges_has_changed() {
    let saved = Saved { changed: vec!["six_hours"], ..saved_by_a_pass(now() - MINUTE) };
    let plan = planned(&saved);
    assert!(plan.is_full);
    assert_eq!(spans(&plan)[2], ("six_hours", now() - 7 * HOUR - MINUTE, now() - 6 * HOUR));
    let marks: Vec<_> = plan.marks.iter().map(|mark| (mark.name, mark.until)).collect();
    assert_eq!(marks, [("six_hours", now() - 6 * HOUR)], "the other looks do not");
}

#[test]
fn p14_no_charge_is_skipped_after_a_clock_was_ahead() {
    let ahead = |saved: &Saved| planned(saved).is_full;
    let good = saved_by_a_pass(now() - MINUTE);
    assert!(!ahead(&good));
    let later = now() + HOUR;
    assert!(ahead(&Saved { fresh: Some(cursor(later, later)), ..good.clone() }));
    assert!(ahead(&Saved { grace: Some(cursor(later, later)), ..good.clone() }));
    assert!(ahead(&Saved { six_hours: Some(cursor(now() - 7 * HOUR, later)), ..good.clone() }));
    let a_little = now() + Duration::from_secs(2);
    let almost = Saved { fresh: Some(cursor(a_little, a_little)), ..good };
    assert!(
        !ahead(&almost) && almost.furthest() < Some(now()),
        "another process, whose clock is read a little later"
    );
    let plan = planned(&Saved { grace: Some(cursor(later, later)), ..saved_by_a_pass(now() - MINUTE) });
    assert_eq!(plan.late, Some(Backlog { after: now() - 7 * DAY, until: now() - DAY }));
}

#[test]
fn p14_rejected_rows_of_each_scan_have_a_saved_position_of_their_own() {
    // makegood_cursors stores these names, so a later version must find them.
    let plan = planned(&Saved::default());
    assert_eq!(refused_cursor(&plan.stretches[1].scan), "refused");
    assert_eq!(refused_cursor(&plan.stretches[0].scan), "refused_failed");
}

#[test]
fn p19_every_pass_scans_recorded_failures_over_the_whole_overlap_up_to_now() {
    let plan = planned(&saved_by_a_pass(now() - MINUTE));
    assert_eq!(spans(&plan)[0], ("failed", now() - HOUR - MINUTE, now()));
}

#[test]
fn p19_failures_of_charges_older_than_any_scan_are_left_to_a_person() {
    let charged_after = |start_at, failed: Option<Cursor>| {
        let saved = Saved { failed, ..Saved::default() };
        let plan = plan::plan(&DetectRules { start_at, ..rules() }, &graces(), &saved, None, now());
        match plan.stretches[0].scan.over {
            Over::FailedAt { charged_after } => charged_after,
            Over::ChargedAt => panic!("the scan is over recorded failures"),
        }
    };
    let (week, day) = (now() - 7 * DAY, now() - DAY);
    assert_eq!(charged_after(None, None), week);
    assert_eq!(charged_after(None, Some(cursor(now() - MINUTE, now()))), week, "whatever was scanned before");
    assert_eq!(charged_after(Some(day), None), day);
    assert_eq!(charged_after(Some(now() - 30 * DAY), None), week, "older ones only on request");
}

#[test]
fn each_provider_and_model_has_its_own_grace() {
    let plan = planned(&Saved::default());
    let scan = &plan.stretches[1].scan;
    assert_eq!(scan.grace_before, now() - 15 * MINUTE);
    let before: Vec<_> = scan.graces.iter().map(|grace| (grace.model.as_deref(), grace.before)).collect();
    assert_eq!(before, [(None, now() - 5 * MINUTE), (Some("slow/film"), now() - 40 * MINUTE)]);
}

#[test]
fn since_only_counts_charges_older_than_a_week_without_backlog() {
    let month = now() - 30 * DAY;
    let since = Since { from: month, backlog: false };
    let look = plan::since_stretch(&rules(), &graces(), since, now());
    assert_eq!((look.scan.after, look.scan.until), (now() - 7 * DAY, now() - 5 * MINUTE));
    let counted = plan::counted_only(&rules(), &graces(), since, now()).unwrap();
    assert_eq!((counted.after, counted.until), (month, now() - 7 * DAY));

    let week = Since { from: now() - 7 * DAY, backlog: false };
    assert!(plan::counted_only(&rules(), &graces(), week, now()).is_none(), "nothing is older");

    let since = Since { from: month, backlog: true };
    let look = plan::since_stretch(&rules(), &graces(), since, now());
    assert_eq!(look.scan.after, month);
    assert!(plan::counted_only(&rules(), &graces(), since, now()).is_none());
    assert!(matches!(look.saves, Saves::Nothing), "a scan on request moves no position");
}

#[test]
fn rejected_rows_are_retried_once_an_hour_within_backlog_age() {
    let charged = Over::ChargedAt;
    let refused = |after, tried_at| Refused { after, tried_at };
    let planned = |over, refused| plan::refused_stretch(&rules(), &graces(), over, refused, now());
    let tried = |stretch: &Stretch| match stretch.saves {
        Saves::Tried(refused) => refused.after,
        Saves::Positions(_) | Saves::Nothing => panic!("it retries rejected rows"),
    };
    let day_ago = now() - DAY;
    let again = planned(charged, refused(day_ago, now() - HOUR)).unwrap();
    assert_eq!((again.scan.after, again.scan.until), (day_ago, now() - 5 * MINUTE));
    assert_eq!(tried(&again), day_ago);
    assert!(planned(charged, refused(day_ago, now() - 59 * MINUTE)).is_none(), "not in every pass");
    assert!(planned(charged, refused(day_ago, now() + MINUTE)).is_some(), "that clock was ahead");

    let old = planned(charged, refused(now() - 30 * DAY, now() - DAY)).unwrap();
    assert_eq!((old.scan.after, tried(&old)), (now() - 7 * DAY, now() - 30 * DAY));

    let over = Over::FailedAt { charged_after: now() - 7 * DAY };
    let failed = planned(over, refused(day_ago, now() - DAY)).unwrap();
    assert_eq!((failed.scan.over, failed.scan.until), (over, now()));
}

fn item(id: &str) -> crate::charge::ItemId {
    crate::charge::ItemId { charge_id: id.to_owned(), output_index: 0 }
}

#[test]
fn found_rows_are_counted_and_rejected_rows_are_findings_with_shortened_ids() {
    let mut report = PassReport { opened: 10, reopened: 20, ..PassReport::default() };
    let refused = vec![(item("c1"), "too long".to_owned()), (item(&"é".repeat(300)), "too long".to_owned())];
    add_found(Found { opened: 2, reopened: 3, refused, ..Found::default() }, &mut report);
    assert_eq!((report.opened, report.reopened), (12, 23));
    let about: Vec<_> = report.findings.iter().map(|finding| finding.about.clone()).collect();
    assert_eq!(about, ["item c1/0".to_owned(), format!("item {}…", "é".repeat(200))]);
}

#[tokio::test]
async fn charges_in_the_future_are_a_finding_unless_the_clock_skew_is_small() {
    let home = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", home.path().join("makegood.db").display());
    let store = Store::open(&url, 2, Duration::from_secs(30)).await.unwrap();
    store.migrate(true).await.unwrap();
    let platform = sqlx::SqlitePool::connect(&url).await.unwrap();
    let charge = async |nth: u32, at: Timestamp| {
        let sql = "INSERT INTO accounts VALUES ('ada', 'user') ON CONFLICT DO NOTHING;
                   INSERT INTO charges (id, account_id, project_id, node_id, provider, model, subscription_credits, wallet_credits, charged_at)
                   VALUES ('c$nth', 'ada', 'p', 'n', 'fal', 'm', 0, 10, $at)";
        let sql = sql.replace("$nth", &nth.to_string()).replace("$at", &at.micros().to_string());
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&platform).await.unwrap();
    };
    let found = async || {
        let mut report = PassReport::default();
        add_impossible_times(&store, now(), &mut report).await.unwrap();
        let findings = report.findings.iter();
        findings
            .map(|each| format!("{}: {}", each.about, each.detail.split(" in the future").next().unwrap()))
            .collect::<Vec<_>>()
    };
    charge(0, now() + 4 * MINUTE).await;
    assert_eq!(found().await, Vec::<String>::new());
    for nth in 1..=100 {
        charge(nth, now() + HOUR + nth * MINUTE).await;
    }
    assert_eq!(found().await, ["charge c1: 100 charges have a charged_at"]);
    charge(101, now() + DAY).await;
    assert_eq!(found().await, ["charge c1: more than 100 charges have a charged_at"]);
}

#[test]
fn the_grace_is_the_models_then_the_providers_then_the_default() {
    let minutes = Duration::from_mins;
    let special = vec![
        ("fal".to_owned(), None, minutes(5)),
        ("fal".to_owned(), Some("slow".to_owned()), minutes(60)),
        ("sync".to_owned(), Some("slow".to_owned()), minutes(30)),
    ];
    let graces = Graces { default: minutes(10), special };
    for (provider, model, expected) in [
        ("fal", "slow", 60),
        ("fal", "fast", 5),
        ("sync", "slow", 30),
        ("sync", "fast", 10),
        ("bfl", "slow", 10),
    ] {
        assert_eq!(graces.of(provider, model), minutes(expected), "{provider} {model}");
    }
}
