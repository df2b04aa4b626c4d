//! The database posts refunds: the role of the passes cannot raise a balance by itself, and the
//! function refunds only what the platform's own rows allow (P01 refunded once, P03 to the balances
//! that paid).

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::database;
use crate::world::{HOUR, World};

/// Connects as the role of docs/adopting.md.
async fn as_role(world: &World) -> PgConnection {
    let url = database::as_least_privileged(&world.database).await;
    PgConnection::connect(&url).await.unwrap()
}

/// Runs SQL; the code of the error, or nothing.
async fn code(connection: &mut PgConnection, sql: &str) -> Option<String> {
    let result = connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await;
    let error = result.err()?;
    let database = error.as_database_error().unwrap_or_else(|| panic!("{sql}: {error}"));
    Some(database.code().unwrap().into_owned())
}

/// The rows that the role can write itself to make a posting look right: lock, resolution.
fn prepared(charge: &str, index: i64, kind: &str) -> String {
    format!(
        "INSERT INTO makegood_charges (charge_id, account_id, subscription_drawn, wallet_drawn)
         VALUES ('{charge}', 'eve', 9000, 9000) ON CONFLICT DO NOTHING;
         INSERT INTO makegood_resolutions (charge_id, output_index, kind, reason, rule, resolved_at, decided_by)
         VALUES ('{charge}', {index}, '{kind}', 'provider_failed', 11, now(), 'eve');"
    )
}

fn post(charge: &str, index: i64, subscription: i64, wallet: i64) -> String {
    format!(
        "SELECT * FROM makegood_post_refunds('[{{\"charge_id\": \"{charge}\", \"output_index\": {index},
             \"subscription\": {subscription}, \"wallet\": {wallet}}}]')"
    )
}

async fn money(world: &World) -> (Vec<String>, i64, i64) {
    (
        world
            .texts("SELECT account_id || ' ' || bucket || ' ' || credits AS v FROM balances ORDER BY 1")
            .await,
        world.number("SELECT count(*) AS v FROM makegood_refunds").await,
        world.number("SELECT count(*) AS v FROM ledger_entries WHERE kind = 'refund'").await,
    )
}

#[tokio::test]
async fn p01_the_role_of_the_passes_can_write_no_balance_no_ledger_entry_and_no_refund() {
    let world = World::postgres().await;
    world.balance("ada", 0, 0).await;
    world.charge("c1").job("failed-1").insert().await;
    let mut role = as_role(&world).await;
    for sql in [
        "UPDATE balances SET credits = credits + 1000000000",
        "INSERT INTO balances VALUES ('eve', 'wallet', 1000000000)",
        "INSERT INTO ledger_entries VALUES ('x', 'eve', 'wallet', 5, 'refund', 'c1', 0, NULL, now())",
        "INSERT INTO makegood_refunds VALUES ('x', 1, 'c1', 0, 'eve', 'p', 'm', 0, 5, 'r', now())",
        "UPDATE makegood_refunds SET wallet_credits = 5",
        "SELECT makegood_add_to_balances('[{\"account_id\": \"ada\", \"bucket\": \"wallet\", \"credits\": 5}]')",
        "INSERT INTO charges SELECT * FROM charges",
        "UPDATE charges SET account_id = 'eve'",
        "UPDATE charge_items SET credits = 1000",
    ] {
        assert_eq!(code(&mut role, sql).await.as_deref(), Some("42501"), "{sql}");
    }
    assert_eq!(world.balance_of("ada").await, (0, 0));
    // Its intended use still works.
    world.pass().await;
    assert_eq!(world.balance_of("ada").await, (0, 10));
}

/// A posting that no row allows.
struct Forgery {
    what: &'static str,
    /// The rows that the role writes before it.
    prepare: String,
    posting: String,
    /// The condition of the function that refuses it. Without that it is not refused as it should
    /// be.
    refused_by: &'static str,
}

