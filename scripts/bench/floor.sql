-- The floor of SQL: the posting of every open item with :lo < id <= :hi, as one statement.
-- Detection, leases, proofs and evidence are left out: nothing can do the job with less.
WITH refund AS (
  INSERT INTO floor_refunds (charge_item_id, account_id, credits, reason)
  SELECT id, account_id, credits, 'provider_failed'
  FROM floor_items WHERE id > :lo AND id <= :hi AND status = 'charged'
  ON CONFLICT (charge_item_id) DO NOTHING
  RETURNING id, charge_item_id, account_id
), entry AS (
  INSERT INTO floor_entries (refund_id, account_id, bucket, credits)
  SELECT r.id, r.account_id, f.bucket, f.credits
  FROM refund r JOIN floor_funding f USING (charge_item_id)
  RETURNING account_id, bucket, credits
), credited AS (
  UPDATE floor_balances b SET balance = b.balance + e.credits
  FROM (SELECT account_id, bucket, sum(credits) AS credits FROM entry GROUP BY 1, 2) e
  WHERE b.account_id = e.account_id AND b.bucket = e.bucket
), resolved AS (
  UPDATE floor_items c SET status = 'refunded', resolved_at = now()
  FROM refund r WHERE c.id = r.charge_item_id
)
INSERT INTO floor_events (charge_item_id, kind, detail)
SELECT charge_item_id, 'refunded',
       jsonb_build_object('provider_error', 'generation failed on the provider side')
FROM refund;
