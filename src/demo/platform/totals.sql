-- totals: the same credits, counted in each relation.
SELECT (SELECT count(*) FROM charges) AS charges,
       (SELECT count(*) FROM charge_items) AS items,
       (SELECT count(*) FROM makegood_orphans) AS looked_into,
       (SELECT coalesce(sum(subscription_credits + wallet_credits), 0)
        FROM makegood_refunds) AS refunded,
       (SELECT coalesce(sum(credits), 0)
        FROM ledger_entries WHERE refund_id IS NOT NULL) AS in_ledger,
       (SELECT coalesce(sum(subscription_refunded + wallet_refunded), 0)
        FROM makegood_charges) AS on_charges,
       (SELECT coalesce(sum(credits), 0)
        FROM billing_activity WHERE activity = 'refund') AS in_activity,
       (SELECT coalesce(sum(credits), 0) FROM billable_usage) AS billable,
       (SELECT coalesce(sum(credits), 0) FROM charge_items) AS ordered
