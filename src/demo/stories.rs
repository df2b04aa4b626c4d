//! The stories: what happened, and how it must end.
//!
//! Each story names the promise that it shows, describes in one or two sentences what a customer
//! would notice, and lists its charges and their expected endings. An item without an ending must
//! be left alone. The endings follow from the promises and are written by hand; nothing here is
//! computed from what makegood does.

use serde_json::json;

use crate::charge::{Bucket, Split};
use crate::policy::Reason;

use super::night::{BACK_AGAIN, SECOND_EVENING};
use super::simulator::{Canned, Simulator};
use super::story::{Chapter, DemoStory, Ending};
use super::world::{ExampleAccount, ExampleCharge};

/// A charge whose output is stored during the request to its provider (P20).
pub const LATE_CHARGE: &str = "p20-late";

const fn refunded(reason: Reason, subscription: i64, wallet: i64) -> Ending {
    Ending::Refunded(reason, Split { subscription, wallet })
}

/// The accounts of the stories.
pub fn accounts() -> Vec<ExampleAccount> {
    let both = |id: &str, kind, subscription, wallet| ExampleAccount {
        id: id.to_owned(),
        kind,
        balances: vec![(Bucket::Subscription, subscription), (Bucket::Wallet, wallet)],
    };
    vec![
        both("ada", "user", 600, 200),
        both("ben", "user", 400, 150),
        both("chloe", "user", 900, 300),
        both("dario", "user", 100, 700),
        both("emi", "user", 10, 0),
        both("atelier", "workspace", 5000, 1000),
        // The row of the wallet is missing.
        ExampleAccount { id: "finn".to_owned(), kind: "user", balances: vec![(Bucket::Subscription, 50)] },
    ]
}

/// All stories, in the order in which they are printed.
pub fn all() -> Vec<DemoStory> {
    [failed(), late(), found(), kept(), open()].into_iter().flatten().collect()
}

/// Sets answers that are not among the simulated provider's fates.
pub fn set_answers(simulator: &Simulator) {
    let malformed = json!({"status": "COMPLETED", "request_id": "p02-malformed", "logs": [],
        "error": "Runner answered with half a document", "error_type": "runner_incomplete_response"});
    simulator.set_answer("failed-p02-malformed", Canned::json(200, &malformed));
    let down = Canned {
        status: 503,
        headers: vec![("retry-after".to_owned(), "600".to_owned())],
        body: "upstream is down".into(),
    };
    simulator.set_answer(BACK_JOB, down);
}

/// The provider of one story is up again and answers by the job's fate.
pub fn provider_comes_back(simulator: &Simulator) {
    simulator.clear_answer(BACK_JOB);
}

/// The last part of the job's id of `p16-back-again`.
const BACK_JOB: &str = "ok-p16-back-again";

