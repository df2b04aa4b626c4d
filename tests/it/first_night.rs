//! Detection on large tables: it can be stopped and resumed, refunds begin while it scans, and a
//! pass without new charges scans only what is new.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use makegood::clock::Timestamp;
use makegood::detect::{Detection, DetectionObserver, FULL_LOOK_EVERY};
use makegood::pass::Parts;
use makegood::report::PassReport;

use crate::world::{HOUR, MINUTE, World, on_both};

/// Allows this many chunks to be scanned, and counts the charges in them.
struct Chunks {
    left: AtomicU64,
    looked_at: AtomicU64,
}

impl Chunks {
    fn new(left: u64) -> Self {
        Self { left: AtomicU64::new(left), looked_at: AtomicU64::new(0) }
    }
}

impl DetectionObserver for Chunks {
    fn is_ending(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }

    fn scanned(&self, looked_at: u64, _up_to: Timestamp) {
        self.left.fetch_sub(1, Ordering::SeqCst);
        self.looked_at.fetch_add(looked_at, Ordering::SeqCst);
    }

    fn opened(&self, _providers: &BTreeSet<String>) {}
}

/// Runs detection for this many chunks. Returns the number of rows scanned, and whether it
/// finished.
async fn detect(world: &World, chunks: u64) -> (u64, bool) {
    let (parts, watch) = (&world.parts, Chunks::new(chunks));
    let detection = Detection {
        store: &parts.store,
        providers: &parts.providers,
        rules: &parts.rules.detect,
        since: None,
        now: world.now(),
    };
    let all = detection.run(&watch, &mut PassReport::default()).await.unwrap();
    (watch.looked_at.load(Ordering::SeqCst), all)
}

async fn opened(world: &World) -> Vec<String> {
    world.texts("SELECT charge_id AS v FROM makegood_orphans ORDER BY id").await
}

on_both! {
    async fn p14_a_first_night_that_is_stopped_again_and_again_goes_on_where_it_was(world) {
        let mut world = world;
        world.parts.rules.detect.chunk = 1;
        for hours in 2..14_u32 {
            world.charge(&format!("in-{hours:02}")).job("failed-1").age(hours * HOUR).insert().await;
            world.charge(&format!("late-{hours:02}")).job("failed-1").age((24 + hours) * HOUR).insert().await;
        }
        let (mut nights, mut looked_at) = (0, 0);
        loop {
            let (rows, all) = detect(&world, 8).await;
            (nights, looked_at) = (nights + 1, looked_at + rows);
            if all {
                break;
            }
            assert!(nights < 40, "it never comes to its end: {:?}", opened(&world).await);
            world.pass_time(MINUTE);
        }
        let opened = opened(&world).await;
        let expected: Vec<String> = (2..14).rev().map(|hours| format!("in-{hours:02}"))
            .chain((2..14).rev().map(|hours| format!("late-{hours:02}"))).collect();
        assert_eq!(opened, expected, "inside their window first, oldest first; then those that are late");
        // Each charge once, and once more at the beginning of each night; an empty range counts
        // nothing.
        assert!((24..=24 + 8 * nights).contains(&looked_at), "{looked_at} rows in {nights} nights");
    }
}

on_both! {
    async fn p14_a_charge_that_is_committed_late_is_found_within_ten_minutes_of_its_commit(world) {
        let mut world = world;
        world.parts.rules.detect.full_look_every = FULL_LOOK_EVERY;
        world.balance("ada", 0, 0).await;
        world.charge("before").job("failed-before").age(3 * HOUR).insert().await;
        world.pass().await;
        // Whatever its age, and whenever since the last full look it is committed.
        for (nth, age) in [16 * MINUTE, 59 * MINUTE, 74 * MINUTE, 6 * HOUR + 30 * MINUTE, 20 * HOUR + 50 * MINUTE].into_iter().enumerate() {
            let id = format!("late-{nth}");
            world.charge(&id).job(&format!("failed-{nth}")).age(age).insert().await;
            let mut minutes = 0;
            // The count of charges shows it at once. If it cannot, the next full scan finds it.
            if nth % 2 == 1 {
                world.run("UPDATE makegood_cursors SET charges = charges + 1 WHERE charges IS NOT NULL").await;
            }
            while world.fate(&id, 0).await == "-" {
                world.pass_time(MINUTE);
                world.pass().await;
                minutes += 1;
                assert!(minutes <= 10, "{id} was not found {minutes} minutes after its commit");
            }
        }
        assert_eq!(world.number("SELECT count(*) AS v FROM makegood_refunds").await, 6);
        world.books_balance().await;
    }
}

on_both! {
    async fn p14_between_two_full_scans_a_pass_scans_only_charges_whose_grace_has_ended(world) {
        let mut world = world;
        world.parts.rules.detect.full_look_every = FULL_LOOK_EVERY;
        for nth in 0..20_u32 {
            world.charge(&format!("old-{nth}")).job("ok-1").age(30 * MINUTE + nth * MINUTE).insert().await;
        }
        // Its grace is over in two minutes.
        world.charge("new").job("failed-1").age(13 * MINUTE).insert().await;
        let (rows, all) = detect(&world, 100).await;
        assert!(all && rows >= 20, "{rows}");
        for minute in 1..=3 {
            world.pass_time(MINUTE);
            let (rows, _) = detect(&world, 100).await;
            assert!(rows <= 1, "{rows} charges after {minute} minutes: only the new one is young enough");
        }
        assert_eq!(world.fate("new", 0).await, "open ");
        // The scan at six hours reads each charge once, too.
        world.pass_time(5 * HOUR + 14 * MINUTE);
        detect(&world, 100).await;
        world.pass_time(MINUTE);
        let (rows, _) = detect(&world, 100).await;
        assert!(rows <= 2, "{rows} charges have come to six hours of age within a minute");
    }
}

