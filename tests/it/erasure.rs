//! Texts of providers and people can be erased, by account or by age. The proof of a refund stays,
//! evidence of open cases stays, and there is no other way to erase.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use makegood::store::{Erased, ErasedBy, Erasing, Place, Store, Whose};
use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::commands::worlds;
use crate::database::{ROLE, as_eraser, as_least_privileged};
use crate::world::{HOUR, MINUTE, World, on_both};

fn order(whose: Whose) -> Erasing {
    Erasing { whose, by: "mia".to_owned(), why: "request 7".to_owned(), dry_run: false, rows: 1000 }
}

fn of(account: &str) -> Erasing {
    order(Whose::Account(account.to_owned()))
}

/// As the role that may only erase.
async fn eraser(world: &World) -> Store {
    let url = as_eraser(&world.database).await;
    let store = Store::open(&url, 2, Duration::from_secs(30)).await.unwrap();
    store.with_clock(world.clock.clone())
}

/// All portions, one after the other.
async fn erase(store: &Store, order: &Erasing) -> Erased {
    let (mut erased, mut place) = (Erased::default(), Some(Place::default()));
    while let Some(at) = place {
        let (portion, next) = store.erase_portion(order, at).await.unwrap();
        erased.add(&portion);
        place = next;
    }
    erased
}

/// Everything but what may be erased, and what is written with it.
async fn proof(world: &World) -> Vec<(String, Vec<String>)> {
    let erasable = [
        "makegood_answers",
        "makegood_orphan_events",
        "makegood_passes",
        "makegood_provider_state",
        "makegood_erasures",
    ];
    let mut all: Vec<(String, Vec<String>)> = world
        .all_rows()
        .await
        .into_iter()
        .filter(|(table, _)| !erasable.contains(table))
        .map(|(table, rows)| (table.to_owned(), rows))
        .collect();
    for (table, columns) in [
        (
            "makegood_answers",
            "id, provider, provider_job_id, asked_at, verdict, class, offered, http_status, content_sha256",
        ),
        (
            "makegood_orphan_events",
            "id, orphan_id, charge_id, output_index, at, kind, reason, rule, answer_id, pass_id, lease_token, content_sha256",
        ),
        ("makegood_passes", "id, mode, started_at, finished_at, outcome, content_sha256"),
        ("makegood_provider_state", "provider, asked_at, verdict, circuit_open_until, noted_at"),
    ] {
        let columns = columns.split(", ").map(|column| format!("coalesce(CAST({column} AS text), '-')"));
        let row = columns.collect::<Vec<_>>().join(" || ' ' || ");
        all.push((
            table.to_owned(),
            world
                .texts(
                    &format!("SELECT {row} AS v FROM {table} ORDER BY id")
                        .replace("state ORDER BY id", "state"),
                )
                .await,
        ));
    }
    all
}

/// How many texts there are: of answers, events and passes, and messages of providers.
async fn texts(world: &World) -> [i64; 4] {
    [
        world.number("SELECT count(*) AS v FROM makegood_answers WHERE coalesce(code, message, request, excerpt) IS NOT NULL").await,
        world.number("SELECT count(*) AS v FROM makegood_orphan_events WHERE detail IS NOT NULL").await,
        world.number("SELECT count(*) AS v FROM makegood_passes WHERE report IS NOT NULL").await,
        world.number("SELECT count(*) AS v FROM makegood_provider_state WHERE message IS NOT NULL").await,
    ]
}

fn hash(text: &str) -> String {
    Sha256::digest(text).iter().fold(String::new(), |hash, byte| hash + &format!("{byte:02x}"))
}

/// Each text has the hash that a person computes from what `explain --output json` shows.
async fn hashes_hold(world: &World, charges: &[&str]) {
    for charge in charges {
        let story = world.store.story(charge).await.unwrap().unwrap();
        assert!(
            !story.answers.is_empty() && story.events.iter().any(|event| event.detail.is_some()),
            "{charge}"
        );
        for answer in &story.answers {
            let texts = [&answer.code, &answer.message, &answer.request, &answer.excerpt]
                .map(|text| serde_json::to_string(text).unwrap());
            assert_eq!(answer.content_sha256, Some(hash(&format!("[{}]", texts.join(", ")))), "{charge}");
        }
        for event in &story.events {
            assert_eq!(event.content_sha256, event.detail.as_deref().map(hash), "{charge}");
        }
    }
    for (table, text) in [("makegood_orphan_events", "detail"), ("makegood_passes", "report")] {
        let unhashed =
            format!("SELECT count(*) AS v FROM {table} WHERE {text} IS NOT NULL AND content_sha256 IS NULL");
        assert_eq!(world.number(&unhashed).await, 0, "{table}");
    }
    let report = world.texts("SELECT report AS v FROM makegood_passes ORDER BY id").await.remove(0);
    assert_eq!(
        world.texts("SELECT content_sha256 AS v FROM makegood_passes ORDER BY id").await[0],
        hash(&report)
    );
}