fn failed() -> Vec<DemoStory> {
    use Chapter::Failed;
    let of = |promise, description, charge| DemoStory::of(promise, Failed, description, charge);
    vec![
        of("P01", "Ben's portrait broke on the model's server. He said nothing to anybody.",
            ExampleCharge::new("p01-server-error", "ben", "fal", "failed", -40))
            .ends("p01-server-error", 0, refunded(Reason::ServerError, 20, 0)),
        of("P02", "Ada's prompt was refused by the content filter, after she had paid.",
            ExampleCharge::new("p02-safety", "ada", "fal", "safety", -55).items(1, 25))
            .ends("p02-safety", 0, refunded(Reason::ContentSafety, 25, 0)),
        of("P02", "Chloe's clip waited in the provider's queue until its deadline had passed.",
            ExampleCharge::new("p02-queue", "chloe", "fal", "queue-timeout", -70).items(1, 60))
            .ends("p02-queue", 0, refunded(Reason::QueueTimeout, 60, 0)),
        of("P02", "Half a document came back for Dario's picture.",
            ExampleCharge::new("p02-malformed", "dario", "fal", "failed", -30).drawn(0, 20))
            .ends("p02-malformed", 0, refunded(Reason::MalformedResponse, 0, 20)),
        of("P02", "Ben was charged, and our own server crashed before it had sent the job.",
            ExampleCharge::new("p02-never-sent", "ben", "replicate", "ok", -90).job(None))
            .ends("p02-never-sent", 0, refunded(Reason::NoProviderJob, 20, 0)),
        of("P03", "Two pictures for 60, paid with Ada's last 40 of the subscription and 20 of the wallet. Both failed.",
            ExampleCharge::new("p03-two-balances", "ada", "replicate", "failed", -35).items(2, 30).drawn(40, 20))
            .ends("p03-two-balances", 0, refunded(Reason::ProviderError, 30, 0))
            .ends("p03-two-balances", 1, refunded(Reason::ProviderError, 10, 20)),
        of("P03", "Emi's balance had gone below zero with this picture, and then it failed.",
            ExampleCharge::new("p03-below-zero", "emi", "replicate", "failed", -50).items(1, 45))
            .ends("p03-below-zero", 0, refunded(Reason::ProviderError, 45, 0)),
        of("P04", "Chloe is billed by her usage total, and one clip of it was never made.",
            ExampleCharge::new("p04-usage", "chloe", "veo-gemini", "failed", -65).items(1, 90))
            .ends("p04-usage", 0, refunded(Reason::ServerError, 90, 0)),
        of("P05", "Ada ordered four portraits in one run. Three came.",
            ExampleCharge::new("p05-four", "ada", "replicate", "one-failed", -45).items(4, 20).stored(&[0, 1, 3]))
            .ends("p05-four", 2, refunded(Reason::MissingOutput, 20, 0)),
        of("P06", "A film of three shots, each a job of its own. The second one failed.",
            ExampleCharge::new("p06-shot-by-shot", "dario", "fal", "ok-video", -80)
                .items(3, 50)
                .drawn(0, 150)
                .jobs_of_their_own(&["ok-video", "failed", "ok-video"])
                .stored(&[0, 2]))
            .ends("p06-shot-by-shot", 1, refunded(Reason::ServerError, 0, 50)),
        of("P07", "Atelier, a workspace, ordered four clips. The provider's filter held one back.",
            ExampleCharge::new("p07-workspace", "atelier", "veo-gemini", "one-failed", -75).items(4, 100).stored(&[0, 1, 2]))
            .ends("p07-workspace", 3, refunded(Reason::ContentSafety, 100, 0)),
        of("P08", "Ben's picture failed, so he ran it again a minute later: same picture, same price. That one came.",
            ExampleCharge::new("p08-first-try", "ben", "fal", "failed", -26))
            .and(ExampleCharge::new("p08-retry", "ben", "fal", "ok", -25).stored(&[0]))
            .ends("p08-first-try", 0, refunded(Reason::ServerError, 20, 0)),
        of("P11", "Chloe pressed stop, and the provider did stop.",
            ExampleCharge::new("p11-stopped", "chloe", "replicate", "cancelled", -33).items(1, 60).cancelled(-31))
            .ends("p11-stopped", 0, refunded(Reason::ProviderCancelled, 60, 0)),
        of("P17", "Dario's job left our server, and the provider has never heard of it.",
            ExampleCharge::new("p17-never-ran", "dario", "replicate", "unknown", -95).items(1, 30).drawn(0, 30))
            .ends("p17-never-ran", 0, refunded(Reason::NeverReturned, 0, 30)),
        of("P18", "Made, never fetched, and the provider has removed the file.",
            ExampleCharge::new("p18-removed", "ben", "replicate", "expired", -170))
            .ends("p18-removed", 0, refunded(Reason::OutputExpired, 20, 0)),
        of("P18", "Offered by the provider, but the link answers that the file is gone.",
            ExampleCharge::new("p18-dead-link", "atelier", "veo-gemini", "expired", -200).items(1, 90))
            .ends("p18-dead-link", 0, refunded(Reason::OutputExpired, 90, 0)),
        of("P19", "Our own server noted one minute ago that this run broke. The provider still calls it running.",
            ExampleCharge::new("p19-on-record", "dario", "replicate", "running", -4).drawn(0, 20).failed(-1))
            .ends("p19-on-record", 0, refunded(Reason::ReportedFailed, 0, 20)),
    ]
}

fn late() -> Vec<DemoStory> {
    let of = |promise, description, charge| DemoStory::of(promise, Chapter::Late, description, charge);
    vec![
        of(
            "P15",
            "Chloe's video was still \"processing\" at breakfast, at lunch and at dinner.",
            ExampleCharge::new("p15-timed-out", "chloe", "replicate", "running-video", -60).items(1, 120),
        )
        .ends("p15-timed-out", 0, refunded(Reason::TimedOut, 120, 0)),
        of(
            "P15",
            "Cirrus, the provider, was down all day: nobody could say what became of Ben's picture.",
            ExampleCharge::new("p15-provider-down", "ben", "cirrus", "any", -40).items(1, 35),
        )
        .ends("p15-provider-down", 0, refunded(Reason::Unconfirmed, 35, 0)),
        of(
            "P15",
            "The file is there, but every download of it breaks off halfway.",
            ExampleCharge::new("p15-broken-file", "dario", "veo-gemini", "file-broken", -60)
                .items(1, 90)
                .drawn(0, 90),
        )
        .ends("p15-broken-file", 0, refunded(Reason::RecoveryFailed, 0, 90)),
    ]
}

