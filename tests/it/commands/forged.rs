//! Hostile text in ids, names and files, from outside: it forges no line, no name and no escape
//! sequence, shows no key, and does not create unbounded metrics.

use super::*;

#[tokio::test]
async fn p18_hostile_text_forges_nothing_in_the_output() {
    let world = World::new(sqlite()).await;
    let failed = world.ago(30);
    let mut sql = String::new();
    let mut charge = |id: &str, provider: &str| {
        let at = world.ago(60);
        let _ = write!(
            sql,
            "INSERT INTO charges VALUES ('{id}', 'u1', 'p', 'n', '{provider}', 'acme/still', 'failed-{id}', {at}, 6, 4, NULL);\
             INSERT INTO charge_items VALUES ('{id}', 0, 10, NULL, NULL, {failed});"
        );
    };
    charge("evil\nFORGED line\u{1b}[2J", "replicate");
    for nth in 0..40 {
        charge(&format!("c{nth}"), &format!("made-up-{nth}"));
    }
    world.execute(&sql).await;
    let metrics = world.path().join("makegood.prom");
    let ended = world
        .makegood(&["run"])
        .env("MAKEGOOD__LOG__FORMAT", "text")
        .env("MAKEGOOD_LOG", "trace")
        .env("MAKEGOOD__METRICS__TEXTFILE", metrics.to_str().unwrap())
        .output()
        .await;
    assert_eq!(world.number("SELECT count(*) FROM makegood_refunds").await, 43, "{ended:?}");
    let csv = world.makegood(&["report", "--output", "csv"]).output().await;
    let story = world.text(&["explain", "evil\nFORGED line\u{1b}[2J"]).await;
    for shown in [&ended.stderr, &ended.stdout, &story] {
        assert!(!shown.lines().any(|line| line.starts_with("FORGED")), "{shown}");
    }
    // In CSV a quoted field may hold a line break.
    assert!(csv.stdout.contains("\"evil\nFORGED line"), "{csv:?}");
    for shown in [&ended.stderr, &ended.stdout, &csv.stdout, &story] {
        assert!(!shown.contains('\u{1b}'), "{shown}");
    }
    for shown in [&ended.stderr, &csv.stdout, &story] {
        assert!(shown.contains("FORGED line"), "the id is told: {shown}");
    }

    // The first twenty have series of their own.
    let metrics = std::fs::read_to_string(metrics).unwrap();
    let refunds: Vec<_> =
        metrics.lines().filter(|line| line.starts_with("makegood_refunds_total{")).collect();
    assert_eq!(refunds.iter().filter(|line| line.contains("\"made-up-")).count(), 20, "{refunds:#?}");
    assert!(refunds.iter().any(|line| line.contains("\"(other)\"") && line.ends_with(" 20")), "{refunds:#?}");

    // The brake cannot be released under the program's name, or a name that looks like it.
    for name in ["makegood", "MakeGood", "m\u{430}kegood", "ada\u{200b}", "ada\nroot", ""] {
        let ended = world.makegood(&["brake", "release", "--by", name, "--reason", "x"]).output().await;
        assert_eq!(ended.code, Some(2), "{name:?}: {ended:?}");
    }

    // An error does not repeat a key that was written in the wrong place.
    let file = world.path().join("providers/acme.toml");
    std::fs::write(
        &file,
        "[provider]\nname = \"acme\"\noutput_hosts = []\n[auth]\nheader = \"x\"\nvalue = \"{secret}\"\n\
         secret = \"sk-inline-0123456789\"\n[ask]\nrequest = \"GET https://a.example/{job}\"\nread = '{verdict: \"running\"}'\n",
    )
    .unwrap();
    let ended = world.makegood(&["provider", "list"]).output().await;
    assert!(ended.code != Some(0) && ended.stderr.contains("auth.secret"), "{ended:?}");
    assert!(!format!("{ended:?}").contains("sk-inline"), "{ended:?}");
}