/// One refunded and one open charge of ada's, one of bob's, and one of ada's that was moved to the
/// ledger alone: the platform has removed it.
async fn night(world: &World) {
    world.balance("ada", 0, 0).await;
    world.balance("bob", 0, 0).await;
    world.charge("c1").job("failed-1").insert().await;
    world.charge("gone").job("failed-2").insert().await;
    world.charge("open").job("running-1").insert().await;
    world.charge("bobs").account("bob").job("failed-3").insert().await;
    world.pass().await;
    world
        .run("DELETE FROM charge_items WHERE charge_id = 'gone'; DELETE FROM charges WHERE id = 'gone'")
        .await;
    assert_eq!(world.fate("c1", 0).await, "refunded provider_error");
    assert_eq!(world.fate("open", 0).await, "open still_running");
}

on_both! {
    async fn p21_erasing_evidence_keeps_the_proof_of_a_refund(world) {
        night(&world).await;
        hashes_hold(&world, &["c1", "open", "bobs"]).await;
        let people = eraser(&world).await;
        let (before, had, kept) = (world.all_rows().await, texts(&world).await, proof(&world).await);

        let counted = erase(&people, &Erasing { dry_run: true, ..of("ada") }).await;
        assert_eq!(world.all_rows().await, before, "a dry run changes nothing");
        let erased = erase(&people, &of("ada")).await;
        assert_eq!(Erased { provider_messages: 0, ..erased }, counted);
        // c1 and the removed charge: an answer and two details each. The open one's is left.
        assert_eq!((erased.answers, erased.events, erased.left_answers, erased.left_events), (2, 4, 1, 1), "{erased:?}");
        assert_eq!(proof(&world).await, kept, "everything else stays");
        let has = texts(&world).await;
        assert_eq!([had[0] - has[0], had[1] - has[1], had[2] - has[2], had[3] - has[3]],
                   [erased.answers, erased.events, erased.pass_reports, erased.provider_messages]);
        let bobs = world.store.story("bobs").await.unwrap().unwrap();
        assert!(bobs.answers[0].excerpt.is_some() && bobs.events.iter().all(|event| event.erased.is_none()), "{bobs:?}");
        let logged = "SELECT by_whom || ' ' || reason || ' ' || account_id || ' ' || answers || ' ' || events AS v FROM makegood_erasures";
        assert_eq!(world.texts(logged).await, ["mia request 7 ada 2 4"]);

        // Each erased text is shown with who had it erased and why.
        let story = world.store.story("c1").await.unwrap().unwrap();
        let by = story.answers[0].erased.clone().unwrap();
        assert_eq!((by.by_whom.as_str(), by.reason.as_str()), ("mia", "request 7"));
        assert!(story.answers[0].excerpt.is_none() && story.answers[0].verdict == "failed", "{story:?}");
        assert!(story.events.iter().all(|event| event.detail.is_none() && event.erased == Some(by.clone())), "{story:?}");

        // Run again, it erases and writes nothing.
        let before = world.all_rows().await;
        let again = erase(&people, &of("ada")).await;
        assert_eq!(again, Erased { left_answers: 1, left_events: 1, ..Erased::default() });
        assert_eq!(world.all_rows().await, before);

        // The open case is resolved, and then its evidence is erased too.
        world.pass_time(23 * HOUR);
        for _ in 0..6 {
            world.pass().await;
            world.pass_time(30 * MINUTE);
        }
        assert_eq!(world.fate("open", 0).await, "refunded timed_out");
        world.books_balance().await;
        let kept = proof(&world).await;
        let rest = erase(&people, &of("ada")).await;
        assert!(rest.answers > 1 && rest.left() == 0, "{rest:?}");
        assert_eq!(proof(&world).await, kept);
        let story = world.store.story("open").await.unwrap().unwrap();
        assert!(story.answers.iter().all(|answer| answer.excerpt.is_none() && answer.erased.is_some()), "{story:?}");
    }
}

