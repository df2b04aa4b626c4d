use super::*;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

fn now() -> Timestamp {
    Timestamp::parse("2026-03-01T12:00:00Z").unwrap()
}

fn rules() -> Rules {
    Rules {
        grace: 15 * MINUTE,
        overlap: HOUR,
        start_at: None,
        backlog_age: 7 * DAY,
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

fn look<'a>(looks: &'a [Look], name: &str) -> &'a Look {
    looks.iter().find(|look| look.scan.name == name).unwrap()
}

#[test]
fn p14_the_first_pass_looks_back_a_week_and_no_further_than_it_may() {
    let looks = plan(&rules(), &graces(), |_| None, now());
    assert_eq!(looks.len(), 4);
    assert!(looks.iter().all(|look| look.scan.after == now() - 7 * DAY));

    let start_at = now() - DAY;
    let looks = plan(&Rules { start_at: Some(start_at), ..rules() }, &graces(), |_| None, now());
    assert!(looks.iter().all(|look| look.scan.after == start_at));
}

#[test]
fn p14_each_cursor_stays_behind_what_could_still_change_for_it() {
    let looks = plan(&rules(), &graces(), |_| Some(now() - 3 * HOUR), now());
    let grace = look(&looks, "grace");
    assert_eq!(grace.scan.after, now() - 3 * HOUR);
    assert_eq!(grace.scan.until, now() - 5 * MINUTE, "the smallest grace");
    assert_eq!(grace.then, Then::Advance(now() - 40 * MINUTE - HOUR), "the largest grace and the overlap");
    assert_eq!(look(&looks, "six_hours").scan.until, now() - 6 * HOUR);
    assert_eq!(look(&looks, "six_hours").then, Then::Advance(now() - 7 * HOUR));
    assert_eq!(look(&looks, "twenty_hours").then, Then::Advance(now() - 21 * HOUR));
}

#[test]
fn p14_what_each_look_was_refused_is_kept_under_a_name_of_its_own() {
    // The names stand in makegood_cursors: the next version has to find there what this one has noted.
    assert_eq!(kept_as(Over::ChargedAt), "refused");
    assert_eq!(kept_as(Over::FailedAt { charged_after: now() }), "refused_failed");
}

#[test]
fn p19_recorded_failures_are_looked_at_up_to_now() {
    let looks = plan(&rules(), &graces(), |_| None, now());
    let failed = look(&looks, "failed");
    assert_eq!(failed.scan.until, now());
    assert_eq!(failed.then, Then::Advance(now() - HOUR));
}

#[test]
fn p19_failures_recorded_for_charges_from_before_any_look_are_left_to_a_person() {
    let charged_after = |start_at, cursor: Option<Timestamp>| match look(
        &plan(&Rules { start_at, ..rules() }, &graces(), |_| cursor, now()),
        "failed",
    )
    .scan
    .over
    {
        Over::FailedAt { charged_after } => charged_after,
        Over::ChargedAt => panic!("it goes by when failures were recorded"),
    };
    let (week, day) = (now() - 7 * DAY, now() - DAY);
    assert_eq!(charged_after(None, None), week);
    assert_eq!(charged_after(None, Some(now() - MINUTE)), week, "whatever was looked at already");
    assert_eq!(charged_after(Some(day), None), day);
    assert_eq!(charged_after(Some(now() - 30 * DAY), None), week, "as old as that only if asked for");
}

#[test]
fn each_provider_and_model_has_its_own_grace() {
    let looks = plan(&rules(), &graces(), |_| None, now());
    let scan = &look(&looks, "grace").scan;
    assert_eq!(scan.grace_before, now() - 15 * MINUTE);
    let before: Vec<_> = scan.graces.iter().map(|grace| (grace.model.as_deref(), grace.before)).collect();
    assert_eq!(before, [(None, now() - 5 * MINUTE), (Some("slow/film"), now() - 40 * MINUTE)]);
}

#[test]
fn since_only_counts_what_is_older_than_a_week_unless_the_backlog_is_asked_for() {
    let month = now() - 30 * DAY;
    let (look, counted) = plan_since(&rules(), &graces(), Since { from: month, backlog: false }, now());
    assert_eq!((look.scan.after, look.scan.until), (now() - 7 * DAY, now() - 5 * MINUTE));
    let counted = counted.unwrap();
    assert_eq!((counted.after, counted.until), (month, now() - 7 * DAY));

    let week = Since { from: now() - 7 * DAY, backlog: false };
    assert!(plan_since(&rules(), &graces(), week, now()).1.is_none(), "nothing is older");

    let (look, counted) = plan_since(&rules(), &graces(), Since { from: month, backlog: true }, now());
    assert_eq!(look.scan.after, month);
    assert!(counted.is_none());
    assert_eq!(look.then, Then::Nothing, "looking again moves no cursor");
}

#[test]
fn what_was_refused_is_tried_again_once_an_hour_and_no_further_back_than_charges_are_looked_at() {
    let charged = Over::ChargedAt;
    let refused = |after, tried_at| Refused { after, tried_at };
    let planned = |over, refused| plan_again(&rules(), &graces(), over, refused, now());
    let day_ago = now() - DAY;
    let again = planned(charged, refused(day_ago, now() - HOUR)).unwrap();
    assert_eq!((again.scan.after, again.scan.until), (day_ago, now() - 5 * MINUTE));
    assert_eq!(again.then, Then::Tried(day_ago));
    assert!(planned(charged, refused(day_ago, now() - 59 * MINUTE)).is_none(), "not in every pass");
    assert!(planned(charged, refused(day_ago, now() + MINUTE)).is_some(), "that clock was ahead");

    let old = planned(charged, refused(now() - 30 * DAY, now() - DAY)).unwrap();
    assert_eq!((old.scan.after, old.then), (now() - 7 * DAY, Then::Tried(now() - 30 * DAY)));

    let over = Over::FailedAt { charged_after: now() - 7 * DAY };
    let failed = planned(over, refused(day_ago, now() - DAY)).unwrap();
    assert_eq!((failed.scan.over, failed.scan.until), (over, now()));
}

fn item(id: &str) -> crate::charge::ItemId {
    crate::charge::ItemId { charge_id: id.to_owned(), output_index: 0 }
}

#[test]
fn what_was_found_is_counted_and_what_was_refused_is_told_at_a_readable_length() {
    let mut report = Report { opened: 10, reopened: 20, ..Report::default() };
    let refused = vec![(item("c1"), "too long".to_owned()), (item(&"é".repeat(300)), "too long".to_owned())];
    tell(Found { opened: 2, reopened: 3, refused, refused_after: Some(now()) }, &mut report);
    assert_eq!((report.opened, report.reopened), (12, 23));
    let about: Vec<_> = report.findings.iter().map(|finding| finding.about.clone()).collect();
    assert_eq!(about, ["item c1/0".to_owned(), format!("item {}…", "é".repeat(200))]);
}

#[tokio::test]
async fn charges_that_are_still_to_come_are_a_finding_and_a_clock_that_is_a_little_slow_is_none() {
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
        let mut report = Report::default();
        find_future_charges(&store, now(), &mut report).await.unwrap();
        let findings = report.findings.iter();
        findings
            .map(|each| format!("{}: {}", each.about, each.detail.split(" that ").next().unwrap()))
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
fn a_backlog_is_told_by_its_number_up_to_the_most_that_is_counted() {
    assert_eq!([358, 10_000, 10_001].map(counted), ["358", "10000", "more than 10000"]);
}
