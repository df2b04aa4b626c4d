-- review_late_providers: late successes by provider, and what was refunded for them. $1: noticed
-- from then on. Credits come in two halves, so that no sum overflows.
SELECT x.provider, count(*) AS items,
       count(*) FILTER (WHERE x.stored_output_id IS NULL) AS never_delivered,
       CAST(coalesce(sum(CASE WHEN x.stored_output_id IS NULL
                         THEN x.subscription_credits >> 32 END), 0) AS bigint) AS subscription_high,
       CAST(coalesce(sum(CASE WHEN x.stored_output_id IS NULL
                         THEN x.subscription_credits & 4294967295 END),
                         0) AS bigint) AS subscription_low,
       CAST(coalesce(sum(CASE WHEN x.stored_output_id IS NULL
                         THEN x.wallet_credits >> 32 END), 0) AS bigint) AS wallet_high,
       CAST(coalesce(sum(CASE WHEN x.stored_output_id IS NULL
                         THEN x.wallet_credits & 4294967295 END), 0) AS bigint) AS wallet_low
FROM (
    SELECT l.provider, r.subscription_credits, r.wallet_credits,
           coalesce(l.stored_output_id, (SELECT min(d.stored_output_id) FROM makegood_deliveries d
                                         WHERE d.charge_id = l.charge_id
                                           AND d.output_index = l.output_index)) AS stored_output_id
    FROM makegood_late_successes l
    JOIN makegood_refunds r ON r.id = l.refund_id
    WHERE l.noticed_at >= $1
) AS x
GROUP BY x.provider
ORDER BY x.provider
