//! The average price, over charges of which some cannot be read: which of them it is taken from.

use std::collections::BTreeSet;

use super::*;
use crate::store::{Opening, Waits};

const NOW: i64 = 1_800_000_000_000_000;

/// The newest charges of a platform, newest first. Some cannot be read, as under a view that casts.
struct Charges {
    store: Store,
    /// The times of those that cannot be read.
    bad: BTreeSet<i64>,
    /// How many were asked for, each time that prices were read.
    asked_for: Vec<i64>,
    /// How often older charges were looked for.
    went_back: usize,
    /// The error is one of the database instead of a row's.
    fails_for_all: bool,
    _directory: tempfile::TempDir,
}

impl Charges {
    /// Charges a second apart, the newest made now: the price of each, or none if it cannot be
    /// read.
    async fn of(prices: &[Option<i64>]) -> Self {
        let at = (0..).map(|nth| NOW - nth * 1_000_000);
        Self::at(at.zip(prices.iter().copied()).collect()).await
    }

    async fn at(charges: Vec<(i64, Option<i64>)>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("charges.db").display());
        let store = Store::open_with(Opening {
            url: &url,
            max_connections: 1,
            statement_timeout: Duration::from_mins(1),
            lock_timeout: Duration::from_secs(1),
            creates: true,
            waits: Waits::AsLongAsAStatement,
        });
        let store = store.await.unwrap();
        let rows: Vec<Json> =
            charges.iter().map(|(at, price)| json!({"at": at, "price": price.unwrap_or(1)})).collect();
        for statement in [&TABLE, &ROWS] {
            let values = [(&Json::Array(rows.clone())).into()];
            store.rows(statement, &values[..usize::from(statement.name == "rows")]).await.unwrap();
        }
        let bad = charges.iter().filter(|(_, price)| price.is_none()).map(|(at, _)| *at).collect();
        Self { store, bad, asked_for: Vec::new(), went_back: 0, fails_for_all: false, _directory: directory }
    }

    /// What a charge costs: credits, and of how many charges.
    async fn price(&mut self) -> Result<Option<Price>, DbError> {
        average_price(self, Timestamp::from_micros(NOW)).await
    }
}

static TABLE: Statement = Statement {
    name: "table",
    postgres: "",
    sqlite: "CREATE TABLE charges (charged_at bigint, subscription_credits bigint, wallet_credits bigint)",
};
static ROWS: Statement = Statement {
    name: "rows",
    postgres: "",
    sqlite: "INSERT INTO charges SELECT value ->> 'at', 0, value ->> 'price' FROM json_each($1)",
};
static TIMES: Statement = Statement {
    name: "times",
    postgres: "",
    sqlite: "SELECT charged_at AS at FROM charges WHERE charged_at <= $1 ORDER BY charged_at DESC LIMIT $2",
};

impl Run for Charges {
    async fn rows(&mut self, statement: &'static Statement, values: &[Value]) -> Result<Vec<Row>, DbError> {
        if statement.name == statements::CHARGE_BEHIND.name {
            self.went_back += 1;
        }
        if statement.name == statements::AVERAGE_PRICE.name {
            if let Value::Int(charges) = values[1] {
                self.asked_for.push(charges);
            }
            let source = sqlx::Error::Protocol("abc".to_owned());
            if self.fails_for_all {
                return Err(DbError::Statement { statement: statement.name, source });
            }
            for row in self.store.rows(&TIMES, values).await? {
                if self.bad.contains(&row.time("at")?.micros()) {
                    let (statement, about) = (statement.name, String::new());
                    return Err(DbError::Column { statement, column: "wallet_credits", about, source });
                }
            }
        }
        self.store.rows(statement, values).await
    }
}

fn price(charges: u64, credits: u128) -> Option<Price> {
    Price::new(charges, credits)
}

/// `many` charges of one price, or that cannot be read.
fn many(many: usize, price: Option<i64>) -> Vec<Option<i64>> {
    vec![price; many]
}

