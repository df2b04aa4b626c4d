//! Files that a browser would execute, from the provider's answer to the row and the object's
//! headers: each is stored under a type that no browser executes, or is rejected as an output.
//! `src/recovery/file_type.rs` says which first bytes mean which type.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use makegood::demo::simulator::provider_files;
use makegood::provider::Providers;

use crate::hostile::{Hostile, events, whole};
use crate::s3::bucket::Bucket;
use crate::s3::storage_on;
use crate::world::{HOUR, on_both};

/// A provider that answers what the server says. Some of its models make only one kind of file.
const PROVIDER: &str = r#"[provider]
name = "mallory"
retries = 0
output_hosts = ["127.0.0.1"]
[recovery.models."painter"]
makes = ["image"]
[recovery.models."writer"]
makes = ["text"]
[ask]
request = "GET http://127.0.0.1:PORT/jobs/{job}"
read = '{verdict: "succeeded", outputs: [.body + {index: 0}]}'
"#;

const SHOWN: bool = false;
const ATTACHED: bool = true;

/// Name, model, declared type, bytes; the stored type and how it is served, or why it is no output.
type Row =
    (&'static str, &'static str, &'static str, &'static [u8], Result<(&'static str, bool), &'static str>);

const FILES: [Row; 14] = [
    (
        "svg-as-page",
        "any",
        "text/html",
        b"<svg><script>alert(1)</script></svg>",
        Ok(("image/svg+xml", ATTACHED)),
    ),
    (
        "svg",
        "painter",
        "image/svg+xml",
        b"<svg><script>alert(1)</script></svg>",
        Ok(("image/svg+xml", ATTACHED)),
    ),
    ("doctype", "any", "image/svg+xml", b"<!doctype svg><html><script>alert(1)</script>", Err("html")),
    ("bitmap-as-page", "any", "text/html", b"BM<script>alert(1)</script>", Err("html")),
    ("bitmap", "any", "image/bmp", b"BM<script>alert(1)</script>", Ok(("text/plain", SHOWN))),
    ("archive", "any", "text/html", b"PK\x03\x04<script>alert(1)</script>", Ok(("application/zip", SHOWN))),
    (
        "gzip",
        "any",
        "application/xhtml+xml",
        b"\x1f\x8b\x08<script>alert(1)</script>",
        Ok(("application/gzip", SHOWN)),
    ),
    ("xhtml", "any", "application/xhtml+xml", b"\0\x01\x02\x03", Err("html")),
    (
        "replace",
        "any",
        "multipart/x-mixed-replace",
        b"--b\r\nContent-Type: text/html\r\n\r\n<script>",
        Ok(("text/plain", SHOWN)),
    ),
    ("script", "any", "text/javascript", b"\0\x01\x02\x03", Ok(("application/octet-stream", ATTACHED))),
    (
        "pdf",
        "any",
        "application/pdf",
        b"%PDF-1.7 <script>alert(1)</script>",
        Ok(("application/octet-stream", ATTACHED)),
    ),
    ("page", "writer", "text/html", b"<html><script>alert(1)</script>", Ok(("text/plain", SHOWN))),
    ("page-as-picture", "painter", "image/png", b"<html><script>alert(1)</script>", Err("html")),
    ("page-of-anything", "any", "text/plain", b"<html><script>alert(1)</script>", Err("html")),
];

on_both! {
    async fn p18_an_executable_file_is_stored_under_a_passive_type_or_not_at_all(world) {
        let mut world = world;
        world.balance("ada", 0, 0).await;
        let bucket = Bucket::default();
        world.parts.storage = Arc::new(storage_on(&bucket).await);
        let hostile = Hostile::default();
        let port = hostile.start().await;
        let at = |path: String, headers: &str, body: &[u8]| {
            hostile.0.lock().unwrap().insert(path, whole("200 OK", headers, body));
        };
        let mut expected = Vec::new();
        for (name, model, declared, bytes, stored) in FILES {
            // Once as a file that is fetched, once in the answer itself.
            at(format!("/{name}"), &format!("content-type: {declared}\r\n"), bytes);
            let url = serde_json::json!({"url": format!("http://127.0.0.1:{port}/{name}")});
            let inline = serde_json::json!({"base64": BASE64_STANDARD.encode(bytes), "content_type": declared});
            for (job, answer) in [(name.to_owned(), url), (format!("{name}-inline"), inline)] {
                at(format!("/jobs/{job}"), "content-type: application/json\r\n", answer.to_string().as_bytes());
                world.charge(&job).provider("mallory", model).job(&job).age(HOUR).insert().await;
                expected.push((job, stored));
            }
        }
        // A model's text, read by the shipped filter: a `data:` URL states its own type.
        for (job, output, stored) in [
            ("data-page", format!("data:text/html;base64,{}", BASE64_STANDARD.encode("<script>alert(1)</script>")), Err("html")),
            ("data-word", format!("data:text/html;base64,{}", BASE64_STANDARD.encode("\0\x01<script>")), Err("html")),
            ("data-svg", format!("data:text/javascript;base64,{}", BASE64_STANDARD.encode("<svg onload='alert(1)'/>")), Ok(("image/svg+xml", ATTACHED))),
            ("data-script", format!("data:text/javascript;base64,{}", BASE64_STANDARD.encode("\0alert(1)")), Ok(("application/octet-stream", ATTACHED))),
            ("words", "<html><script>alert(1)</script>".to_owned(), Ok(("text/plain", SHOWN))),
        ] {
            let answer = serde_json::json!({"id": job, "status": "succeeded", "output": output}).to_string();
            at(format!("/replicate/v1/predictions/{job}"), "content-type: application/json\r\n", answer.as_bytes());
            world.charge(job).job(job).age(HOUR).insert().await;
            expected.push((job.to_owned(), stored));
        }
        let dir = world.folder.path().join("providers");
        std::fs::write(dir.join("mallory.toml"), PROVIDER.replace("PORT", &port.to_string())).unwrap();
        for (name, text) in provider_files(&format!("http://127.0.0.1:{port}")) {
            std::fs::write(dir.join(format!("{name}.toml")), text).unwrap();
        }
        world.parts.providers = Arc::new(Providers::load(Some(&dir), world.clock.clone()).unwrap());
        world.pass().await;

        let told = events(&world).await;
        for (job, stored) in expected {
            let of_job = format!("SELECT content_type || ' ' || uri AS v FROM stored_outputs WHERE charge_id = '{job}'");
            let rows = world.texts(&of_job).await;
            match stored {
                Ok((content_type, attached)) => {
                    assert_eq!(rows.len(), 1, "{job}: {}", told[&job]);
                    let (recorded, uri) = rows[0].split_once(' ').unwrap();
                    let path = uri.replace("s3://", "/");
                    let (objects, _) = bucket.left();
                    let object = objects.iter().find(|(found, _)| *found == path).unwrap_or_else(|| panic!("{path}: {objects:?}"));
                    let found = (recorded, object.1.as_str(), bucket.is_attachment(&path));
                    assert_eq!(found, (content_type, content_type, attached), "{job}");
                }
                Err(why) => {
                    assert!(rows.is_empty(), "{job}: {rows:?}");
                    assert!(told[&job].contains(&format!("not_an_output ({why})")), "{job}: {}", told[&job]);
                }
            }
        }
    }
}
