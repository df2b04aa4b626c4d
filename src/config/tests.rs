//! Tests of invalid settings, their error texts, and the precedence of the sources.

use super::*;
use std::time::Duration;

fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn load_file(toml: &str) -> Result<Settings, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("makegood.toml");
    std::fs::write(&file, toml).unwrap();
    Settings::load(&LoadArgs { file: Some(file), ..LoadArgs::default() })
}

fn load_env(pairs: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    Settings::load(&LoadArgs { env: env(pairs), ..LoadArgs::default() })
}

/// The whole message with its causes.
fn message(error: &ConfigError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

fn problems(result: Result<Settings, ConfigError>) -> Vec<Problem> {
    match result.unwrap_err() {
        ConfigError::Refused(problems) => problems,
        other @ (ConfigError::Read { .. } | ConfigError::Syntax { .. } | ConfigError::Merge(_)) => {
            panic!("not a list of problems: {}", message(&other))
        }
    }
}

#[test]
fn the_built_in_settings_have_their_documented_values() {
    let settings = Settings::load(&LoadArgs { working_dir: "/srv".into(), ..LoadArgs::default() }).unwrap();
    let hour = Duration::from_hours(1);
    assert_eq!(settings.database.url.expose(), "sqlite://makegood.db");
    assert_eq!(settings.database.max_connections, 8);
    assert_eq!((settings.window.length, settings.window.margin), (24 * hour, 2 * hour));
    assert_eq!((settings.detect.grace, settings.detect.overlap), (hour / 4, hour));
    assert_eq!(settings.detect.start_at, None);
    assert_eq!(settings.detect.unknown_job_grace, hour);
    assert_eq!(settings.detect.backlog_age, 7 * 24 * hour);
    assert_eq!(settings.providers.dir, None);
    assert_eq!(settings.providers.filter_time, Duration::from_secs(2));
    assert_eq!(settings.providers.filter_memory, 64 << 20);
    assert_eq!(settings.storage.url.as_str(), "file:///srv/makegood-outputs");
    assert_eq!(settings.recovery.max_bytes, 4 << 30);
    assert!(!settings.recovery.allow_loopback);
    assert_eq!(settings.recovery.prefer, Prefer::Recover);
    assert_eq!(settings.pass.max_duration, None);
    assert_eq!((settings.brake.max_refunds_per_hour, settings.brake.max_refunds_per_day), (1000, 10_000));
    assert_eq!(settings.metrics.listen, Some("127.0.0.1:9464".parse().unwrap()));
    assert!(settings.metrics.pushgateway.is_none() && settings.metrics.textfile.is_none());
    assert_eq!(
        (settings.schedule.cron.as_str(), settings.schedule.time_zone),
        ("0 * * * * *", chrono_tz::UTC)
    );
    assert_eq!((settings.log.level, settings.log.format), (LogLevel::Info, LogFormat::Auto));
}

#[test]
fn every_key_of_the_built_in_file_has_a_comment_above_it() {
    let mut commented = false;
    let mut keys = 0;
    for line in layers::DEFAULT_TOML.lines() {
        if line.contains(" = ") && !line.starts_with('#') {
            assert!(commented, "no comment above: {line}");
            keys += 1;
        }
        commented = line.starts_with('#');
    }
    assert_eq!(keys, Known::read().unwrap().count());
}

/// TOML, and a part of the one error that it causes. F is the file.
const WRONG: &[(&str, &str)] = &[
    (
        "[window]\nlenght = \"24h\"",
        "`window.lenght` (file F): there is no such key; did you mean `window.length`?",
    ),
    (
        "[window]\ngrace = \"24h\"",
        "`window.grace` (file F): there is no such key; did you mean `detect.grace`?",
    ),
    (
        "[windows]\nlength = \"24h\"",
        "`windows` (file F): there is no such key; config/default.toml lists them all",
    ),
    ("length = \"24h\"", "`length` (file F): there is no such key; did you mean `window.length`?"),
    (
        "\"window.length\" = \"24h\"",
        "`window.length` (file F): there is no such key; did you mean `window.length`?",
    ),
    ("window = 24", "`window` (file F): expected a section: [window]"),
    (
        "[window]\nlength = 24",
        "`window.length` is 24 (file F): expected text in quotes, for instance \"24h\"",
    ),
    ("[window]\nlength = \"24\"", "`window.length` is \"24\" (file F): expected a time span"),
    ("[window]\nlength = \"1M\"", "`window.length` is \"1M\" (file F): expected a time span"),
    ("[window]\nlength = \"1.5h\"", "`window.length` is \"1.5h\" (file F): expected a time span"),
    ("[window]\nlength = \"1 day\"", "`window.length` is \"1 day\" (file F): expected a time span"),
    ("[window]\nlength = \"9999d\"", "`window.length` is \"9999d\" (file F): expected at most \"3650d\""),
    ("[window]\nlength = \"5s\"", "`window.length` is \"5s\" (file F): expected at least \"1m\""),
    (
        "[window]\nmargin = \"24h\"",
        "`window.margin` is \"24h\" (file F): expected less than window.length, which is 1d",
    ),
    (
        "[detect]\ngrace = \"9h\"",
        "`detect.grace` is \"9h\" (file F): expected at most 8h, a third of window.length (1d)",
    ),
    (
        "[window]\nlength = \"30m\"\nmargin = \"1m\"\n[detect]\noverlap = \"1m\"\nunknown_job_grace = \"1m\"",
        "`detect.grace` is \"15m\" (built-in default): expected at most 10m, a third",
    ),
    ("[detect]\noverlap = \"24h\"", "`detect.overlap` is \"24h\" (file F): expected less than window.length"),
    (
        "[detect]\nunknown_job_grace = \"23h\"",
        "`detect.unknown_job_grace` is \"23h\" (file F): expected an end before refund_by",
    ),
    (
        "[detect]\nbacklog_age = \"1h\"",
        "`detect.backlog_age` is \"1h\" (file F): expected at least window.length, which is 1d",
    ),
    (
        "[detect]\nstart_at = \"yesterday\"",
        "`detect.start_at` is \"yesterday\" (file F): expected an instant as RFC 3339",
    ),
    (
        "[detect]\nstart_at = 2026-01-01",
        "`detect.start_at` is \"2026-01-01\" (file F): expected an instant as RFC 3339",
    ),
    ("[detect]\nchunk = 7.9", "`detect.chunk` is 7.9 (file F): expected a whole number"),
    ("[detect]\nchunk = true", "`detect.chunk` is true (file F): expected a whole number"),
    ("[detect]\nchunk = \"5000\"", "`detect.chunk` is \"5000\" (file F): expected a whole number"),
    ("[detect]\nchunk = 0", "`detect.chunk` is 0 (file F): expected a whole number from 1 to 100000"),
    ("[detect]\nchunk = -1", "`detect.chunk` is -1 (file F): expected a whole number from 1 to 100000"),
    (
        "[recovery]\nconcurrency = 0",
        "`recovery.concurrency` is 0 (file F): expected a whole number from 1 to 1024",
    ),
    ("[recovery]\nmax_bytes = \"4G\"", "`recovery.max_bytes` is \"4G\" (file F): expected a size"),
    (
        "[recovery]\nmax_bytes = 4096",
        "`recovery.max_bytes` is 4096 (file F): expected text in quotes, for instance \"4GiB\"",
    ),
    ("[recovery]\nmax_bytes = \"0B\"", "`recovery.max_bytes` is \"0B\" (file F): expected a size above zero"),
    ("[recovery]\nallow_loopback = 1", "`recovery.allow_loopback` is 1 (file F): expected true or false"),
    (
        "[recovery]\nallow_loopback = \"true\"",
        "`recovery.allow_loopback` is \"true\" (file F): expected true or false",
    ),
    (
        "[recovery]\nprefer = \"Refund\"",
        "`recovery.prefer` is \"Refund\" (file F): expected \"recover\" or \"refund\"",
    ),
    (
        "[recovery]\ntime_budget = \"15m\"",
        "`recovery.time_budget` is \"15m\" (file F): expected less than pass.lease, which is 15m",
    ),
    (
        "[late]\nlast_question = \"6h\"",
        "`late.last_question` is \"6h\" (file F): expected more than late.first_question, which is 6h",
    ),
    (
        "[late]\nquestions_per_pass = 0",
        "`late.questions_per_pass` is 0 (file F): expected a whole number from 1 to 10000",
    ),
    (
        "[pass]\nmax_duration = \"0s\"",
        "`pass.max_duration` is \"0s\" (file F): expected a time span above zero",
    ),
    ("[pass]\nbatch = 10001", "`pass.batch` is 10001 (file F): expected a whole number from 1 to 10000"),
    (
        "[brake]\nmax_refunds_per_hour = -1",
        "`brake.max_refunds_per_hour` is -1 (file F): expected a whole number from 0",
    ),
    (
        "[brake]\nmax_refunds_per_hour = 20000",
        "`brake.max_refunds_per_day` is 10000 (built-in default): expected at least the limit per hour, which is 20000",
    ),
    (
        "[brake]\nmax_credits_per_hour = 9\nmax_credits_per_day = 8",
        "`brake.max_credits_per_day` is 8 (file F): expected at least the limit per hour",
    ),
    (
        "[metrics]\nlisten = \"localhost:9464\"",
        "`metrics.listen` is \"localhost:9464\" (file F): expected an address and a port",
    ),
    (
        "[metrics]\nlisten = \":9464\"",
        "`metrics.listen` is \":9464\" (file F): expected an address and a port",
    ),
    (
        "[network]\nproxy = \"proxy:3128\"",
        "`network.proxy` is \"proxy:3128\" (file F): expected the URL of a proxy",
    ),
    (
        "[network]\nproxy = \"http://me:hunter2@proxy:3128\"",
        "`network.proxy` is \"http://me:***@proxy:3128\" (file F): a password must not be in a file; set the URL in \
         MAKEGOOD__NETWORK__PROXY instead",
    ),
    (
        "[metrics]\npushgateway = \"pushgateway:9091\"",
        "`metrics.pushgateway` is \"pushgateway:9091\" (file F): expected a URL such as",
    ),
    (
        "[metrics]\ntextfile = \"/var/makegood.txt\"",
        "`metrics.textfile` is \"/var/makegood.txt\" (file F): expected a file name that ends in \".prom\"",
    ),
    ("[metrics]\njob = \" \"", "`metrics.job` is \" \" (file F): expected a name"),
    (
        "[schedule]\ncron = \"* * * * *\"",
        "`schedule.cron` is \"* * * * *\" (file F): a cron expression needs six fields, seconds first",
    ),
    (
        "[schedule]\ncron = \"0 0 0 31 2 *\"",
        "`schedule.cron` is \"0 0 0 31 2 *\" (file F): the cron expression never fires",
    ),
    (
        "[schedule]\ncron = \"every minute\"",
        "`schedule.cron` is \"every minute\" (file F): a cron expression needs six fields",
    ),
    (
        "[schedule]\ntime_zone = \"Berlin\"",
        "`schedule.time_zone` is \"Berlin\" (file F): expected the name of an IANA time zone",
    ),
    (
        "[schedule]\ntime_zone = \"+02:00\"",
        "`schedule.time_zone` is \"+02:00\" (file F): expected the name of an IANA time zone",
    ),
    (
        "[database]\nurl = \"mysql://db/credits\"",
        "`database.url` is (not shown) (file F): expected a URL that begins with \"sqlite://\" or \"postgres://\"",
    ),
    (
        "[database]\nurl = \"postgres://ada:hun/ter2@db\"",
        "`database.url` is \"postgres://ada:***@db\" (file F): this is not a URL",
    ),
    (
        "[database]\nurl = \"sqlite::memory:\"",
        "`database.url` is \"sqlite::memory:\" (file F): a database in memory would lose",
    ),
    (
        "[database]\nmax_connections = 0",
        "`database.max_connections` is 0 (file F): expected a whole number from 1 to 1000",
    ),
    (
        "[database]\nstatement_timeout = \"0s\"",
        "`database.statement_timeout` is \"0s\" (file F): expected at least \"1s\"",
    ),
    (
        "[database]\nlock_timeout = \"0s\"",
        "`database.lock_timeout` is \"0s\" (file F): expected at least \"1ms\"",
    ),
    (
        "[storage]\nurl = \"ftp://host/x\"",
        "`storage.url` is \"ftp://host/x\" (file F): expected \"file:./directory\"",
    ),
    (
        "[storage]\nurl = \"./outputs\"",
        "`storage.url` is \"./outputs\" (file F): expected \"file:./directory\"",
    ),
    ("[storage]\nurl = \"s3://\"", "`storage.url` is \"s3://\" (file F): "),
    ("[storage]\nurl = \"file://outputs/x\"", "an absolute path has three slashes"),
    ("[storage]\nurl = \"s3://key:secret@bucket\"", "`storage.url` is \"s3://key:***@bucket\" (file F): "),
    (
        "[log]\nlevel = \"verbose\"",
        "`log.level` is \"verbose\" (file F): expected one of \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\"",
    ),
    (
        "[log]\nformat = \"xml\"",
        "`log.format` is \"xml\" (file F): expected one of \"auto\", \"text\", \"json\"",
    ),
    (
        "[providers]\nfilter_time = \"1500ms\"",
        "`providers.filter_time` is \"1500ms\" (file F): expected whole seconds, at most 1h",
    ),
    (
        "[providers]\nfilter_memory = \"1MiB\"",
        "`providers.filter_memory` is \"1MiB\" (file F): expected at least 16 MiB",
    ),
    ("[providers]\ndir = [\"a\"]", "`providers.dir` is a list (file F): expected text in quotes"),
];

#[test]
fn an_invalid_setting_is_an_error_that_names_a_correct_value() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("makegood.toml");
    for (toml, says) in WRONG {
        std::fs::write(&file, toml).unwrap();
        let found = problems(Settings::load(&LoadArgs { file: Some(file.clone()), ..LoadArgs::default() }));
        let text = found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        let text = text.replace(&file.display().to_string(), "F");
        assert!(text.contains(says), "{toml}\n  says: {text}\n  must: {says}");
        assert_eq!(found.len(), 1, "{toml}\n  says: {text}");
    }
}