/// Counts how often it is notified of orphans that another process has opened.
#[derive(Default)]
struct Waits(AtomicU64);

impl DetectionObserver for Waits {
    fn is_ending(&self) -> bool {
        false
    }
    fn scanned(&self, _: u64, _: Timestamp) {}
    fn opened(&self, providers: &BTreeSet<String>) {
        if providers.is_empty() {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

on_both! {
    async fn one_process_scans_at_a_time_and_the_next_begins_when_it_has_ended_or_died(world) {
        let mut world = world;
        let turn = &mut world.parts.rules.detect.turn;
        (turn.looks, turn.look_every) = (u32::MAX, Duration::from_millis(1));
        let lasts = turn.lasts;
        for ends in ["it ends its turn", "its turn runs out"] {
            world.charge(ends).job("failed-1").age(HOUR).insert().await;
            assert!(world.store.take_detection_turn(lasts).await.unwrap());
            assert!(!world.store.take_detection_turn(lasts).await.unwrap(), "it is another process's");
            let watch = Waits::default();
            let Parts { store, providers, rules, .. } = &world.parts;
            let detection = Detection { store, providers, rules: &rules.detect, since: None, now: world.now() };
            let mut report = PassReport::default();
            let other = async {
                while watch.0.load(Ordering::SeqCst) < 3 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                let opened = world.fate(ends, 0).await;
                match ends {
                    "it ends its turn" => world.store.end_detection_turn(lasts).await.unwrap(),
                    _ => world.pass_time(lasts),
                }
                opened
            };
            let (all, opened) = tokio::join!(detection.run(&watch, &mut report), other);
            assert_eq!((all.unwrap(), opened.as_str(), report.opened), (true, "-", 1), "{ends}");
            assert!(world.store.take_detection_turn(lasts).await.unwrap(), "given up at the end");
            world.store.end_detection_turn(lasts).await.unwrap();
        }
    }
}

on_both! {
    async fn a_process_that_waits_in_vain_for_its_turn_scans_all_the_same(world) {
        world.charge("one").job("failed-1").age(HOUR).insert().await;
        assert!(world.store.take_detection_turn(world.parts.rules.detect.turn.lasts).await.unwrap());
        assert_eq!(world.pass().await.opened, 1);
    }
}

/// The trigger makes detection wait for a refund: a pass that settled only once all is detected
/// would never end.
#[tokio::test]
async fn p14_orphans_are_made_good_while_others_are_still_being_found() {
    let mut world = World::postgres().await;
    world.parts.rules.detect.chunk = 1;
    world.balance("ada", 0, 0).await;
    world.charge("first").job("failed-1").age(5 * HOUR).insert().await;
    world.charge("last").job("failed-2").age(2 * HOUR).insert().await;
    world
        .run(
            "CREATE FUNCTION waits_for_a_refund() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 WHILE NEW.charge_id = 'last' AND NOT EXISTS (SELECT 1 FROM makegood_refunds) LOOP
                     PERFORM pg_sleep(0.01);
                 END LOOP;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER waits BEFORE INSERT ON makegood_orphans FOR EACH ROW EXECUTE FUNCTION waits_for_a_refund()",
        )
        .await;
    let report = world.pass().await;
    assert_eq!((report.opened, report.total("refund")), (2, 2), "{report:?}");
    assert!(!report.stopped_early);
    world.books_balance().await;
}

/// A pass that is asked to stop during detection reports it, and gives back the orphans that it has
/// not begun.
#[tokio::test]
async fn a_pass_that_is_stopped_while_it_detects_reports_it_and_the_next_one_goes_on() {
    let mut world = World::sqlite().await;
    world.parts.rules.detect.chunk = 1;
    world.balance("ada", 0, 0).await;
    for nth in 0..30_u32 {
        world
            .charge(&format!("c{nth:02}"))
            .job(&format!("failed-{nth}"))
            .age(2 * HOUR + nth * MINUTE)
            .insert()
            .await;
    }
    let orders = World::orders();
    let stop = orders.stop.clone();
    let chunks = AtomicU64::new(0);
    let progress = move |progressed| {
        if matches!(progressed, makegood::pass::Progress::Scanned { .. })
            && chunks.fetch_add(1, Ordering::SeqCst) == 4
        {
            stop.request();
        }
    };
    let report = makegood::pass::run(&world.parts, orders, progress).await.unwrap();
    assert!(report.stopped_early && report.opened < 30, "{report:?}");
    assert_eq!(
        world.number("SELECT count(*) AS v FROM makegood_orphans WHERE leased_until IS NOT NULL").await,
        0
    );
    world.pass().await;
    assert_eq!(world.number("SELECT count(*) AS v FROM makegood_refunds").await, 30);
    world.books_balance().await;
}