fn found() -> Vec<DemoStory> {
    let of = |promise, description, charge| DemoStory::of(promise, Chapter::Found, description, charge);
    let on = |charge: &'static str| {
        move |output: &mut super::world::ExampleOutput| {
            output.link = (charge.to_owned(), 0);
            output.node = format!("{charge}-node");
        }
    };
    vec![
        of(
            "P06",
            "Chloe's film of three shots, one job. Nothing arrived; the provider has two of them.",
            ExampleCharge::new("p06-two-of-three", "chloe", "replicate", "two-of-three-video", -52)
                .items(3, 60),
        )
        .ends("p06-two-of-three", 0, Ending::Recovered)
        .ends("p06-two-of-three", 1, Ending::Recovered)
        .ends("p06-two-of-three", 2, refunded(Reason::MissingOutput, 60, 0)),
        of(
            "P11",
            "Ben cancelled too late: it was made. It stays paid, so it belongs in his history.",
            ExampleCharge::new("p11-cancelled-done", "ben", "replicate", "ok", -38).cancelled(-37),
        )
        .ends("p11-cancelled-done", 0, Ending::Recovered),
        of(
            "P13",
            "Ada's portrait was stored, but hung on another run of hers.",
            ExampleCharge::new("p13-hers", "ada", "replicate", "ok", -61).stored_as(on("p13-other")),
        )
        .and(ExampleCharge::new("p13-other", "ada", "fal", "ok", -60).stored(&[0]))
        .ends("p13-hers", 0, Ending::PutBack),
        of(
            "P13",
            "Three runs got each other's pictures: a's hangs on b, b's on c, c's on a.",
            ExampleCharge::new("p13-mixup-a", "atelier", "replicate", "ok", -44).stored_as(on("p13-mixup-b")),
        )
        .and(
            ExampleCharge::new("p13-mixup-b", "atelier", "replicate", "ok", -43).stored_as(on("p13-mixup-c")),
        )
        .and(
            ExampleCharge::new("p13-mixup-c", "atelier", "replicate", "ok", -42).stored_as(on("p13-mixup-a")),
        )
        .ends("p13-mixup-a", 0, Ending::PutBack)
        .ends("p13-mixup-b", 0, Ending::PutBack)
        .ends("p13-mixup-c", 0, Ending::PutBack),
        of(
            "P13",
            "Emi's picture was stored for her run, but in a project of somebody else's.",
            ExampleCharge::new("p13-wrong-project", "emi", "fal", "ok", -34)
                .items(1, 5)
                .stored_as(|output| "ben-project".clone_into(&mut output.project)),
        )
        .ends("p13-wrong-project", 0, Ending::PutBack),
        of(
            "P14",
            "Finished at the provider, never stored. Nobody complained: makegood came upon it.",
            ExampleCharge::new("p14-unnoticed", "atelier", "fal", "ok2", -150).items(2, 40),
        )
        .ends("p14-unnoticed", 0, Ending::Recovered)
        .ends("p14-unnoticed", 1, Ending::Recovered),
        of(
            "P16",
            "Ada's picture was finished, and our server crashed before it was stored.",
            ExampleCharge::new("p16-not-stored", "ada", "replicate", "ok", -28),
        )
        .ends("p16-not-stored", 0, Ending::Recovered),
        of(
            "P16",
            "Ben had asked for a caption: an output of words, inside the answer.",
            ExampleCharge::new("p16-words", "ben", "replicate", "inline", -22).items(1, 2),
        )
        .ends("p16-words", 0, Ending::Recovered),
        of(
            "P16",
            "Atelier's clip: the provider was down half the night, and then offered it.",
            ExampleCharge::new("p16-back-again", "atelier", "veo-gemini", "ok", -48).items(1, 90),
        )
        .ends("p16-back-again", 0, Ending::Recovered),
        of(
            "P20",
            "Dario's picture was stored at last, in the very second in which makegood asked for it.",
            ExampleCharge::new(LATE_CHARGE, "dario", "replicate", "ok", -24).drawn(0, 20),
        )
        .ends(LATE_CHARGE, 0, Ending::Closed(Reason::Delivered)),
    ]
}