/// The charges that are forged about.
async fn forged_about(world: &World) {
    world.balance("ada", 0, 0).await;
    world.balance("bob", 0, 0).await;
    world.charge("plain").drawn(6, 4).insert().await;
    world.charge("free").drawn(0, 0).items(&[0]).insert().await;
    world.charge("rich").drawn(20, 0).items(&[10, 10]).insert().await;
    world.charge("short").drawn(0, 15).items(&[10, 10]).insert().await;
    world.charge("moved").drawn(0, 20).items(&[10, 10]).insert().await;
    world.charge("stored").job("j1").insert().await;
    let place = ("p-stored", "n-stored");
    world.store_output("out", Some(("stored", 0)), ("replicate", "j1", 0), place).await;
    world.charge("returned").drawn(0, 20).items(&[10, 10]).insert().await;
    world.run(&world.refund_row("returned", Some(0), "wallet", 10)).await;
    world.charge("half").drawn(10, 10).items(&[10, 10]).insert().await;
    world.run(&world.refund_row("half", None, "subscription", 4)).await;
}

/// The conditions of the function that the price is right, and that there is a resolution.
const PRICE: &str = "AND d.subscription + d.wallet = i.credits";
const UNRESOLVED: &str = "OR d.resolution_id IS NULL OR v.delivered";

fn forgeries() -> Vec<Forgery> {
    let one = |what, charge, index, split: (i64, i64), refused_by| Forgery {
        what,
        prepare: prepared(charge, index, "refund"),
        posting: post(charge, index, split.0, split.1),
        refused_by,
    };
    let and = |posting: String, charge: &str, index: i64, split: (i64, i64)| {
        let second = post(charge, index, split.0, split.1);
        let second = second.split_once("('[").unwrap().1.split_once("]')").unwrap().0;
        posting.replace("]')", &format!(", {second}]')"))
    };
    vec![
        one("no such charge", "none", 0, (0, 10), ""),
        one("no such item", "plain", 7, (0, 10), ""),
        one("more than it cost", "half", 0, (6, 5), PRICE),
        one("less than it cost", "plain", 0, (6, 3), PRICE),
        one(
            "the wallet first",
            "half",
            0,
            (0, 10),
            "OR d.wallet > 0::numeric AND ours.subscription + theirs.subscription + d.subscription < c.subscription",
        ),
        one("less than zero", "rich", 0, (14, -4), "d.subscription >= 0 AND d.wallet >= 0 AND"),
        Forgery { prepare: String::new(), ..one("no resolution", "plain", 0, (6, 4), UNRESOLVED) },
        Forgery {
            prepare: prepared("plain", 0, "close"),
            ..one(
                "a resolution that closes it",
                "plain",
                0,
                (6, 4),
                "AND r.superseded_at IS NULL AND r.kind = 'refund'",
            )
        },
        one("nothing", "free", 0, (0, 0), ""),
        one("delivered", "stored", 0, (0, 10), "OR v.delivered"),
        one("refunded by the platform", "returned", 0, (0, 10), "OR p.credits >= i.credits"),
        one(
            "more than is left of the subscription's part",
            "half",
            0,
            (10, 0),
            "OR d.subscription > 0::numeric AND ours.subscription + theirs.subscription + d.subscription > c.subscription",
        ),
        Forgery {
            prepare: prepared("short", 0, "refund") + &prepared("short", 1, "refund"),
            posting: and(post("short", 0, 0, 10), "short", 1, (0, 10)),
            ..one(
                "more than was drawn, at once",
                "short",
                0,
                (0, 10),
                "OR d.wallet > 0::numeric AND ours.wallet + theirs.wallet + d.wallet > c.wallet",
            )
        },
        Forgery {
            posting: and(post("plain", 0, 6, 4), "plain", 0, (6, 4)),
            ..one("the same item twice", "plain", 0, (6, 4), "")
        },
    ]
}

