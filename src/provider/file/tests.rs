//! Tests with valid and invalid provider files.

use super::*;

const GOOD: &str = r#"
[provider]
name = "acme"
retention = "1h"
grace = "10m"
output_hosts = ["cdn.acme.example", "*.acme.example"]
[models."acme/video"]
grace = "20m"
[auth]
header = "Authorization"
value = "Bearer {secret}"
secret = { env = "ACME_KEY" }
[ask]
request = "GET https://api.acme.example/v1/{job}"
headers = { X-Version = "2024-11-06" }
read = '{verdict: "running"}'
"#;

#[test]
fn a_valid_file_is_read() {
    let provider = read(GOOD).unwrap();
    assert_eq!(provider.grace_for("acme/video"), Some(Duration::from_mins(20)));
    assert_eq!(provider.grace_for("acme/other"), Some(Duration::from_mins(10)));
    assert_eq!(provider.limits, ProviderLimits::default());
    assert_eq!(provider.output_hosts.written(), ["cdn.acme.example", "*.acme.example"]);
}

#[test]
fn download_keys_go_to_the_hosts_of_questions_unless_the_file_lists_key_hosts() {
    let all = [
        "https://api.acme.example/",
        "https://x.acme.example/",
        "https://keys.example:8443/",
        "http://api.acme.example/",
    ];
    let may = |text: &str| {
        let hosts = read(text).unwrap().key_hosts;
        all.map(|url| hosts.check(&url::Url::parse(url).unwrap()).is_ok())
    };
    assert_eq!(may(GOOD), [true, false, false, false]);
    let listed = |written: &str| GOOD.replace("[ask]", &format!("[download]\nkey_hosts = {written}\n[ask]"));
    assert_eq!(may(&listed("[]")), [false; 4]);
    assert_eq!(may(&listed("[\"x.acme.example\", \"keys.example:8443\"]")), [false, true, true, false]);
    let stored = GOOD
        .replace("grace = \"10m\"", "ask_hosts = [\"*.acme.example\"]")
        .replace("https://api.acme.example/v1/{job}", "{job|url}");
    assert_eq!(may(&stored), [true, true, false, false]);
}