fn kept() -> Vec<DemoStory> {
    let of = |promise, description, charge| DemoStory::of(promise, Chapter::Kept, description, charge);
    vec![
        of(
            "P01",
            "Failed, and support had given Chloe her credits back already.",
            ExampleCharge::new("p01-given-back", "chloe", "fal", "failed", -120).items(1, 60).refunded(
                Some(0),
                Bucket::Subscription,
                60,
                -100,
            ),
        )
        .ends("p01-given-back", 0, Ending::Closed(Reason::AlreadyRefunded)),
        of(
            "P09",
            "Six fingers and a watermark: Ada does not like it. It is an output all the same.",
            ExampleCharge::new("p09-six-fingers", "ada", "fal", "ok", -58).stored(&[0]),
        ),
        of(
            "P10",
            "Ben deleted the picture after he had seen it.",
            ExampleCharge::new("p10-deleted", "ben", "replicate", "ok", -110)
                .stored_as(|output| output.deleted_at = Some(-90)),
        ),
        of(
            "P11",
            "Dario cancelled, the provider completed it all the same, and the file has gone since.",
            ExampleCharge::new("p11-cancelled-gone", "dario", "replicate", "expired", -160)
                .drawn(0, 20)
                .cancelled(-159),
        )
        .ends("p11-cancelled-gone", 0, Ending::Closed(Reason::CompletedAfterCancel)),
        of(
            "P12",
            "Emi's prompt was refused before any model was called: she was charged nothing.",
            ExampleCharge::new("p12-nothing", "emi", "replicate", "unknown", -85).items(1, 0),
        ),
        of(
            "P13",
            "Chloe moved her picture to another project. It stays where she put it.",
            ExampleCharge::new("p13-moved", "chloe", "fal", "ok", -105).stored_as(|output| {
                "chloe-portfolio".clone_into(&mut output.project);
                output.moved_at = Some(-80);
            }),
        ),
    ]
}

fn open() -> Vec<DemoStory> {
    let of = |promise, description, charge| DemoStory::of(promise, Chapter::Open, description, charge);
    let late = SECOND_EVENING;
    vec![
        of(
            "P15",
            "Chloe's video of the second evening: the provider is at work on it.",
            ExampleCharge::new("p15-still-running", "chloe", "replicate", "running-video", late - 90)
                .items(1, 120),
        )
        .ends("p15-still-running", 0, Ending::Waiting(Reason::StillRunning)),
        of(
            "P15",
            "Nobody has written a provider file for Nimbus yet, so nobody can be asked.",
            ExampleCharge::new("p15-no-such-file", "ben", "nimbus", "ok", late - 120),
        )
        .ends("p15-no-such-file", 0, Ending::Waiting(Reason::UnknownProvider)),
        of(
            "P01",
            "Support gave Ada 20 of 40 back, without saying for which of the two pictures.",
            ExampleCharge::new("p01-which-one", "ada", "fal", "failed", late - 100).items(2, 20).refunded(
                None,
                Bucket::Subscription,
                20,
                late - 90,
            ),
        )
        .ends("p01-which-one", 0, Ending::Held(Reason::AlreadyRefunded))
        .ends("p01-which-one", 1, Ending::Held(Reason::AlreadyRefunded)),
        of(
            "P03",
            "Finn paid from a wallet that has no row in the balances any more.",
            ExampleCharge::new("p03-no-wallet", "finn", "replicate", "failed", late - 110).drawn(0, 20),
        )
        .ends("p03-no-wallet", 0, Ending::Held(Reason::NoBalance)),
        of(
            "P03",
            "60 were drawn, but its two pictures cost 50 together.",
            ExampleCharge::new("p03-sum-is-off", "atelier", "fal", "failed", late - 95)
                .items(2, 25)
                .drawn(60, 0),
        )
        .ends("p03-sum-is-off", 0, Ending::Held(Reason::ItemsMismatch))
        .ends("p03-sum-is-off", 1, Ending::Held(Reason::ItemsMismatch)),
        of(
            "P05",
            "Credits were taken, and there is no item that says for what.",
            ExampleCharge::new("p05-no-items", "atelier", "fal", "failed", late - 97)
                .items(0, 0)
                .drawn(40, 0),
        )
        .ends("p05-no-items", -1, Ending::Held(Reason::ItemsMismatch)),
        of(
            "P13",
            "Two charges of Dario's name one and the same job and output.",
            ExampleCharge::new("p13-twin-a", "dario", "replicate", "ok", late - 105).drawn(0, 20),
        )
        .and(
            ExampleCharge::new("p13-twin-b", "dario", "replicate", "ok", late - 104)
                .drawn(0, 20)
                .job(Some("ok-p13-twin-a")),
        )
        .ends("p13-twin-a", 0, Ending::Held(Reason::DuplicateJob))
        .ends("p13-twin-b", 0, Ending::Held(Reason::DuplicateJob)),
    ]
}

/// Charges after the last pass, for the commands to try next.
pub fn newcomers() -> Vec<ExampleCharge> {
    vec![
        ExampleCharge::new("new-failed", "ada", "fal", "failed", SECOND_EVENING - 26),
        ExampleCharge::new("new-not-stored", "ben", "replicate", "ok", SECOND_EVENING - 25),
        ExampleCharge::new("new-running", "chloe", "veo-gemini", "running", SECOND_EVENING - 24).items(1, 90),
    ]
}

// The stories depend on this order of events.
const _: () = assert!(BACK_AGAIN > 0 && SECOND_EVENING > 23 * 60);
