//! The example platform: writes its own relations while makegood runs, as a real platform does.
//!
//! It takes credits, stores outputs and posts to its ledger, with its own connection and its own
//! statements (`platform/*.sql`), and does not notify makegood. It also reads the results for
//! `check` and `output`. For the demo only, on SQLite only.

use std::time::Duration;

use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use super::world::{ExampleAccount, ExampleCharge, ExampleOutput};
use crate::charge::{Bucket, ItemId, Split};
use crate::clock::Timestamp;
use crate::store::db::{Db, Row, Statement, Tx, Value};
use crate::store::{DbError, Opening, Waits};

macro_rules! statements {
    ($($name:ident = $file:literal,)*) => {
        $(const $name: &Statement = &Statement {
            name: $file,
            // The example platform lives in SQLite; nothing here is ever sent to PostgreSQL.
            postgres: "",
            sqlite: include_str!(concat!("platform/", $file, ".sql")),
        };)*
    };
}

statements! {
    ADD_ACCOUNTS = "add_accounts",
    ADD_BALANCES = "add_balances",
    ADD_CHARGES = "add_charges",
    ADD_ITEMS = "add_items",
    ADD_OUTPUTS = "add_outputs",
    ADD_ENTRIES = "add_entries",
    POST_TO_BALANCES = "post_to_balances",
    ENDINGS = "endings",
    BALANCES = "balances",
    TOTALS = "totals",
    RULES_USED = "rules_used",
    INCOMPLETE_ACTIVITY = "incomplete_activity",
}

/// The platform's database connection.
#[derive(Clone, Debug)]
pub struct Platform {
    db: Db,
    /// Minute zero: the first pass.
    tonight: Timestamp,
}

/// The state of one item.
#[derive(Clone, Debug)]
pub struct ItemStatus {
    pub item: ItemId,
    pub credits: i64,
    pub account: String,
    pub charged_at: Timestamp,
    pub failed_at: Option<Timestamp>,
    /// State and reason of its orphan, if there is one.
    pub orphan: Option<(String, String)>,
    pub resolved_at: Option<Timestamp>,
    pub refund: Option<Split>,
    /// Its status in the usage history.
    pub status: String,
    pub billable: bool,
    pub recovery: Option<RecoveredOutput>,
    /// The message of the provider's last answer.
    pub message: Option<String>,
}

/// An output that was recovered or relinked.
#[derive(Clone, Debug)]
pub struct RecoveredOutput {
    pub kind: String,
    pub uri: Option<String>,
    pub sha256: Option<String>,
    pub content_type: Option<String>,
    pub size_bytes: Option<i64>,
    pub from_charge: Option<String>,
}

/// One balance, with the sums of its ledger entries.
#[derive(Clone, Debug)]
pub struct BalanceRow {
    pub account: String,
    pub bucket: String,
    pub credits: i64,
    /// The sum of all entries.
    pub posted: i64,
    /// The sum of the platform's entries since the first pass.
    pub since: i64,
    /// The sum of makegood's refunds.
    pub given_back: i64,
}

/// The same credits, counted in each relation.
#[derive(Clone, Copy, Debug, Default)]
pub struct CreditTotals {
    pub charges: i64,
    pub items: i64,
    pub looked_into: i64,
    pub refunded: i64,
    pub in_ledger: i64,
    pub on_charges: i64,
    pub in_activity: i64,
    pub billable: i64,
    pub ordered: i64,
}

impl Platform {
    /// Opens a connection to the platform's database. `tonight` is minute zero.
    pub async fn open(url: &str, tonight: Timestamp) -> Result<Self, DbError> {
        let opening = Opening {
            url,
            max_connections: 1,
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(15),
            creates: true,
            waits: Waits::No,
        };
        Ok(Self { db: Db::open(&opening).await?, tonight })
    }

    /// Closes the connection.
    pub async fn close(&self) {
        self.db.close().await;
    }

    /// Converts a minute to an instant.
    pub fn at(&self, minute: i64) -> Timestamp {
        Timestamp::from_micros(self.tonight.micros() + minute * 60_000_000)
    }

    fn time(&self, minute: i64) -> Json {
        self.db.time(self.at(minute))
    }