on_both! {
    async fn an_erasure_by_age_that_is_interrupted_goes_on(world) {
        night(&world).await;
        world.pass_time(10 * HOUR);
        world.charge("new").job("failed-4").insert().await;
        world.pass().await;
        let people = eraser(&world).await;
        let (had, kept) = (texts(&world).await, proof(&world).await);
        let age = world.now() - HOUR;
        let step = Erasing { rows: 1, ..order(Whose::OlderThan(age)) };

        // Killed after three portions: what they erased is recorded.
        let (mut erased, mut place) = (Erased::default(), Place::default());
        for _ in 0..3 {
            let (portion, next) = people.erase_portion(&step, place).await.unwrap();
            erased.add(&portion);
            place = next.unwrap();
        }
        assert!(erased.answers >= 2, "{erased:?}");
        assert_eq!(world.number("SELECT sum(answers) AS v FROM makegood_erasures").await, erased.answers);
        assert_eq!(texts(&world).await[0], had[0] - erased.answers);

        // Said again, it does the rest.
        erased.add(&Erased { left_answers: 0, left_events: 0, ..erase(&people, &Erasing { rows: 2, ..step.clone() }).await });
        assert_eq!(proof(&world).await, kept);
        for (sum, count) in [("answers", erased.answers), ("events", erased.events), ("pass_reports", erased.pass_reports), ("provider_messages", erased.provider_messages)] {
            assert_eq!(world.number(&format!("SELECT sum({sum}) AS v FROM makegood_erasures")).await, count, "{sum}");
        }
        let old = world.at(age);
        for (table, written, text) in [("makegood_answers", "asked_at", "excerpt"), ("makegood_orphan_events", "at", "detail"), ("makegood_passes", "finished_at", "report")] {
            let left = format!("SELECT count(*) AS v FROM {table} WHERE {written} < {old} AND {text} IS NOT NULL");
            let new = format!("SELECT count(*) AS v FROM {table} WHERE {written} >= {old} AND {text} IS NOT NULL");
            // The open case's.
            let open = i64::from(table != "makegood_passes");
            assert_eq!(world.number(&left).await, open, "{table}");
            assert!(world.number(&new).await > 0, "{table}");
        }
        let story = world.store.story("new").await.unwrap().unwrap();
        assert!(story.answers[0].excerpt.is_some());
    }
}

on_both! {
    /// As the owner of the tables: the triggers are what refuses.
    async fn there_is_no_other_way_to_change_evidence(world) {
        night(&world).await;
        let people = eraser(&world).await;
        erase(&people, &of("bob")).await;
        let before = world.all_rows().await;
        let texts = "code = NULL, message = NULL, request = NULL, excerpt = NULL";
        let answer = "id = (SELECT min(id) FROM makegood_answers WHERE erasure_id IS NULL)";
        let erased = "id = (SELECT min(id) FROM makegood_answers WHERE erasure_id IS NOT NULL)";
        let event = "id = (SELECT min(id) FROM makegood_orphan_events WHERE erasure_id IS NULL AND detail IS NOT NULL)";
        let pass = "id = (SELECT min(id) FROM makegood_passes)";
        for sql in [
            // Without a record.
            format!("UPDATE makegood_answers SET {texts} WHERE {answer}"),
            format!("UPDATE makegood_answers SET {texts}, erasure_id = 999 WHERE {answer}"),
            // Half of it, or more than it.
            format!("UPDATE makegood_answers SET excerpt = NULL, erasure_id = 1 WHERE {answer}"),
            format!("UPDATE makegood_answers SET {texts}, erasure_id = 1, verdict = 'succeeded' WHERE {answer}"),
            format!("UPDATE makegood_answers SET {texts}, erasure_id = 1, http_status = 500 WHERE {answer}"),
            format!("UPDATE makegood_answers SET {texts}, erasure_id = 1, content_sha256 = 'x' WHERE {answer}"),
            // Back, or in another's name.
            format!("UPDATE makegood_answers SET excerpt = 'x' WHERE {erased}"),
            format!("UPDATE makegood_answers SET erasure_id = NULL WHERE {erased}"),
            format!("UPDATE makegood_answers SET excerpt = 'x' WHERE {answer}"),
            format!("DELETE FROM makegood_answers WHERE {erased}"),
            format!("UPDATE makegood_orphan_events SET detail = NULL WHERE {event}"),
            format!("UPDATE makegood_orphan_events SET detail = NULL, erasure_id = 1, kind = 'x' WHERE {event}"),
            format!("UPDATE makegood_orphan_events SET detail = 'x', erasure_id = 1 WHERE {event}"),
            format!("DELETE FROM makegood_orphan_events WHERE {event}"),
            format!("UPDATE makegood_passes SET report = NULL WHERE {pass}"),
            format!("UPDATE makegood_passes SET report = 'x' WHERE {pass}"),
            format!("UPDATE makegood_passes SET report = NULL, erasure_id = 1, outcome = 'failed' WHERE {pass}"),
            format!("UPDATE makegood_passes SET content_sha256 = 'x' WHERE {pass}"),
            "UPDATE makegood_erasures SET by_whom = 'x'".to_owned(),
            "DELETE FROM makegood_erasures".to_owned(),
            "UPDATE makegood_refunds SET reason = 'x'".to_owned(),
        ] {
            assert!(world.try_run(&sql).await.is_err(), "{sql}");
        }
        assert_eq!(world.all_rows().await, before);
    }
}

