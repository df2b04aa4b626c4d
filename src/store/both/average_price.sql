-- average_price: the average price of the newest charges up to $1, as the unit for limits on
-- credits. It costs the same for any number of charges: at most $2 are read, by the index on their
-- time. Charges without a price, or with one of zero or less, are left out. Each counts for at most
-- a thousand times the median (the upper of two), so that a few prices in a wrong unit do not raise
-- the average. Credits come in two halves (times 2^32, and the rest), so no sum overflows.
WITH paid AS (
    SELECT CASE WHEN n.subscription_credits > 9223372036854775807 - n.wallet_credits
        THEN 9223372036854775807
                ELSE n.subscription_credits + n.wallet_credits END AS credits
    FROM (SELECT subscription_credits, wallet_credits FROM charges
          WHERE charged_at <= $1 ORDER BY charged_at DESC LIMIT $2) AS n
    WHERE n.subscription_credits >= 0 AND n.wallet_credits >= 0
      AND (n.subscription_credits > 0 OR n.wallet_credits > 0)
), middle AS (
    SELECT credits FROM paid ORDER BY credits LIMIT 1 OFFSET (SELECT count(*) / 2 FROM paid)
), capped AS (
    SELECT CASE WHEN p.credits / 1000 >= m.credits THEN m.credits * 1000
        ELSE p.credits END AS credits
    FROM paid p CROSS JOIN middle m
)
SELECT count(*) AS charges,
       CAST(coalesce(sum(credits >> 32), 0) AS bigint) AS credits_high,
       CAST(coalesce(sum(credits & 4294967295), 0) AS bigint) AS credits_low
FROM capped