#[tokio::test]
async fn p01_p03_a_posting_that_the_platforms_rows_do_not_allow_is_refused() {
    let world = World::postgres().await;
    forged_about(&world).await;
    let mut role = as_role(&world).await;
    let before = money(&world).await;
    for Forgery { what, prepare, posting, .. } in forgeries() {
        let mut tx = role.begin().await.unwrap();
        assert_eq!(code(&mut tx, &prepare).await, None, "{what}");
        assert_eq!(code(&mut tx, &posting).await.as_deref(), Some("23001"), "{what}");
        tx.rollback().await.unwrap();
        assert_eq!(money(&world).await, before, "{what}");
    }

    // An owed refund is posted: the subscription's part first, each to the account that paid.
    for (charge, index, split) in
        [("plain", 0, (6, 4)), ("half", 0, (6, 4)), ("short", 0, (0, 10)), ("moved", 0, (0, 10))]
    {
        let sql = prepared(charge, index, "refund") + &post(charge, index, split.0, split.1);
        assert_eq!(code(&mut role, &sql).await, None, "{charge}");
        assert_eq!(world.refunded(charge).await, split);
    }
    let after = money(&world).await;
    assert_eq!(world.balance_of("ada").await, (4 + 6 + 6, 10 + 4 + 4 + 10 + 10));

    // Rows of a charge that the role wrote itself are not trusted afterwards either.
    let forget =
        "UPDATE makegood_charges SET subscription_refunded = 0, wallet_refunded = 0, wallet_drawn = 9000;";
    assert_eq!(code(&mut role, forget).await, None);
    world.run("UPDATE charges SET account_id = 'bob' WHERE id = 'moved'").await;
    for (what, charge, index, split, expected) in [
        ("again", "plain", 0, (6, 4), "23001"),
        ("beyond the draw", "short", 1, (0, 10), "23001"),
        ("to another account than before", "moved", 1, (0, 10), "23001"),
    ] {
        let prepare = if index == 1 { prepared(charge, index, "refund") } else { String::new() };
        let sql = prepare + &post(charge, index, split.0, split.1);
        assert_eq!(code(&mut role, &sql).await.as_deref(), Some(expected), "{what}");
    }
    assert_eq!(money(&world).await, after);
}

#[tokio::test]
async fn p01_each_condition_of_the_posting_refuses_a_forgery() {
    let world = World::postgres().await;
    forged_about(&world).await;
    as_role(&world).await;
    let mut owner = PgConnection::connect(&world.database.url).await.unwrap();
    let function = "SELECT pg_get_functiondef('makegood_post_refunds'::regproc) AS v";
    let function = world.texts(function).await.remove(0);
    let mut tried = 0;
    for Forgery { what, prepare, posting, refused_by } in forgeries() {
        if refused_by.is_empty() {
            continue;
        }
        assert!(function.contains(refused_by), "{what}: {refused_by} is not in\n{function}");
        let mut tx = owner.begin().await.unwrap();
        let role = database::ROLE;
        let without = format!("{}; SET LOCAL ROLE {role}; {prepare}", function.replace(refused_by, ""));
        assert_eq!(code(&mut tx, &without).await, None, "{what}");
        assert_ne!(
            code(&mut tx, &posting).await.as_deref(),
            Some("23001"),
            "{what}: refused by something else"
        );
        tx.rollback().await.unwrap();
        tried += 1;
    }
    assert_eq!(tried, 10);
}

/// The reference schema of a platform whose ids are varchar.
fn with_varchar() -> String {
    include_str!("../../migrations/reference/postgres/0001_contract.sql").replace(" text", " varchar")
}

/// A role that may create objects in a schema of the search path creates an operator that matches
/// the columns better than PostgreSQL's own. It records as which role it runs, and counts on a
/// sequence, which no rollback resets, when that is not the caller.
const PLANTED: &str = "
    CREATE TABLE public.seen (who text);
    CREATE SEQUENCE public.runs_as_another;
    GRANT INSERT ON public.seen TO PUBLIC;
    CREATE FUNCTION public.planted(a varchar, b text) RETURNS boolean LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO public.seen VALUES (current_user);
        IF current_user OPERATOR(pg_catalog.<>) session_user THEN PERFORM nextval('public.runs_as_another'); END IF;
        RETURN a::text OPERATOR(pg_catalog.=) b;
    END $$;
    CREATE FUNCTION public.planted_same(a varchar, b varchar) RETURNS boolean LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO public.seen VALUES (current_user);
        IF current_user OPERATOR(pg_catalog.<>) session_user THEN PERFORM nextval('public.runs_as_another'); END IF;
        RETURN a::text OPERATOR(pg_catalog.=) b::text;
    END $$;
    CREATE OPERATOR public.= (LEFTARG = varchar, RIGHTARG = text, FUNCTION = public.planted);
    CREATE OPERATOR public.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = public.planted_same);
    GRANT EXECUTE ON FUNCTION public.planted, public.planted_same TO PUBLIC;";

