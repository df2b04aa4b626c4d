-- post_to_balances: adds ledger entries to their balances. Entries without a balance row are
-- skipped.
-- $1: as for add_entries.
UPDATE balances AS b
SET credits = b.credits + e.credits
FROM (SELECT value ->> 'account_id' AS account_id, value ->> 'bucket' AS bucket,
             sum(value ->> 'credits') AS credits
      FROM json_each($1) GROUP BY 1, 2) AS e
WHERE e.account_id = b.account_id AND e.bucket = b.bucket