#[tokio::test]
async fn the_role_of_the_passes_erases_nothing_and_the_eraser_does_nothing_else() {
    let world = World::postgres().await;
    night(&world).await;
    let people = eraser(&world).await;
    erase(&people, &of("bob")).await;
    let refused = async |url: &str, sql: &str| {
        let mut connection = PgConnection::connect(url).await.unwrap();
        let error =
            sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.expect_err(sql);
        error.as_database_error().unwrap().code().unwrap().into_owned()
    };
    let passes = as_least_privileged(&world.database).await;
    let call = r#"SELECT * FROM makegood_erase('{"account_id": "ada", "table": "orphans", "by": "x", "reason": "x"}')"#;
    for (sql, code) in [
        (call, "42501"),
        (
            "UPDATE makegood_answers SET code = NULL, message = NULL, request = NULL, excerpt = NULL, erasure_id = 1",
            "42501",
        ),
        ("UPDATE makegood_orphan_events SET detail = NULL, erasure_id = 1", "42501"),
        (
            "INSERT INTO makegood_erasures (erased_at, by_whom, reason, account_id, answers, events, pass_reports, provider_messages) VALUES (now(), 'x', 'x', 'x', 0, 0, 0, 0)",
            "42501",
        ),
        // It may update passes, so a trigger refuses it.
        ("UPDATE makegood_passes SET report = NULL, erasure_id = 1 WHERE report IS NOT NULL", "23001"),
        ("UPDATE makegood_passes SET report = NULL WHERE report IS NOT NULL", "23001"),
    ] {
        assert_eq!(refused(&passes, sql).await, code, "{sql}");
    }
    let url = as_eraser(&world.database).await;
    for sql in [
        "SELECT * FROM makegood_answers",
        "SELECT * FROM charges",
        "UPDATE makegood_passes SET report = NULL",
        "SELECT * FROM makegood_post_refunds('[]')",
        "SELECT * FROM makegood_post_reversals('[]')",
        "SELECT * FROM makegood_erasures",
    ] {
        assert_eq!(refused(&url, sql).await, "42501", "{sql}");
    }
    for wrong in [
        r#"{"account_id": "ada", "table": "answers", "by": "x", "reason": "x"}"#,
        r#"{"account_id": "ada", "older_than": "2026-01-01", "table": "passes", "by": "x", "reason": "x"}"#,
        r#"{"account_id": "ada", "table": "orphans", "by": "", "reason": "x"}"#,
        r#"{"account_id": "ada", "table": "orphans", "by": "x"}"#,
        r#"{"table": "answers", "by": "x", "reason": "x"}"#,
    ] {
        let code = refused(&url, &format!("SELECT * FROM makegood_erase('{wrong}')")).await;
        assert!(["22023", "23514"].contains(&code.as_str()), "{wrong}: {code}");
    }
    // The database computes the hash, whoever inserts.
    let forged = "INSERT INTO makegood_answers (provider, provider_job_id, asked_at, verdict, offered, excerpt, content_sha256)
                  VALUES ('x', 'x', now(), 'failed', 0, 'y', 'forged') RETURNING content_sha256";
    let mut role = PgConnection::connect(&passes).await.unwrap();
    let hashed: String = sqlx::query_scalar(forged).fetch_one(&mut role).await.unwrap();
    assert_eq!(hashed, hash("[null, null, null, \"y\"]"), "as {ROLE}");
}

