-- One row for each check that fails; nothing when both did the job. psql -v n=N
WITH checks (name, got, want) AS (VALUES
    ('the floor''s refunds', (SELECT count(*) FROM floor_refunds), :n::bigint),
    ('the floor''s entries', (SELECT count(*) FROM floor_entries),
     (SELECT count(*) FROM floor_funding)),
    ('makegood''s refunds', (SELECT count(*) FROM makegood_refunds), :n),
    ('items refunded twice', (SELECT count(*) - count(DISTINCT charge_id) FROM makegood_refunds),
     0),
    ('ledger entries', (SELECT count(*) FROM ledger_entries WHERE kind = 'refund'),
                       (SELECT count(*) FROM floor_funding)),
    ('resolved orphans', (SELECT count(*) FROM makegood_orphans WHERE state = 'refunded'), :n),
    ('answers', (SELECT count(*) FROM makegood_answers), :n),
    ('balances that differ from the floor''s',
        (SELECT count(*) FROM balances b FULL JOIN floor_balances f
             ON f.account_id::text = b.account_id AND f.bucket = b.bucket
         WHERE b.credits IS DISTINCT FROM f.balance), 0))
SELECT name, got, want FROM checks WHERE got IS DISTINCT FROM want;