#[test]
fn the_environment_is_read_strictly_by_the_type_of_the_key() {
    let settings = load_env(&[
        ("MAKEGOOD__WINDOW__MARGIN", "90m"),
        ("MAKEGOOD__DETECT__CHUNK", "100"),
        ("MAKEGOOD__RECOVERY__ALLOW_LOOPBACK", "true"),
        ("MAKEGOOD__METRICS__JOB", "1"),
        ("MAKEGOOD__METRICS__LISTEN", ""),
    ])
    .unwrap();
    assert_eq!(settings.window.margin, Duration::from_mins(90));
    assert_eq!(settings.detect.chunk, 100);
    assert!(settings.recovery.allow_loopback);
    assert_eq!(settings.metrics.job, "1");
    assert_eq!(settings.metrics.listen, None);

    for (name, value, says) in [
        ("MAKEGOOD_WINDOW__LENGTH", "12h", "it names no key; did you mean MAKEGOOD__WINDOW__LENGTH?"),
        ("MAKEGOOD_WINDOW_LENGTH", "12h", "it names no key; did you mean MAKEGOOD__WINDOW__LENGTH?"),
        ("MAKEGOOD__WINDOW__LENGHT", "12h", "did you mean MAKEGOOD__WINDOW__LENGTH?"),
        ("makegood__window__length", "12h", "did you mean MAKEGOOD__WINDOW__LENGTH?"),
        ("MAKEGOOD__WINDOW", "12h", "it names no key"),
        ("MAKEGOOD_DATABASE_URL", "postgres://ada:hunter2@db/x", "did you mean MAKEGOOD__DATABASE__URL?"),
        (
            "MAKEGOOD_PASSWORD",
            "hunter2",
            "it names no key; settings are MAKEGOOD__SECTION__KEY with two underscores",
        ),
        ("MAKEGOOD_METRICS_PORT", "9464", "it names no key"),
        (
            "MAKEGOOD__DETECT__CHUNK",
            "7.9",
            "`detect.chunk` is \"7.9\" (environment variable MAKEGOOD__DETECT__CHUNK): expected a whole number",
        ),
        ("MAKEGOOD__DETECT__CHUNK", "", "expected a whole number"),
        ("MAKEGOOD__DETECT__CHUNK", "1M", "expected a whole number"),
        ("MAKEGOOD__RECOVERY__ALLOW_LOOPBACK", "yes", "expected true or false"),
        ("MAKEGOOD__WINDOW__MARGIN", "7200", "expected a time span"),
        (
            "DATABASE_URL",
            "",
            "`database.url` is \"\" (environment variable DATABASE_URL): expected a URL that begins with",
        ),
        ("DATABASE_URL", "hunter2", "`database.url` is (not shown) (environment variable DATABASE_URL)"),
    ] {
        let found = problems(load_env(&[(name, value)]));
        let text = found.iter().map(ToString::to_string).collect::<String>();
        assert!(text.contains(says), "{name}={value} says: {text}");
        assert_eq!(found.len(), 1, "{name}={value} says: {text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[cfg(unix)]
#[test]
fn a_value_that_is_not_utf_8_is_an_error_and_other_variables_are_ignored() {
    use std::os::unix::ffi::OsStringExt;
    let broken = OsString::from_vec(vec![b'1', 0xff]);
    let load = |name: &str| {
        Settings::load(&LoadArgs { env: vec![(name.into(), broken.clone())], ..LoadArgs::default() })
    };
    let found = problems(load("MAKEGOOD__DETECT__CHUNK"));
    assert!(found[0].to_string().contains("expected UTF-8 text"), "{found:?}");
    assert!(load("OTHER").is_ok());
}

#[test]
fn variables_that_kubernetes_sets_are_not_settings() {
    load_env(&[
        ("MAKEGOOD_SERVICE_HOST", "10.0.0.1"),
        ("MAKEGOOD_SERVICE_PORT", "9464"),
        ("MAKEGOOD_SERVICE_PORT_METRICS", "9464"),
        ("MAKEGOOD_PORT", "tcp://10.0.0.1:9464"),
        ("MAKEGOOD_PORT_9464_TCP", "tcp://10.0.0.1:9464"),
        ("MAKEGOOD_PORT_9464_TCP_PROTO", "tcp"),
        ("MAKEGOOD_METRICS_PORT_9464_TCP_ADDR", "10.0.0.1"),
        ("MAKEGOOD_LOG", "debug"),
        ("MAKEGOODNESS", "1"),
    ])
    .unwrap();
}

#[test]
fn each_source_overrides_the_one_below() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("makegood.toml");
    std::fs::write(&file, "[database]\nurl = \"sqlite://file.db\"\nmax_connections = 3\n[detect]\nchunk = 7")
        .unwrap();
    let mut args = LoadArgs { file: Some(file), ..LoadArgs::default() };
    let url = |args: &LoadArgs| Settings::load(args).unwrap().database.url.expose().to_owned();
    assert_eq!(url(&args), "sqlite://file.db");
    args.env = env(&[("MAKEGOOD__DATABASE__URL", "sqlite://env.db"), ("MAKEGOOD__DETECT__CHUNK", "8")]);
    assert_eq!(url(&args), "sqlite://env.db");
    // In any order of the environment.
    args.env.insert(0, ("DATABASE_URL".into(), "sqlite://database-url.db".into()));
    assert_eq!(url(&args), "sqlite://database-url.db");
    args.flags =
        vec![Flag { name: "--database-url", key: "database.url", value: "sqlite://flag.db".to_owned() }];
    assert_eq!(url(&args), "sqlite://flag.db");
    let settings = Settings::load(&args).unwrap();
    assert_eq!((settings.database.max_connections, settings.detect.chunk), (3, 8));
    // A section keeps its other keys if a file sets one.
    assert_eq!(settings.detect.overlap, Duration::from_hours(1));
}

#[test]
fn all_problems_are_reported_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("makegood.toml");
    std::fs::write(&file, "[window]\nlength = \"1M\"\nmargin = 2\nx = 1\n[log]\nlevel = \"loud\"").unwrap();
    let args = LoadArgs {
        file: Some(file),
        env: env(&[("MAKEGOOD__RECOVERY__MAX_BYTES", "4G"), ("MAKEGOOD_X", "1")]),
        ..LoadArgs::default()
    };
    let mut keys: Vec<String> = problems(Settings::load(&args)).into_iter().map(|p| p.key).collect();
    keys.sort();
    assert_eq!(
        keys,
        ["MAKEGOOD_X", "log.level", "recovery.max_bytes", "window.length", "window.margin", "window.x"]
    );
}

#[test]
fn a_missing_or_invalid_file_is_named_and_not_quoted() {
    let args = LoadArgs { file: Some("/nowhere/makegood.toml".into()), ..LoadArgs::default() };
    let error = Settings::load(&args).unwrap_err();
    assert!(error.to_string().ends_with("the configuration file /nowhere/makegood.toml"), "{error}");
    assert!(message(&error).contains("No such file"), "{}", message(&error));

    for (toml, line) in [
        ("[database]\nurl = postgres://ada:hunter2@db/x\n", 2),
        ("[database]\nurl = \"postgres://ada:hunter2@db/x\n", 2),
        ("[database]\nurl = \"sqlite://a\"\nurl = \"postgres://ada:hunter2@db\"", 3),
        ("\n\n[database\nurl = 1", 3),
    ] {
        let error = load_file(toml).unwrap_err();
        let text = message(&error);
        assert!(
            text.contains("is not valid TOML") && text.contains(&format!("at line {line}: ")),
            "{toml}: {text}"
        );
        assert!(!text.contains("hunter2") && !format!("{error:?}").contains("hunter2"), "{text}");
    }
}

#[test]
fn loaded_settings_do_not_print_passwords() {
    let settings = load_env(&[
        ("DATABASE_URL", "postgres://ada:hunter2@db/credits?sslpassword=hunter2"),
        ("MAKEGOOD__METRICS__PUSHGATEWAY", "https://ada:hunter2@push"),
    ])
    .unwrap();
    assert!(!format!("{settings:?}").contains("hunter2"));
    let args = LoadArgs { env: env(&[("DATABASE_URL", "hunter2")]), ..LoadArgs::default() };
    assert!(!format!("{args:?}").contains("hunter2"));
}

#[test]
fn relative_storage_is_relative_to_the_working_directory() {
    for (written, absolute) in [
        ("file:./outputs", "file:///srv/app/outputs"),
        ("file:outputs/a b", "file:///srv/app/outputs/a%20b"),
        ("file:../outputs", "file:///srv/outputs"),
        ("file:/outputs", "file:///outputs"),
        ("file:///outputs", "file:///outputs"),
        ("s3://bucket/a", "s3://bucket/a"),
    ] {
        let args = LoadArgs {
            env: env(&[("MAKEGOOD__STORAGE__URL", written)]),
            working_dir: "/srv/app".into(),
            ..LoadArgs::default()
        };
        assert_eq!(Settings::load(&args).unwrap().storage.url.as_str(), absolute, "{written}");
    }
}
