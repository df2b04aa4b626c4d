//! Which SQL types the columns of the contract have, and which cast to write where they do not.
//!
//! Pure: knows no database. A type fails where a pass could not read the column, or the posting of
//! a refund would compare it with another type; `character(n)` only warns, because it is read with
//! the blanks that fill it up. Text in these words is for people: types are named as SQL names
//! them.

/// What makegood reads a column as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Text.
    Text,
    /// A whole number.
    Whole,
    /// An instant.
    Instant,
}

impl Wanted {
    /// The type's name in PostgreSQL.
    pub const fn sql(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Whole => "bigint",
            Self::Instant => "timestamptz",
        }
    }
}

/// A column's type as PostgreSQL describes it.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Its name with length and precision: `character varying(80)`, or that of a domain.
    pub shown: &'a str,
    /// The name of the type beneath all domains, without length and precision.
    pub base: &'a str,
}

/// A column that makegood cannot read as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// What a view would have to say instead.
    pub write: String,
    /// What must be true of the values for that.
    pub given: &'static str,
    /// Whether passes fail on it.
    pub fails: bool,
}

/// How a column does not fit. None: it fits.
pub fn misfit(column: &str, wanted: Wanted, found: Found<'_>) -> Option<Misfit> {
    let fails = |write: String, given| Some(Misfit { write, given, fails: true });
    match (wanted, found.base) {
        (Wanted::Text, "text" | "character varying" | "name" | "citext")
        | (Wanted::Whole, "bigint")
        | (Wanted::Instant, "timestamp with time zone") => None,
        (Wanted::Text, "character") => Some(Misfit {
            write: format!("{column}::text"),
            given: "it is read with the blanks that fill it up",
            fails: false,
        }),
        (Wanted::Text, "bytea") => fails(format!("encode({column}, 'hex')"), ""),
        (Wanted::Text, "json" | "jsonb") => fails(format!("{column} #>> '{{}}'"), ""),
        (Wanted::Text, _) => fails(format!("{column}::text"), ""),
        (Wanted::Whole, "integer" | "smallint") => fails(format!("{column}::bigint"), ""),
        (Wanted::Whole, "numeric") => fails(
            format!("{column}::bigint"),
            "if it counts the smallest unit; `({column} * 100)::bigint` if it counts whole ones and has two decimals",
        ),
        (Wanted::Whole, "real" | "double precision") => {
            fails(format!("round({column})::bigint"), "if it counts the smallest unit")
        }
        (Wanted::Whole, "money") => {
            fails(format!("({column}::numeric * 100)::bigint"), "if the currency has two decimals")
        }
        (Wanted::Whole, "text" | "character varying" | "character") => {
            fails(format!("{column}::bigint"), "if it holds nothing but whole numbers")
        }
        (Wanted::Whole, _) => fails(format!("{column}::bigint"), "if there is such a cast"),
        (Wanted::Instant, "timestamp without time zone") => {
            fails(format!("{column} AT TIME ZONE 'UTC'"), "if it means UTC")
        }
        (Wanted::Instant, "date") => fails(
            format!("{column}::timestamp AT TIME ZONE 'UTC'"),
            "if it means UTC; all of a day are one instant then",
        ),
        (Wanted::Instant, "bigint" | "numeric" | "double precision") => {
            fails(format!("to_timestamp({column} / 1000.0)"), "if it counts milliseconds since 1970")
        }
        (Wanted::Instant, "integer") => {
            fails(format!("to_timestamp({column})"), "if it counts seconds since 1970")
        }
        (Wanted::Instant, "text" | "character varying" | "character") => fails(
            format!("{column}::timestamptz"),
            "if it holds nothing but times; an index needs a column of that type",
        ),
        (Wanted::Instant, _) => fails(format!("{column}::timestamptz"), "if there is such a cast"),
    }
}

/// What is wrong with a column, and what to do about it.
pub fn words(
    relation: &str,
    column: &str,
    wanted: Wanted,
    found: Found<'_>,
    misfit: &Misfit,
) -> (String, String) {
    let given = misfit.given.replace("{column}", column);
    let (says, given) = if misfit.fails {
        ("makegood reads", if given.is_empty() { given } else { format!(", {given}") })
    } else {
        ("makegood expects", format!(": {given}"))
    };
    (
        format!("{relation}.{column} is `{}`, {says} `{}`", found.shown, wanted.sql()),
        format!("let a view give `{} AS {column}`{given}", misfit.write),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(column: &str, wanted: Wanted, shown: &str, base: &str) -> Option<(String, String, bool)> {
        let found = Found { shown, base };
        let misfit = misfit(column, wanted, found)?;
        let (says, advice) = words("charges", column, wanted, found, &misfit);
        Some((says, advice, misfit.fails))
    }

    #[test]
    fn what_can_be_read_fits() {
        for (wanted, shown, base) in [
            (Wanted::Text, "text", "text"),
            (Wanted::Text, "character varying(36)", "character varying"),
            (Wanted::Text, "job_id", "text"),
            (Wanted::Whole, "bigint", "bigint"),
            (Wanted::Instant, "timestamp(3) with time zone", "timestamp with time zone"),
        ] {
            assert_eq!(told("id", wanted, shown, base), None, "{shown}");
        }
    }

    #[test]
    fn what_cannot_comes_with_the_cast_to_write() {
        for (column, wanted, shown, base, says, advice) in [
            (
                "charged_at",
                Wanted::Instant,
                "timestamp(6) without time zone",
                "timestamp without time zone",
                "charges.charged_at is `timestamp(6) without time zone`, makegood reads `timestamptz`",
                "let a view give `charged_at AT TIME ZONE 'UTC' AS charged_at`, if it means UTC",
            ),
            (
                "charged_at",
                Wanted::Instant,
                "bigint",
                "bigint",
                "charges.charged_at is `bigint`, makegood reads `timestamptz`",
                "let a view give `to_timestamp(charged_at / 1000.0) AS charged_at`, if it counts milliseconds since 1970",
            ),
            (
                "id",
                Wanted::Text,
                "uuid",
                "uuid",
                "charges.id is `uuid`, makegood reads `text`",
                "let a view give `id::text AS id`",
            ),
            (
                "provider",
                Wanted::Text,
                "app.provider_name",
                "app.provider_name",
                "charges.provider is `app.provider_name`, makegood reads `text`",
                "let a view give `provider::text AS provider`",
            ),
            (
                "wallet_credits",
                Wanted::Whole,
                "integer",
                "integer",
                "charges.wallet_credits is `integer`, makegood reads `bigint`",
                "let a view give `wallet_credits::bigint AS wallet_credits`",
            ),
            (
                "wallet_credits",
                Wanted::Whole,
                "numeric(12,2)",
                "numeric",
                "charges.wallet_credits is `numeric(12,2)`, makegood reads `bigint`",
                "let a view give `wallet_credits::bigint AS wallet_credits`, if it counts the smallest unit; \
                 `(wallet_credits * 100)::bigint` if it counts whole ones and has two decimals",
            ),
        ] {
            assert_eq!(told(column, wanted, shown, base), Some((says.to_owned(), advice.to_owned(), true)));
        }
    }

    #[test]
    fn text_of_a_fixed_length_warns() {
        let (says, advice, fails) = told("id", Wanted::Text, "character(36)", "character").unwrap();
        assert_eq!(says, "charges.id is `character(36)`, makegood expects `text`");
        assert_eq!(advice, "let a view give `id::text AS id`: it is read with the blanks that fill it up");
        assert!(!fails);
    }
}