/// The functions that run with their owner's rights, each with a call of it.
const AS_OWNER: [(&str, &str); 7] = [
    (
        "makegood_try_refund",
        "SELECT makegood_try_refund('{\"charge_id\": \"c1\", \"output_index\": 0, \"subscription\": 0, \"wallet\": 10}')",
    ),
    ("makegood_sees", "SELECT makegood_sees()"),
    (
        "makegood_store_output",
        "SELECT makegood_store_output('out', 'c2', 0, 'file:///x', 'image/png', 3, repeat('a', 64))",
    ),
    ("makegood_post_refunds", ""),
    (
        "makegood_lock_balances",
        "SELECT makegood_lock_balances('[{\"account_id\": \"ada\", \"bucket\": \"wallet\"}]')",
    ),
    (
        "makegood_try_lock_balances",
        "SELECT makegood_try_lock_balances('[{\"account_id\": \"ada\", \"bucket\": \"wallet\"}]')",
    ),
    (
        "makegood_try_balance",
        "SELECT makegood_try_balance('{\"account_id\": \"ada\", \"bucket\": \"wallet\"}')",
    ),
];

#[tokio::test]
async fn p01_an_operator_of_another_role_is_never_run_with_the_owners_rights() {
    // Planted after the migration, and before it.
    for before in [false, true] {
        let schema = with_varchar() + if before { PLANTED } else { "" };
        let world = World::on(database::database().await, Some(&schema)).await;
        if !before {
            world.run(PLANTED).await;
        }
        world.balance("ada", 0, 0).await;
        for charge in ["c1", "c2"] {
            world.charge(charge).job(&format!("failed-{charge}")).age(HOUR / 2).insert().await;
        }
        world.run("DELETE FROM seen").await;
        let url = database::as_least_privileged(&world.database).await;
        let mut role = PgConnection::connect(&url).await.unwrap();
        world.run(&format!("GRANT EXECUTE ON FUNCTION makegood_store_output TO {}", database::ROLE)).await;
        for (name, call) in AS_OWNER {
            let posting = prepared("c1", 0, "refund") + &post("c1", 0, 0, 10);
            let sql = if call.is_empty() { posting } else { call.to_owned() };
            assert_eq!(code(&mut role, &sql).await, None, "{name}");
        }
        let as_owner = format!("SELECT who AS v FROM seen WHERE who <> '{}'", database::ROLE);
        assert_eq!(world.texts(&as_owner).await, Vec::<String>::new(), "planted before: {before}");
        let another = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS v FROM runs_as_another";
        assert_eq!(world.number(another).await, 0, "planted before: {before}");
        assert_eq!(world.refunded("c1").await, (0, 10));
        assert_eq!(world.number("SELECT count(*) AS v FROM stored_outputs").await, 1);
        // The operator exists and would be chosen; otherwise the test proves nothing.
        world.run("SELECT count(*) FROM balances WHERE account_id = 'ada'::text").await;
        assert!(world.number("SELECT count(*) AS v FROM seen").await > 0);
    }
}

/// Numbers that look drawn at random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from((self.0 >> 33) % sides).unwrap()
    }
}