/// Two jobs in one: an answer about a job that an open case of another account needs is left.
#[tokio::test]
async fn an_answer_that_another_account_s_open_case_needs_is_left() {
    let world = World::sqlite().await;
    night(&world).await;
    world.charge("theirs").account("bob").job("running-1").insert().await;
    let erased = erase(&world.store, &of("bob")).await;
    assert_eq!((erased.answers, erased.left()), (1, 0), "{erased:?}");
    world
        .run("UPDATE makegood_orphans SET state = 'closed', resolved_at = opened_at WHERE charge_id = 'open'")
        .await;
    world.run("UPDATE makegood_orphans SET provider_job_id = 'running-1' WHERE charge_id = 'bobs'").await;
    world
        .run("UPDATE makegood_orphans SET state = 'open', resolved_at = NULL WHERE charge_id = 'bobs'")
        .await;
    let erased = erase(&world.store, &of("ada")).await;
    assert_eq!((erased.left_answers, erased.left_events), (1, 0), "{erased:?}");
    assert!(matches!(
        world.store.story("c1").await.unwrap().unwrap().answers[0].erased,
        Some(ErasedBy { .. })
    ));
}

#[tokio::test]
async fn p21_p23_people_erase_with_name_and_reason_and_explain_shows_it() {
    for mut world in worlds().await {
        assert_eq!(world.run().await.code, Some(3));
        let who = ["--by", "mia@example.com", "--reason", "request 7"];
        if world.is_postgres() {
            let refused = world.makegood(&[&["erase", "--account", "u1"], &who[..]].concat()).output().await;
            assert_eq!(refused.code, Some(1), "{refused:?}");
            for says in [
                "permission denied for function makegood_erase",
                "run it as a role that may call makegood_erase",
                "nothing was erased",
            ] {
                assert!(refused.stderr.contains(says), "{says}: {refused:?}");
            }
        }
        let passes = world.become_eraser().await;
        for (arguments, code, says) in [
            (&["--account", "u1", "--before", "1d"][..], 2, "cannot be used with"),
            (&[][..], 2, "--account <ID>|--before <TIME>"),
            (&["--before", "2999-01-01T00:00:00Z"], 2, "--before is in the future"),
            (&["--before", "yesterday"], 2, "a time span before now"),
        ] {
            let ended = world.makegood(&[&["erase"], arguments, &who[..]].concat()).output().await;
            assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{arguments:?}: {ended:?}");
            assert!(ended.stderr.contains(says), "{arguments:?}: {ended:?}");
        }
        let unnamed = world.makegood(&["erase", "--account", "u1", "--by", "mia"]).output().await;
        assert_eq!(unnamed.code, Some(2), "{unnamed:?}");

        let dry = world
            .makegood(&[&["erase", "--account", "u1", "--dry-run", "--output", "text"], &who[..]].concat())
            .output()
            .await;
        assert_eq!(dry.code, Some(3), "{dry:?}");
        assert!(dry.stdout.starts_with("Would erase up to 3 answers of providers, "), "{dry:?}");
        assert_eq!(world.number("SELECT count(*) FROM makegood_erasures").await, 0);
        let erased = world.makegood(&[&["erase", "--account", "u1"], &who[..]].concat()).output().await;
        assert_eq!(erased.code, Some(3), "the running one's is left: {erased:?}");
        let told: serde_json::Value = serde_json::from_str(&erased.stdout).unwrap();
        assert_eq!((&told["erased"]["answers"], &told["left"]["answers"]), (&3.into(), &1.into()), "{told}");
        assert!(told["text"].as_str().unwrap().contains("Left 1 answer of providers and "), "{told}");
        let nothing = world
            .makegood(&[&["erase", "--before", "365d", "--output", "text"], &who[..]].concat())
            .output()
            .await;
        assert_eq!(nothing.code, Some(0), "{nothing:?}");
        assert!(nothing.stdout.starts_with("Nothing was erased from before 20"), "{nothing:?}");

        world.become_role(passes);
        let page = world.text(&["explain", "failed-1"]).await;
        for says in [
            "refunded",
            "10 credits were refunded on",
            "the provider says that it failed",
            ") answered 200; SHA-256 of the erased text: ",
            "by mia@example.com (request 7)",
        ] {
            assert!(page.contains(says), "{says:?} is not in\n{page}");
        }
        assert_eq!(page.matches("erased on 20").count(), 3, "the answer, and two details\n{page}");
        for arguments in
            [&["report"][..], &["report", "--output", "csv"], &["provider", "list"], &["brake", "status"]]
        {
            let ended = world.makegood(arguments).output().await;
            assert!(matches!(ended.code, Some(0 | 3)), "{arguments:?}: {ended:?}");
        }
        assert_eq!(world.run().await.code, Some(3), "the next pass goes on");
    }
}