    /// Adds accounts with their balances.
    pub async fn add_accounts(&self, accounts: &[ExampleAccount]) -> Result<(), DbError> {
        let rows = accounts.iter().map(|account| json!({"id": account.id, "kind": account.kind}));
        let balances = accounts.iter().flat_map(|account| {
            account.balances.iter().map(|(bucket, credits)| {
                json!({"account_id": account.id, "bucket": bucket.as_str(), "credits": credits})
            })
        });
        let mut tx = self.db.begin().await?;
        run(&mut tx, ADD_ACCOUNTS, rows.collect()).await?;
        run(&mut tx, ADD_BALANCES, balances.collect()).await?;
        tx.commit().await
    }

    /// Writes all events after minute `after`, up to and including `until`.
    pub async fn write_events(
        &self,
        charges: &[ExampleCharge],
        after: i64,
        until: i64,
    ) -> Result<(), DbError> {
        let now = |minute: i64| minute > after && minute <= until;
        let mut rows = Vec::new();
        let mut items = Vec::new();
        let mut entries = Vec::new();
        for charge in charges.iter().filter(|charge| now(charge.charged_at)) {
            rows.push(json!({
                "id": charge.id, "account_id": charge.account, "project_id": charge.project, "node_id": charge.node(),
                "provider": charge.provider, "model": charge.model, "provider_job_id": charge.job,
                "charged_at": self.time(charge.charged_at), "subscription_credits": charge.drawn.subscription,
                "wallet_credits": charge.drawn.wallet, "cancelled_at": charge.cancelled_at.map(|at| self.time(at)),
            }));
            for (nth, item) in charge.items.iter().enumerate() {
                items.push(json!({
                    "charge_id": charge.id, "output_index": nth, "credits": item.credits,
                    "provider_job_id": item.job, "failed_at": item.failed_at.map(|at| self.time(at)),
                }));
            }
            for bucket in Bucket::ALL.into_iter().filter(|bucket| charge.drawn.of(*bucket) > 0) {
                entries.push(json!({
                    "id": format!("{}:{bucket}", charge.id), "account_id": charge.account, "bucket": bucket.as_str(),
                    "credits": -charge.drawn.of(bucket), "kind": "charge", "charge_id": charge.id,
                    "output_index": null, "posted_at": self.time(charge.charged_at),
                }));
            }
        }
        for charge in charges {
            for (nth, refund) in charge.refunds.iter().enumerate().filter(|(_, refund)| now(refund.at)) {
                entries.push(json!({
                    "id": format!("{}:by-support-{nth}", charge.id), "account_id": charge.account,
                    "bucket": refund.bucket.as_str(), "credits": refund.credits, "kind": "refund",
                    "charge_id": charge.id, "output_index": refund.item, "posted_at": self.time(refund.at),
                }));
            }
        }
        let outputs = charges.iter().flat_map(|charge| &charge.outputs);
        let outputs = outputs.filter(|output| now(output.stored_at)).map(|output| self.output(output));
        let mut tx = self.db.begin().await?;
        run(&mut tx, ADD_CHARGES, rows).await?;
        run(&mut tx, ADD_ITEMS, items).await?;
        run(&mut tx, ADD_OUTPUTS, outputs.collect()).await?;
        run(&mut tx, ADD_ENTRIES, entries.clone()).await?;
        run(&mut tx, POST_TO_BALANCES, entries).await?;
        tx.commit().await
    }

    /// Stores one output.
    pub async fn store(&self, output: &ExampleOutput) -> Result<(), DbError> {
        self.db.rows(ADD_OUTPUTS, &[(&Json::Array(vec![self.output(output)])).into()]).await?;
        Ok(())
    }

    fn output(&self, output: &ExampleOutput) -> Json {
        let (charge, index) = &output.link;
        let (job, job_index) = &output.from;
        json!({
            "id": output.id, "charge_id": charge, "output_index": index, "provider": output.provider,
            "provider_job_id": job, "provider_output_index": job_index, "project_id": output.project,
            "node_id": output.node, "uri": format!("example://outputs/{}", output.id),
            "content_type": "image/png", "size_bytes": 2048, "sha256": hex::encode(Sha256::digest(&output.id)),
            "stored_at": self.time(output.stored_at), "moved_at": output.moved_at.map(|at| self.time(at)),
            "deleted_at": output.deleted_at.map(|at| self.time(at)),
        })
    }

