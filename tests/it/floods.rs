//! Providers that send data without end before an answer, through whole passes. The other
//! providers' charges are made good in the same pass, and the flood is reported.
//!
//! Everything runs on one thread. The tests observe the results of each charge; the servers stop
//! only when their peer stops reading.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;

use makegood::provider::Providers;
use serde_json::json;

use crate::world::on_both;

/// A server that answers each request with interim responses, for as long as they are taken.
fn flood() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let _head = stream.read(&mut [0; 4096]);
                let interim = b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(4000);
                while stream.write_all(&interim).is_ok() {}
            });
        }
    });
    port
}

on_both! {
    /// P15 (made good within 24 hours): whatever other providers send.
    async fn p15_interim_responses_without_end_delay_no_other_and_are_reported(world) {
        let mut world = world;
        let port = flood();
        let dir = world.folder.path().join("providers");
        let file = |name: &str, keys: &str, request: &str| {
            let text = format!(
                "[provider]\nname = \"{name}\"\nretries = 0\ncircuit_opens_after = 100\ntimeout = \"30s\"\noutput_hosts = [\"127.0.0.1\"]\n\
                 {keys}\n[ask]\nrequest = \"GET {request}\"\n\
                 read = '{{verdict: \"succeeded\", outputs: [{{index: 0, url: .body.url}}]}}'\n"
            );
            std::fs::write(dir.join(format!("{name}.toml")), text).unwrap();
        };
        let simulator = format!("{}/replicate/v1/predictions/{{job}}", world.simulator.base_url());
        file("floods", "max_concurrency = 8", &format!("http://127.0.0.1:{port}/{{job}}"));
        file("files", "max_concurrency = 8", &simulator);
        world.parts.providers = Arc::new(Providers::load(Some(&dir), world.clock.clone()).unwrap());
        world.balance("ada", 0, 0).await;
        let names = |what: &str| (0..8).map(|nth| format!("{what}-{nth}")).collect::<Vec<_>>();
        let answer = json!({"url": format!("http://127.0.0.1:{port}/file.png")});
        for name in names("floods").into_iter().chain(names("files")) {
            world.simulator.set_answer(&name, makegood::demo::simulator::Canned::json(200, &answer));
            world.charge(&name).provider(name.split('-').next().unwrap(), "m").job(&name).insert().await;
        }
        let well = names("well");
        for name in &well {
            world.charge(name).job(&format!("failed-{name}")).insert().await;
        }

        world.pass().await;
        for name in &well {
            assert_eq!(world.fate(name, 0).await, "refunded provider_error", "{name}");
        }
        for name in names("floods") {
            assert_eq!(world.fate(&name, 0).await, "open unreachable", "{name}");
        }
        for name in names("files") {
            assert_eq!(world.fate(&name, 0).await, "open recovery_retry", "{name}");
        }
        let words = "the server sent more than 256 KiB that are not part of a response, such as endless interim responses (`103`)";
        let messages = world.texts("SELECT message AS v FROM makegood_answers WHERE provider = 'floods'").await;
        assert_eq!(messages, vec![words; 8]);
        let details = "SELECT detail AS v FROM makegood_orphan_events WHERE charge_id LIKE 'files-%' AND kind = 'wait'";
        for detail in world.texts(details).await {
            assert!(detail.starts_with("network: ") && detail.contains(words), "{detail}");
        }
        world.books_balance().await;
    }
}