/// Charges of every kind that matters to a refund's amount: the same for both databases.
async fn platform(world: &World) {
    let mut dice = Dice(16);
    for account in ["ada", "bob", "eve"] {
        world.balance(account, dice.below(50), dice.below(50) - 20).await;
    }
    for nth in 0..120 {
        let id = format!("c{nth:03}");
        let items: Vec<i64> = (0..=dice.below(3)).map(|_| dice.below(9)).collect();
        let credits: i64 = items.iter().sum();
        let subscription = dice.below(u64::try_from(credits).unwrap() + 1);
        // A few do not add up.
        let odd = i64::from(dice.below(10) == 0);
        let job = if dice.below(5) == 0 { format!("ok-{nth}") } else { format!("failed-{nth}") };
        let account =
            ["ada", "bob", "eve", "without-balance"][usize::try_from(dice.below(10)).unwrap().min(9) / 3];
        world
            .charge(&id)
            .account(account)
            .job(&job)
            .drawn(subscription, credits - subscription + odd)
            .items(&items)
            .insert()
            .await;
        match dice.below(8) {
            0 => {
                let place = (format!("p-{id}"), format!("n-{id}"));
                world
                    .store_output(
                        &format!("o-{id}"),
                        Some((&id, 0)),
                        ("replicate", &job, 0),
                        (&place.0, &place.1),
                    )
                    .await;
            }
            // The whole of the first item, a part of it, of another one, or of none in particular.
            kind @ 1..=4 => {
                let index = [Some(0), Some(0), Some(1), None][usize::try_from(kind).unwrap() - 1];
                let owed = if kind == 1 { items[0] } else { 1 };
                let (bucket, drawn) =
                    if subscription > 0 { ("subscription", subscription) } else { ("wallet", credits) };
                if owed.min(drawn) > 0 {
                    world.run(&world.refund_row(&id, index, bucket, owed.min(drawn))).await;
                }
            }
            _ => {}
        }
    }
}

/// The result.
async fn posted(world: &World) -> Vec<String> {
    let mut rows = Vec::new();
    for sql in [
        "SELECT charge_id || '/' || output_index || ' ' || state || ' ' || reason AS v FROM makegood_orphans",
        "SELECT id || ' ' || account_id || ' ' || subscription_credits || ' ' || wallet_credits || ' ' || reason || ' ' || model AS v FROM makegood_refunds",
        "SELECT id || ' ' || account_id || ' ' || bucket || ' ' || credits || ' ' || kind || ' ' || charge_id || ' ' || coalesce(refund_id, '-') AS v FROM ledger_entries",
        "SELECT account_id || ' ' || bucket || ' ' || credits AS v FROM balances",
        "SELECT charge_id || ' ' || subscription_refunded || ' ' || wallet_refunded AS v FROM makegood_charges",
    ] {
        rows.extend(world.texts(sql).await);
    }
    rows.sort();
    rows
}

#[tokio::test]
async fn p03_the_same_charges_get_the_same_refunds_on_both_databases() {
    let mut both = Vec::new();
    for world in [World::postgres().await, World::sqlite().await] {
        platform(&world).await;
        let report = world.pass().await;
        let refunds = world.number("SELECT count(*) AS v FROM makegood_refunds").await;
        let both_buckets = "SELECT count(*) AS v FROM makegood_refunds WHERE subscription_credits > 0 AND wallet_credits > 0";
        assert!(refunds > 60 && world.number(both_buckets).await > 10, "{refunds}: {report:?}");
        world.books_balance().await;
        both.push(posted(&world).await);
    }
    let sqlite = both.pop().unwrap();
    let postgres = both.pop().unwrap();
    assert_eq!(postgres, sqlite);
}

/// Rows of a trial cannot be committed, whoever calls it and however.
#[tokio::test]
async fn p01_a_trial_refund_gives_nothing_even_if_it_is_committed() {
    let world = World::postgres().await;
    world.balance("ada", 0, 0).await;
    world.charge("c").job("failed-1").insert().await;
    let mut role = as_role(&world).await;
    let before = money(&world).await;
    let call = "SELECT makegood_try_refund('{\"charge_id\": \"c\", \"output_index\": 0, \"subscription\": 0, \"wallet\": 10}')";
    for sql in [
        call.to_owned(),
        format!("BEGIN; {call}; COMMIT"),
        format!("BEGIN; SAVEPOINT s; {call}; RELEASE s; COMMIT"),
        format!(
            "DO $$ BEGIN BEGIN PERFORM 1; {}; EXCEPTION WHEN OTHERS THEN NULL; END; END $$",
            call.replacen("SELECT", "PERFORM", 1)
        ),
    ] {
        assert_eq!(code(&mut role, &sql).await, None, "{sql}");
        assert_eq!(money(&world).await, before, "{sql}");
    }
    for sql in [
        "SELECT makegood_write_refunds('[]')",
        "CREATE OR REPLACE FUNCTION makegood_try_refund(jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1'",
    ] {
        assert_eq!(code(&mut role, sql).await.as_deref(), Some("42501"), "{sql}");
    }
}
