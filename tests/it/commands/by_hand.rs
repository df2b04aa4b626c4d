//! `makegood refund` and `makegood recover`, as support runs them: exit codes, what is told, and what is kept.

use super::worlds;

const MIA: [&str; 4] = ["--by", "mia@example.com", "--reason", "ticket 812"];

#[tokio::test]
async fn p23_support_refunds_and_recovers_by_hand_and_name_and_reason_are_kept() {
    for world in worlds().await {
        let say = |command: &[&str]| world.makegood(&[command, &MIA].concat()).output();

        let refunded = world.json(&[&["refund", "failed-1/0"], &MIA[..]].concat()).await;
        assert_eq!((&refunded["changed"], &refunded["state"]), (&true.into(), &"refunded".into()));
        assert_eq!(refunded["decision"]["reason"], "provider_error");
        let again = world.json(&[&["refund", "failed-1"], &MIA[..]].concat()).await;
        assert_eq!((&again["changed"], &again["state"]), (&false.into(), &"refunded".into()));
        let page = world.text(&["explain", "failed-1"]).await;
        for says in [
            "decided by mia@example.com",
            "by hand, mia@example.com: ticket 812",
            "6      #1  6 to the subscription",
        ] {
            assert!(page.contains(says), "{says:?} is not in\n{page}");
        }

        let page = world.text(&[&["recover", "done/0"], &MIA[..]].concat()).await;
        assert!(page.starts_with("done/0 is recovered now. Its output was brought home on "), "{page}");
        let page = world.text(&[&["recover", "stored"], &MIA[..]].concat()).await;
        assert!(page.starts_with("Nothing was changed: stored/0 is stored already. "), "{page}");

        // Each error once, on standard error; what it would take is said.
        for (command, code, says) in [
            (&["refund", "running/0"][..], 1, "the provider says that it is still at work (still_running)"),
            (&["refund", "running/0"], 1, "to give it back all the same, say it again with --anyway"),
            (
                &["refund", "stored/0", "--anyway"],
                1,
                "its output is stored where it belongs (delivered); a pass would close it",
            ),
            (
                &["refund", "done/0", "--anyway"],
                1,
                "nothing was given back for done/0: it is recovered already.",
            ),
            (
                &["recover", "failed-2/0"],
                1,
                "nothing was brought home for failed-2/0: the provider says that it failed",
            ),
            (&["refund", "nope"], 1, "there is no charge `nope`"),
        ] {
            let ended = say(command).await;
            assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{command:?}: {ended:?}");
            assert!(ended.stderr.contains(says), "{command:?}: {ended:?}");
        }
        let anyway = world.json(&[&["refund", "running/0", "--anyway"], &MIA[..]].concat()).await;
        assert_eq!(
            (&anyway["decision"]["reason"], &anyway["decision"]["rule"]),
            (&"by_hand".into(), &0.into())
        );
        let credits = "SELECT CAST(sum(credits) AS bigint) FROM balances";
        assert_eq!(world.number(credits).await, 20);
        assert_eq!(world.run().await.code, Some(0), "the one that was late is refunded");
        assert_eq!(world.number(credits).await, 30);
    }
}

#[tokio::test]
async fn p23_nobody_refunds_without_a_name_a_reason_and_one_output() {
    for world in worlds().await {
        world.execute("INSERT INTO charge_items VALUES ('failed-2', 1, 0, NULL, NULL, NULL)").await;
        for command in [
            &["refund", "failed-1/0"][..],
            &["refund", "failed-1/0", "--by", "mia"],
            &["refund", "failed-1/0", "--by", "mia", "--reason", " "],
            &["refund", "failed-1/0", "--by", "makegood", "--reason", "x"],
            &["recover", "done/0", "--by", "mia", "--reason", "x", "--anyway"],
            &["refund", "failed-2", "--by", "mia", "--reason", "x"],
        ] {
            let ended = world.makegood(command).output().await;
            assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{command:?}: {ended:?}");
        }
        assert_eq!(world.number("SELECT count(*) FROM makegood_orphans").await, 0);
    }
}

#[tokio::test]
async fn p23_a_refund_by_hand_that_the_brake_holds_ends_with_3_and_says_what_would_let_it_through() {
    for world in worlds().await {
        let limited = |command: &[&str]| {
            world
                .makegood(&[command, &MIA, &["--output", "text"]].concat())
                .env("MAKEGOOD__BRAKE__MAX_REFUNDS_PER_HOUR", "1")
                .output()
        };
        assert_eq!(limited(&["refund", "failed-1/0"]).await.code, Some(0));
        let held = limited(&["refund", "failed-2/0"]).await;
        assert_eq!(held.code, Some(3), "{held:?}");
        assert!(
            held.stdout.starts_with(
                "Held: nothing was given back for failed-2/0. It is held for a person: the brake is on"
            ),
            "{held:?}"
        );
        assert!(held.stdout.contains("say it again with --anyway"), "{held:?}");
        let insisted = limited(&["refund", "failed-2/0", "--anyway"]).await;
        assert_eq!(insisted.code, Some(0), "{insisted:?}");
        assert_eq!(world.json(&["brake", "status"]).await["engaged"], true);
    }
}