#[test]
fn an_invalid_file_is_rejected_with_the_key_and_the_expected_value() {
    for (from, to, key, problem) in [
        ("retention = \"1h\"", "retention = \"1 hour\"", "provider.retention", "a duration"),
        ("retention = \"1h\"", "retention = 3600", "provider.retention", "a duration"),
        ("retention = \"1h\"", "retenton = \"1h\"", "provider.retenton", "unknown field"),
        ("name = \"acme\"", "name = \"Acme/1\"", "provider.name", "a-z"),
        ("grace = \"10m\"", "grace = \"30m\"", "provider.grace", "third"),
        ("grace = \"20m\"", "grace = \"21m\"", "models.\"acme/video\".grace", "third"),
        ("grace = \"10m\"", "closed = { on = \"soon\", why = \"x\" }", "provider.closed.on", "2026-09-24"),
        ("grace = \"10m\"", "closed = { on = \"2026-09-24\" }", "provider.closed", "why"),
        ("grace = \"10m\"", "max_concurrency = 0", "provider.max_concurrency", "1 to 1000"),
        ("grace = \"10m\"", "max_concurrency = 1.5", "provider.max_concurrency", "whole number"),
        ("grace = \"10m\"", "requests_per_second = 0", "provider.requests_per_second", "0.001"),
        ("grace = \"10m\"", "requests_per_second = nan", "provider.requests_per_second", "0.001"),
        ("grace = \"10m\"", "timeout = \"0s\"", "provider.timeout", "longer"),
        ("Bearer {secret}", "Bearer", "auth.value", "{secret}"),
        ("{ env =", "{ enw =", "auth.secret.enw", "unknown field"),
        ("{ env = \"ACME_KEY\" }", "{ }", "auth.secret", "exactly one of"),
        ("{ env = \"ACME_KEY\" }", "{ env = \"A\", file = \"b\" }", "auth.secret", "exactly one of"),
        (
            "{ env = \"ACME_KEY\" }",
            "{ env = \"A\", ttl = \"1h\" }",
            "auth.secret",
            "`ttl` belongs to `command`",
        ),
        ("{ env = \"ACME_KEY\" }", "{ command = [\"x\"] }", "auth.secret", "`ttl`"),
        ("{ env = \"ACME_KEY\" }", "{ command = [], ttl = \"1h\" }", "auth.secret", "program"),
        ("{ env = \"ACME_KEY\" }", "{ command = [\"x\"], ttl = \"0s\" }", "auth.secret", "`ttl`"),
        ("[auth]", "[auth]\nkind = \"jwt_rs256\"", "auth.kind", "unknown word"),
        ("[auth]", "[auth]\nkind = \"jwt_hs256\"", "auth.access_key", "the source of the key"),
        ("[auth]", "[auth]\naccess_key = { env = \"A\" }", "auth.access_key", "removed"),
        ("[auth]", "[auth]\nlifetime = \"1h\"", "auth.lifetime", "removed"),
        ("[ask]", "[download]\nheaders = { \"a b\" = \"c\" }\n[ask]", "download.headers.a b", "name"),
        (
            "[ask]",
            "[download.auth]\nheader = \"k\"\nvalue = \"x\"\nsecret = { env = \"A\" }\n[ask]",
            "download.auth.value",
            "{secret}",
        ),
        ("\"*.acme.example\"]", "\"gs://a/b\"]", "provider.output_hosts", "gs://a/b"),
        (
            "[ask]",
            "[download]\nkey_hosts = [\"http://a.example\"]\n[ask]",
            "download.key_hosts",
            "http://a.example",
        ),
        ("https://api", "http://api", "ask.request", "https"),
        ("{job}", "{jub}", "ask.request", "`{jub}` is unknown"),
        ("running\"}'", "running\"'", "ask.read", "jq filter"),
        ("[ask]", "[ask]\nbody = \"{}\"", "ask.body", "only a POST or a PUT"),
        ("[ask]", "[ask]\nform = \"{}\"", "ask.form", "only a POST or a PUT"),
        ("[ask]", "[ask]\nform = \"{}\"\nbody = \"{}\"", "ask.form", "only one"),
        ("[ask]", "[ask]\nanswer = \"yaml\"", "ask.answer", "unknown word"),
        ("grace = \"10m\"", "ask_hosts = [\"10.0.0.1\"]", "provider.ask_hosts", "10.0.0.1"),
        ("https://api.acme.example/v1/{job}", "{job|url}", "ask.request", "ask_hosts"),
        ("[ask]", "[ask]\nmax_requests = 0", "ask.max_requests", "1 to 20"),
        ("[ask]", "[ask]\nmax_requests = 21", "ask.max_requests", "1 to 20"),
        ("[ask]", "[ask]\nread_al = true", "ask.read_al", "unknown field"),
        ("2024-11-06", "{job}", "ask.headers.X-Version", "`{job}`"),
        ("2024-11-06", "Key {secret}", "ask.headers.X-Version", "`{secret}`"),
        (
            "[ask]",
            "[download]\nheaders = { k = \"{model|raw}\" }\n[ask]",
            "download.headers.k",
            "`{model|raw}`",
        ),
        ("acme/video\"]", "acme/*\"]", "models.\"acme/*\"", "exact name"),
        ("[ask]", "[ask]\nlet = { job = \".\" }", "ask.let.job", "another name"),
        ("\"*.acme", "\"*acme", "provider.output_hosts", "*acme"),
        ("[provider]", "[provider", "(the file)", "]"),
        ("output_hosts = ", "# ", "provider", "output_hosts"),
    ] {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD, "{from} is not in the file");
        let error = read(&text).unwrap_err();
        assert!(error.key == key && error.problem.contains(problem), "{to}: {error:?}");
    }
}