#[tokio::test]
async fn the_average_price_is_that_of_the_newest_charges() {
    let mut charges = Charges::of(&[many(900, Some(2)), many(200, Some(7))].concat()).await;
    assert_eq!(charges.price().await.unwrap(), price(1_000, 900 * 2 + 100 * 7));
    assert_eq!((charges.asked_for, charges.went_back), (vec![1_000], 0));
    assert_eq!(Charges::of(&[]).await.price().await.unwrap(), None);
}

#[tokio::test]
async fn fewer_newest_charges_are_enough_where_an_older_one_cannot_be_read() {
    let mut charges = Charges::of(&[many(130, Some(2)), many(1, None), many(900, Some(7))].concat()).await;
    assert_eq!(charges.price().await.unwrap(), price(125, 250));
    assert_eq!((charges.asked_for, charges.went_back), (vec![1_000, 500, 250, 125], 0));
}

#[tokio::test]
async fn the_charges_behind_one_that_cannot_be_read_are_taken_instead_of_too_few() {
    // 62 that can be read, then behind the bad one as many as are wanted.
    let rest = many(1_100, Some(7));
    let mut charges = Charges::of(&[many(70, Some(2)), many(1, None), rest].concat()).await;
    assert_eq!(charges.price().await.unwrap(), price(1_000, 7_000));
    assert_eq!(charges.asked_for, [1_000, 500, 250, 125, 62, 1_000]);
    // The newest cannot be read itself.
    let mut charges = Charges::of(&[many(1, None), many(1_000, Some(7))].concat()).await;
    assert_eq!(charges.price().await.unwrap(), price(1_000, 7_000));
    assert_eq!(charges.asked_for, [1_000, 500, 250, 125, 62, 31, 15, 7, 3, 1, 1_000]);
}

#[tokio::test]
async fn where_too_few_can_be_read_anywhere_the_most_are_taken_and_the_newest_of_as_many() {
    // Read are 15, then 62, then 62 once more. As many again are skipped behind each.
    let prices = [
        many(20, Some(2)),
        many(1, None),
        many(79, Some(3)),
        many(1, None),
        many(123, Some(4)),
        many(1, None),
        many(10, Some(5)),
    ];
    let mut charges = Charges::of(&prices.concat()).await;
    let found = charges.price().await.unwrap();
    assert_eq!(found, price(62, 62 * 3), "{:?}", charges.asked_for);
}

#[tokio::test]
async fn charges_of_the_same_instant_do_not_keep_it_from_older_ones() {
    let of_now = vec![(NOW, None), (NOW, None), (NOW, None)];
    let older = (1..=200).map(|nth| (NOW - nth, Some(4)));
    let mut charges = Charges::at(of_now.into_iter().chain(older).collect()).await;
    assert_eq!(charges.price().await.unwrap(), price(200, 800));
    assert_eq!(charges.went_back, 1);
}

#[tokio::test]
async fn a_price_is_looked_for_so_often_and_the_last_failure_is_told() {
    let tries = usize::try_from(PRICE_TRIES).unwrap();
    let mut charges = Charges::of(&[many(tries - 1, None), many(1_000, Some(7))].concat()).await;
    assert_eq!(charges.price().await.unwrap(), price(1_000, 7_000));
    let mut charges = Charges::of(&[many(tries, None), many(1_000, Some(7))].concat()).await;
    let error = charges.price().await.unwrap_err();
    assert!(matches!(error, DbError::Column { .. }), "{error}");
    assert_eq!(charges.went_back, tries);
}

#[tokio::test]
async fn a_failure_that_is_about_no_row_ends_it_at_once() {
    let mut charges = Charges::of(&many(1_000, Some(7))).await;
    charges.fails_for_all = true;
    let error = charges.price().await.unwrap_err();
    assert!(matches!(error, DbError::Statement { .. }), "{error}");
    assert_eq!(charges.asked_for, [1_000]);
}

/// The check behind `/readyz`.
#[tokio::test]
async fn a_database_without_makegoods_tables_does_not_answer() {
    let charges = Charges::of(&[]).await;
    assert!(charges.store.answers().await.is_err());
}
