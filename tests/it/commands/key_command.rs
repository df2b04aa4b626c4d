//! A key that a command prints, with the built binary: what the command's environment contains, and
//! that its processes are ended.

use std::path::Path;

use super::*;

/// Whether a process is there and at work; one that is dead and not yet collected is not.
fn is_alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Gives a simulated provider a key, which it does not look at.
fn with_secret(file: &Path, secret: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    let auth =
        format!("[auth]\nheader = \"Authorization\"\nvalue = \"Bearer {{secret}}\"\nsecret = {secret}\n");
    std::fs::write(file, text + "\n" + &auth).unwrap();
}

#[tokio::test]
async fn a_command_for_a_key_gets_no_other_secret_and_its_processes_are_ended() {
    let world = World::new(sqlite()).await;
    // It prints its environment, and leaves a process behind that keeps its output open.
    let script = "env > seen; sleep 1000 & echo $! > left; echo token-1";
    with_secret(
        &world.path().join("providers/replicate.toml"),
        &format!(r#"{{ command = ["/bin/sh", "-c", "{script}"], ttl = "1h", pass_env = ["ACME_PROFILE"] }}"#),
    );
    let mut run = world.makegood(&["run"]).env("ACME_PROFILE", "mine").env("HOME", "/nowhere");
    for name in ["FAL_KEY", "REPLICATE_API_TOKEN", "AWS_SECRET_ACCESS_KEY", "MAKEGOOD__LOG__LEVEL"] {
        run = run.env(name, if name.starts_with("MAKEGOOD") { "info" } else { "s3cret" });
    }
    let ended = run.output().await;
    // With the key, and so without waiting for the process that holds the output, which would have
    // cost the key its time.
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert_eq!(
        world.number("SELECT count(*) FROM makegood_refunds WHERE reason = 'provider_error'").await,
        2
    );

    let seen = std::fs::read_to_string(world.path().join("seen")).unwrap();
    let mut names: Vec<&str> =
        seen.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    // The shell's own.
    names.retain(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name));
    names.sort_unstable();
    assert_eq!(names, ["ACME_PROFILE", "HOME", "PATH"], "{seen}");
    assert!(!seen.contains("s3cret"), "{seen}");

    let left = std::fs::read_to_string(world.path().join("left")).unwrap();
    let gone = tokio::time::timeout(Duration::from_mins(1), async {
        // It was killed before the key was used; the system may take a moment.
        while is_alive(left.trim()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(gone.await.is_ok(), "{left} lives");
}
