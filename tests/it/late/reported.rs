//! How late successes are shown: the report in all its forms, metrics, and `explain`.

use makegood::demo::simulator::Canned;
use makegood::ops;
use serde_json::{Value, json};

use crate::binary::makegood;
use crate::database::as_least_privileged;
use crate::world::{HOUR, MINUTE, World, on_both};

async fn said(world: &World, arguments: &[&str]) -> String {
    let url = as_least_privileged(&world.database).await;
    let run = makegood(arguments).within(world.folder.path()).env("DATABASE_URL", &url);
    let ended = run.output().await;
    assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
    ended.stdout
}

on_both! {
    async fn an_output_that_was_paid_for_and_never_delivered_is_reported_with_job_and_evidence(world) {
        world.balance("ada", 0, 0).await;
        world.charge("lost").job("unknown-lost").insert().await;
        world.charge("came").job("unknown-came").insert().await;
        world.charge("later").job("unknown-later").insert().await;
        world.pass().await;
        for job in ["unknown-lost", "unknown-later"] {
            world.simulator.set_answer(job, Canned::json(200, &json!({"status": "succeeded", "output": ["https://replicate.delivery/x.png"]})));
        }
        world.run(&super::output(&world, "came", "unknown-came")).await;
        world.pass_time(16 * MINUTE);
        world.pass().await;
        world.pass_time(6 * HOUR);
        world.pass().await;
        // An output that the platform stores after it was reported is not claimed any more.
        world.run(&super::output(&world, "later", "unknown-later")).await;

        let since = ["--since", "2020-01-01T00:00:00Z"];
        let json: Value = serde_json::from_str(&said(&world, &[&["report", "--output", "json"][..], &since].concat()).await).unwrap();
        assert_eq!(json["late_successes"], json!([{"provider": "replicate", "items": 3, "never_delivered": 1, "subscription_credits": 0, "wallet_credits": 10}]));
        let items = json["late_success_items"].as_array().unwrap();
        let lost = items.iter().find(|item| item["charge_id"] == "lost").unwrap();
        assert_eq!((&lost["provider_job_id"], &lost["stored_output_id"], &lost["refund_reason"]), (&json!("unknown-lost"), &Value::Null, &json!("never_returned")));
        assert_eq!((&lost["evidence"]["verdict"], &lost["evidence"]["http_status"]), (&json!("succeeded"), &json!(200)));
        assert!(lost["evidence"]["excerpt"].as_str().unwrap().contains("replicate.delivery/x.png"), "{lost}");
        assert!(lost["evidence"]["request"].as_str().unwrap().contains("unknown-lost"), "{lost}");

        let text = said(&world, &[&["report", "--output", "text"][..], &since].concat()).await;
        assert!(text.contains("3 items, 1 of them never delivered"), "{text}");
        let line = text.lines().find(|line| line.contains("lost/0")).unwrap();
        assert!(line.contains("unknown-lost") && line.contains("never_returned") && line.contains("succeeded (200)"), "{text}");
        assert!(!text.contains("came/0") && !text.contains("later/0"), "{text}");

        let csv = said(&world, &[&["report", "--output", "csv"][..], &since].concat()).await;
        let of = |status: &str| csv.lines().filter(|line| line.starts_with(&format!("{status},"))).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!((of("refunded").len(), of("never_delivered").len(), of("stored_late").len()), (3, 1, 2), "{csv}");
        assert!(of("never_delivered")[0].contains("never_delivered,lost,0,ada,replicate,") && of("never_delivered")[0].contains("unknown-lost"), "{csv}");

        let totals = ops::totals::totals(&world.store, world.now()).await.unwrap();
        let counted: Vec<_> = totals.late_successes.iter().map(|((provider, kind), count)| (provider.as_str(), kind.as_str(), *count)).collect();
        assert_eq!(counted, [("replicate", "never_stored", 2), ("replicate", "stored_late", 1)]);

        let story = said(&world, &["explain", "lost", "--output", "text"]).await;
        assert!(story.contains("The provider was asked again on") && story.contains("said: succeeded (answer #"), "{story}");
        assert!(story.contains("never delivered: `makegood report` lists it to claim it back. The refund stays."), "{story}");
        let story = said(&world, &["explain", "came", "--output", "text"]).await;
        assert!(story.contains("output late-came was stored after the refund. Both stay"), "{story}");
    }
}

on_both! {
    async fn credits_near_the_ends_of_the_range_break_no_view_and_no_report(world) {
        world.balance("ada", 0, 0).await;
        let huge = i64::MAX - 5;
        for nth in 0..3 {
            world.charge(&format!("huge{nth}")).job(&format!("running-{nth}")).drawn(huge, huge).items(&[huge]).insert().await;
        }
        world.charge("below").job("running-below").drawn(i64::MIN + 1, i64::MIN + 1).items(&[-huge]).insert().await;
        for (nth, account) in ["bob", "bob", "bob", "eve", "eve"].into_iter().enumerate() {
            world.charge(&format!("right{nth}")).account(account).drawn(0, huge).items(&[if account == "eve" { 7 } else { huge }]).insert().await;
        }
        world.pass().await;
        let deductions = world.texts("SELECT charge_id || ' ' || credits AS v FROM billing_activity WHERE activity = 'deduction' AND charge_id IN ('huge0', 'below', 'right0') ORDER BY 1").await;
        assert_eq!(deductions, [format!("below {}", i64::MAX), format!("huge0 {}", i64::MIN), format!("right0 {}", -huge)]);
        let usage = world.texts("SELECT account_id || ' ' || items || ' ' || credits AS v FROM billable_usage ORDER BY 1").await;
        assert_eq!(usage, [format!("ada 4 {}", i64::MAX), format!("bob 3 {}", i64::MAX), "eve 2 14".to_owned()]);
        let json: Value = serde_json::from_str(&said(&world, &["report", "--output", "json", "--since", "2020-01-01T00:00:00Z"]).await).unwrap();
        let held: Vec<&Value> = json["waiting"].as_array().unwrap().iter().filter(|each| each["state"] == "held").collect();
        assert!(held.iter().any(|each| each["credits"] == i64::MAX), "{json}");
    }
}
