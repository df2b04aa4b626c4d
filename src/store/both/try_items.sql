-- try_items: items of the newest 200 charges that a refund and an output can be tried on. Nothing
-- was refunded for these charges. outputs: how many outputs the item has. orphans: 1 if it has an
-- unresolved orphan. subscription_rows, wallet_rows: how many balances its account has.
SELECT i.charge_id, i.output_index, i.credits, c.account_id, i.provider, c.model, i.provider_job_id,
       i.provider_output_index,
       i.project_id, i.node_id, c.charged_at, c.subscription_credits, c.wallet_credits,
       (SELECT count(*) FROM stored_outputs s
        WHERE s.charge_id = i.charge_id AND s.output_index = i.output_index) AS outputs,
       (SELECT count(*) FROM makegood_orphans o
        WHERE o.charge_id = i.charge_id AND o.output_index = i.output_index
          AND (o.state = 'open' OR o.state = 'held')) AS orphans,
       (SELECT count(*) FROM balances b
        WHERE b.account_id = c.account_id AND b.bucket = 'subscription') AS subscription_rows,
       (SELECT count(*) FROM balances b
        WHERE b.account_id = c.account_id AND b.bucket = 'wallet') AS wallet_rows
FROM (SELECT id, account_id, model, charged_at, subscription_credits, wallet_credits FROM charges
      ORDER BY charged_at DESC, id DESC LIMIT 200) AS c
JOIN makegood_items i ON i.charge_id = c.id
WHERE (SELECT count(*) FROM makegood_refunds r WHERE r.charge_id = c.id) = 0
  AND (SELECT count(*) FROM ledger_entries l WHERE l.charge_id = c.id AND l.kind = 'refund') = 0
LIMIT 1000
