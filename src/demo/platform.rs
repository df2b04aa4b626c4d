//! The example platform at work: it writes its own relations, as a platform does beside makegood.
//!
//! It takes credits, stores outputs and posts to its ledger, through a connection of its own and with statements of
//! its own (`platform/*.sql`); makegood is never told. It also reads back how everything ended, for the demo to check
//! and to tell. Only on SQLite, only for the demo: no part of a real run.

use std::time::Duration;

use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use super::world::{Account, Charge, Output};
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
    UNTOLD = "untold",
}

/// The platform's own connection, and what it has not written yet.
#[derive(Clone, Debug)]
pub struct Platform {
    db: Db,
    /// Minute zero: the evening's first pass.
    tonight: Timestamp,
}

/// How one item stands.
#[derive(Clone, Debug)]
pub struct Standing {
    pub item: ItemId,
    pub credits: i64,
    pub account: String,
    pub charged_at: Timestamp,
    pub failed_at: Option<Timestamp>,
    /// The orphan's state and reason, if it ever was one.
    pub orphan: Option<(String, String)>,
    pub resolved_at: Option<Timestamp>,
    pub refund: Option<Split>,
    /// As the usage history says.
    pub status: String,
    pub billable: bool,
    pub recovery: Option<Recovery>,
    /// The provider's last words about it.
    pub message: Option<String>,
}

/// An output that was brought home or put back.
#[derive(Clone, Debug)]
pub struct Recovery {
    pub kind: String,
    pub uri: Option<String>,
    pub sha256: Option<String>,
    pub content_type: Option<String>,
    pub size_bytes: Option<i64>,
    pub from_charge: Option<String>,
}

/// One balance, with what the ledger says about it.
#[derive(Clone, Debug)]
pub struct Balance {
    pub account: String,
    pub bucket: String,
    pub credits: i64,
    /// All entries of the ledger.
    pub posted: i64,
    /// What the platform posted since the first pass.
    pub since: i64,
    /// What makegood gave back.
    pub given_back: i64,
}

/// The same credits, counted wherever they stand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
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
    /// Opens a connection to the platform's database. `tonight` is minute zero of all charges.
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

    /// Closes it.
    pub async fn close(&self) {
        self.db.close().await;
    }

    /// The instant of a minute.
    pub fn at(&self, minute: i64) -> Timestamp {
        Timestamp::from_micros(self.tonight.micros() + minute * 60_000_000)
    }

    fn time(&self, minute: i64) -> Json {
        self.db.time(self.at(minute))
    }

    /// Opens accounts.
    pub async fn add_accounts(&self, accounts: &[Account]) -> Result<(), DbError> {
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

    /// Everything that happens at the platform from one minute (not itself) to another.
    pub async fn live(&self, charges: &[Charge], after: i64, until: i64) -> Result<(), DbError> {
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

    /// Stores one output, whatever else is going on.
    pub async fn store(&self, output: &Output) -> Result<(), DbError> {
        self.db.rows(ADD_OUTPUTS, &[(&Json::Array(vec![self.output(output)])).into()]).await?;
        Ok(())
    }

    fn output(&self, output: &Output) -> Json {
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

    /// How every item stands.
    pub async fn standings(&self) -> Result<Vec<Standing>, DbError> {
        self.db.rows(ENDINGS, &[]).await?.iter().map(standing).collect()
    }

    /// All balances.
    pub async fn balances(&self) -> Result<Vec<Balance>, DbError> {
        let rows = self.db.rows(BALANCES, &[Value::Time(self.tonight)]).await?;
        let read = |row: &Row| {
            Ok(Balance {
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
    pub async fn totals(&self) -> Result<Totals, DbError> {
        let rows = self.db.rows(TOTALS, &[]).await?;
        let read = |row: &Row| {
            Ok(Totals {
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
        rows.first().map_or_else(|| Ok(Totals::default()), read)
    }

    /// Which rules of the decision table were needed.
    pub async fn rules_used(&self) -> Result<Vec<i64>, DbError> {
        self.db.rows(RULES_USED, &[]).await?.iter().map(|row| row.int("rule")).collect()
    }

    /// Items whose billing activity is not complete.
    pub async fn untold(&self) -> Result<Vec<ItemId>, DbError> {
        let rows = self.db.rows(UNTOLD, &[]).await?;
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

fn standing(row: &Row) -> Result<Standing, DbError> {
    let refund = match (row.maybe_int("subscription_credits")?, row.maybe_int("wallet_credits")?) {
        (Some(subscription), Some(wallet)) => Some(Split { subscription, wallet }),
        (Some(_) | None, None) | (None, Some(_)) => None,
    };
    let recovery = row.maybe_text("recovery")?.map(|kind| {
        Ok::<_, DbError>(Recovery {
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
    Ok(Standing {
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