    /// The state of every item.
    pub async fn standings(&self) -> Result<Vec<ItemStatus>, DbError> {
        self.db.rows(ENDINGS, &[]).await?.iter().map(standing).collect()
    }

    /// All balances.
    pub async fn balances(&self) -> Result<Vec<BalanceRow>, DbError> {
        let rows = self.db.rows(BALANCES, &[Value::Time(self.tonight)]).await?;
        let read = |row: &Row| {
            Ok(BalanceRow {
                account: row.text("account_id")?,
                bucket: row.text("bucket")?,
                credits: row.int("credits")?,
                posted: row.int("posted")?,
                since: row.int("since")?,
                given_back: row.int("given_back")?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// The sums.
    pub async fn totals(&self) -> Result<CreditTotals, DbError> {
        let rows = self.db.rows(TOTALS, &[]).await?;
        let read = |row: &Row| {
            Ok(CreditTotals {
                charges: row.int("charges")?,
                items: row.int("items")?,
                looked_into: row.int("looked_into")?,
                refunded: row.int("refunded")?,
                in_ledger: row.int("in_ledger")?,
                on_charges: row.int("on_charges")?,
                in_activity: row.int("in_activity")?,
                billable: row.int("billable")?,
                ordered: row.int("ordered")?,
            })
        };
        // Sums without GROUP BY: there is always one row.
        rows.first().map_or_else(|| Ok(CreditTotals::default()), read)
    }

    /// The rules of the decision table that were applied.
    pub async fn rules_used(&self) -> Result<Vec<i64>, DbError> {
        self.db.rows(RULES_USED, &[]).await?.iter().map(|row| row.int("rule")).collect()
    }

    /// Items whose billing activity is incomplete.
    pub async fn incomplete_activity(&self) -> Result<Vec<ItemId>, DbError> {
        let rows = self.db.rows(INCOMPLETE_ACTIVITY, &[]).await?;
        rows.iter().map(item).collect()
    }
}

async fn run(tx: &mut Tx, statement: &'static Statement, batch: Vec<Json>) -> Result<(), DbError> {
    if !batch.is_empty() {
        tx.rows(statement, &[(&Json::Array(batch)).into()]).await?;
    }
    Ok(())
}

fn item(row: &Row) -> Result<ItemId, DbError> {
    Ok(ItemId { charge_id: row.text("charge_id")?, output_index: row.int("output_index")? })
}

fn standing(row: &Row) -> Result<ItemStatus, DbError> {
    let refund = match (row.maybe_int("subscription_credits")?, row.maybe_int("wallet_credits")?) {
        (Some(subscription), Some(wallet)) => Some(Split { subscription, wallet }),
        (Some(_) | None, None) | (None, Some(_)) => None,
    };
    let recovery = row.maybe_text("recovery")?.map(|kind| {
        Ok::<_, DbError>(RecoveredOutput {
            kind,
            uri: row.maybe_text("uri")?,
            sha256: row.maybe_text("sha256")?,
            content_type: row.maybe_text("content_type")?,
            size_bytes: row.maybe_int("size_bytes")?,
            from_charge: row.maybe_text("from_charge_id")?,
        })
    });
    let state = row.maybe_text("state")?;
    let reason = row.maybe_text("reason")?.unwrap_or_default();
    Ok(ItemStatus {
        item: item(row)?,
        credits: row.int("credits")?,
        account: row.text("account_id")?,
        charged_at: row.time("charged_at")?,
        failed_at: row.maybe_time("failed_at")?,
        orphan: state.map(|state| (state, reason)),
        resolved_at: row.maybe_time("resolved_at")?,
        refund,
        status: row.maybe_text("status")?.unwrap_or_default(),
        billable: row.maybe_int("billable")?.unwrap_or(0) == 1,
        recovery: recovery.transpose()?,
        message: row.maybe_text("message")?,
    })
}
