//! A charge with its items, written as a platform would.

use std::time::Duration;

use makegood::clock::Timestamp;

use super::{HOUR, MINUTE, World};

pub struct ItemRow {
    pub credits: i64,
    pub job: Option<String>,
    pub index: Option<i64>,
    pub failed: Option<Timestamp>,
}

pub struct ChargeBuilder<'a> {
    world: &'a World,
    id: &'a str,
    account: &'a str,
    provider: &'a str,
    model: &'a str,
    job: Option<String>,
    age: Duration,
    subscription: i64,
    wallet: i64,
    cancelled: Option<Timestamp>,
    items: Vec<ItemRow>,
}

impl<'a> ChargeBuilder<'a> {
    /// Three hours old, of one item for ten credits of the wallet, and never submitted.
    pub fn new(world: &'a World, id: &'a str) -> Self {
        Self {
            world,
            id,
            account: "ada",
            provider: "replicate",
            model: "acme/still-life",
            job: None,
            age: 3 * HOUR,
            subscription: 0,
            wallet: 10,
            cancelled: None,
            items: vec![ItemRow { credits: 10, job: None, index: None, failed: None }],
        }
    }
    pub fn account(mut self, account: &'a str) -> Self {
        self.account = account;
        self
    }
    pub fn provider(mut self, provider: &'a str, model: &'a str) -> Self {
        (self.provider, self.model) = (provider, model);
        self
    }
    /// The job; its fate is spelled in its id (see `simulate-provider --help`).
    pub fn job(mut self, job: &str) -> Self {
        self.job = Some(job.to_owned());
        self
    }
    pub fn age(mut self, age: Duration) -> Self {
        self.age = age;
        self
    }
    pub fn drawn(mut self, subscription: i64, wallet: i64) -> Self {
        (self.subscription, self.wallet) = (subscription, wallet);
        self
    }
    pub fn cancelled(mut self) -> Self {
        self.cancelled = Some(self.world.now() - 2 * HOUR);
        self
    }
    /// Items at these prices, on the charge's job.
    pub fn items(mut self, credits: &[i64]) -> Self {
        self.items = credits
            .iter()
            .map(|credits| ItemRow { credits: *credits, job: None, index: None, failed: None })
            .collect();
        self
    }
    /// Items with jobs of their own.
    pub fn item_rows(mut self, items: Vec<ItemRow>) -> Self {
        self.items = items;
        self
    }
    /// The platform recorded that every item failed, a minute ago.
    pub fn failed(mut self) -> Self {
        let at = self.world.now() - MINUTE;
        for item in &mut self.items {
            item.failed = Some(at);
        }
        self
    }

    pub async fn insert(self) {
        let Self { world, id, account, provider, model, job, age, subscription, wallet, cancelled, items } =
            self;
        let text = |text: &Option<String>| {
            text.as_ref().map_or("NULL".to_owned(), |text| format!("'{}'", text.replace('\'', "''")))
        };
        let time = |at: Option<Timestamp>| at.map_or("NULL".to_owned(), |at| world.at(at));
        let mut sql = format!(
            "INSERT INTO charges VALUES ('{id}', '{account}', 'p-{id}', 'n-{id}', '{provider}', '{model}', {}, {}, {subscription}, {wallet}, {});",
            text(&job),
            world.at(world.now() - age),
            time(cancelled)
        );
        for (nth, item) in items.iter().enumerate() {
            let index = item.index.map_or("NULL".to_owned(), |index| index.to_string());
            let row = format!(
                "INSERT INTO charge_items VALUES ('{id}', {nth}, {}, {}, {index}, {});",
                item.credits,
                text(&item.job),
                time(item.failed)
            );
            sql += &row;
        }
        world.run(&sql).await;
    }
}
