-- refund_sums: recent refunds for each provider, from the sums of each minute. $1: since when for
-- the hour. $2: since when for the day. $3: since when for the pass. $4: the earliest of the three.
-- Reads at most 1,440 rows for each provider by their time, and a few that are ahead of now.
-- Credits come in two halves (times 2^32, and the rest), so that no sum that is compared with a
-- limit overflows.
SELECT provider,
       CAST(coalesce(sum(refunds) FILTER (WHERE began_at >= $1), 0) AS bigint) AS hour_refunds,
       CAST(coalesce(sum(credits >> 32) FILTER (WHERE began_at >= $1), 0) AS bigint)
           AS hour_credits_high,
       CAST(coalesce(sum(credits & 4294967295) FILTER (WHERE began_at >= $1), 0) AS bigint)
           AS hour_credits_low,
       CAST(coalesce(sum(refunds) FILTER (WHERE began_at >= $2), 0) AS bigint) AS day_refunds,
       CAST(coalesce(sum(credits >> 32) FILTER (WHERE began_at >= $2), 0) AS bigint)
           AS day_credits_high,
       CAST(coalesce(sum(credits & 4294967295) FILTER (WHERE began_at >= $2), 0) AS bigint)
           AS day_credits_low,
       CAST(coalesce(sum(own_faults) FILTER (WHERE began_at >= $2), 0) AS bigint) AS own_faults,
       CAST(coalesce(sum(refunds) FILTER (WHERE began_at >= $3), 0) AS bigint) AS pass_refunds,
       CAST(coalesce(sum(credits >> 32) FILTER (WHERE began_at >= $3), 0) AS bigint)
           AS pass_credits_high,
       CAST(coalesce(sum(credits & 4294967295) FILTER (WHERE began_at >= $3), 0) AS bigint)
           AS pass_credits_low
FROM makegood_refund_sums
WHERE began_at >= $4
GROUP BY provider
