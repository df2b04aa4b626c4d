-- Charges of all kinds. What begins with a dollar sign is filled in by seed.rs.
CREATE SCHEMA real_input;
CREATE TABLE real_input.kinds (name text PRIMARY KEY, troubled bool, provider text, model text,
                               fate text, word text,
                               twist text, stored int, stored_at text, stored_on text);
INSERT INTO real_input.kinds VALUES
$kinds;
CREATE TABLE real_input.kind_items (kind text, output_index bigint, fate text, want text);
INSERT INTO real_input.kind_items VALUES
$items;
CREATE TABLE real_input.slots (troubled bool, nth int, kind text, PRIMARY KEY (troubled, nth));
INSERT INTO real_input.slots VALUES
$slots;

-- n: the how manieth of its kind, by which partners find each other. Some ids are nothing for a
-- path or a shell.
CREATE TABLE real_input.charges AS
SELECT g, k.name AS kind, row_number() OVER (PARTITION BY k.name ORDER BY g) AS n,
       CASE WHEN g % 97 = 0 THEN 'c ' || g || '/../''ü' ELSE 'c' || g END AS id,
       CASE WHEN k.twist = 'NoBalance' THEN 'nobody-' || g
            WHEN g % 5 = 0 THEN 'team' || g % (1 + $charges / 60)
            ELSE 'user' || g % (1 + $charges / 20) END AS account_id,
       CASE WHEN k.twist = 'Young' THEN now() - make_interval(secs => 3600 + g % 600)
            WHEN k.twist = 'Future' THEN now() + interval '3 hours'
            ELSE now() - make_interval(secs => 5 * 3600 + (g::bigint * 7919) % 57600)
            END AS charged_at
FROM generate_series(1, $charges) AS g
JOIN real_input.slots s ON s.troubled = (g <= $troubled)
                       AND s.nth = CASE WHEN g <= $troubled THEN g % $a_round
                       ELSE g % $a_well_round END
JOIN real_input.kinds k ON k.name = s.kind;
CREATE UNIQUE INDEX ON real_input.charges (kind, n);
ANALYZE real_input.charges;

CREATE TABLE real_input.items AS
SELECT c.g, c.id AS charge_id, c.kind, c.n, i.output_index, i.want, k.provider,
       CASE WHEN k.twist = 'Free' THEN 0
           ELSE 10 + (c.g * 31 + i.output_index * 17) % 90 END AS credits,
       CASE WHEN i.fate IS NULL THEN NULL
           ELSE i.fate || '-x' || c.g || 'i' || i.output_index END AS own_job,
       CASE WHEN k.provider = 'veo-gemini' THEN 'models/veo-simulated/operations/' ELSE '' END
         || CASE WHEN k.word IS NULL THEN k.fate || '-x' || c.g
             ELSE k.fate || '-' || k.word || c.n END AS charge_job
FROM real_input.charges c
JOIN real_input.kinds k ON k.name = c.kind
JOIN real_input.kind_items i ON i.kind = c.kind;
CREATE UNIQUE INDEX ON real_input.items (charge_id, output_index);
CREATE UNIQUE INDEX ON real_input.items (g, output_index);
ANALYZE real_input.items;

-- Drawn from both buckets in every proportion, all from one and all from the other included.
INSERT INTO charges (id, account_id, project_id, node_id, provider, model, provider_job_id,
                     charged_at,
                     subscription_credits, wallet_credits, cancelled_at)
SELECT c.id, c.account_id, 'project' || c.g % 1000, 'node' || c.g, k.provider, k.model, d.job,
       c.charged_at,
       d.credits * (c.g * 37 % 101) / 100,
       d.credits - d.credits * (c.g * 37 % 101) / 100 + CASE WHEN k.twist = 'Mismatched' THEN 1
           ELSE 0 END,
       CASE WHEN k.twist = 'Cancelled' THEN c.charged_at + interval '10 minutes' END
FROM real_input.charges c
JOIN real_input.kinds k ON k.name = c.kind
JOIN (SELECT g, sum(credits)::bigint AS credits, max(charge_job) AS job FROM real_input.items
      GROUP BY g) d ON d.g = c.g;

INSERT INTO charge_items (charge_id, output_index, credits, provider_job_id, provider_output_index,
                          failed_at)
SELECT i.charge_id, i.output_index, i.credits, i.own_job, NULL,
       CASE WHEN k.twist = 'Failed' THEN now() - interval '1 minute' END
FROM real_input.items i JOIN real_input.kinds k ON k.name = i.kind
WHERE k.twist <> 'NoItems';

-- The claimant's charge has no job; what hangs on it is somebody else's.
INSERT INTO stored_outputs (id, charge_id, output_index, provider, provider_job_id,
                            provider_output_index, project_id, node_id,
                            uri, content_type, size_bytes, sha256, stored_at, moved_at, deleted_at)
SELECT 'o' || i.g || '-' || i.output_index,
       CASE k.stored_at WHEN 'nothing' THEN NULL WHEN 'another' THEN h.id ELSE i.charge_id END,
       CASE WHEN k.stored_at = 'nothing' THEN NULL ELSE i.output_index END,
       i.provider, coalesce(i.own_job, i.charge_job), CASE WHEN i.own_job IS NULL
           THEN i.output_index ELSE 0 END,
       CASE WHEN k.stored_at IN ('wrong place', 'moved') THEN 'elsewhere'
           ELSE 'project' || coalesce(h.g, i.g) % 1000 END,
       'node' || coalesce(h.g, i.g), 'file:///platform/' || i.g || '/' || i.output_index,
       'image/png', 217,
       md5(i.g || ' ' || i.output_index) || md5('x' || i.g || ' ' || i.output_index),
       c.charged_at + interval '2 minutes',
       CASE WHEN k.stored_at = 'moved' THEN c.charged_at + interval '1 hour' END,
       CASE WHEN k.stored_at = 'deleted' THEN c.charged_at + interval '2 hours' END
FROM real_input.items i
JOIN real_input.kinds k ON k.name = i.kind
JOIN real_input.charges c ON c.g = i.g
LEFT JOIN real_input.charges h ON h.kind = k.stored_on AND h.n = i.n
WHERE i.output_index < k.stored;

INSERT INTO accounts (id, kind)
SELECT DISTINCT account_id, CASE WHEN account_id LIKE 'team%' THEN 'workspace' ELSE 'user' END
FROM real_input.charges;
INSERT INTO balances (account_id, bucket, credits)
SELECT a.id, b.bucket, hashtext(a.id || b.bucket) % 10000
FROM accounts a CROSS JOIN (VALUES ('subscription'), ('wallet')) AS b(bucket)
WHERE a.id NOT LIKE 'nobody-%';

INSERT INTO ledger_entries (id, account_id, bucket, credits, kind, charge_id, posted_at)
SELECT 'd:' || c.id || ':' || b.bucket, c.account_id, b.bucket, -b.credits, 'deduction', c.id,
       c.charged_at
FROM charges c
CROSS JOIN LATERAL (VALUES ('subscription', c.subscription_credits),
                    ('wallet', c.wallet_credits)) AS b(bucket, credits)
WHERE b.credits > 0;
-- The platform's own refunds, the subscription first.
INSERT INTO ledger_entries (id, account_id, bucket, credits, kind, charge_id, output_index,
                            refund_id, posted_at)
SELECT 'own:' || c.id || ':' || b.bucket, c.account_id, b.bucket, b.credits, 'refund', c.id,
       CASE WHEN k.twist = 'RefundedFirst' THEN 0 END, 'own:' || c.id,
       c.charged_at + interval '1 hour'
FROM real_input.items i
JOIN real_input.kinds k ON k.name = i.kind AND k.twist IN ('RefundedFirst', 'RefundedWhole')
JOIN charges c ON c.id = i.charge_id
CROSS JOIN LATERAL (VALUES ('subscription', least(i.credits, c.subscription_credits)),
                           ('wallet',
                            i.credits - least(i.credits, c.subscription_credits))) AS b(bucket,
                                    credits)
WHERE i.output_index = 0 AND b.credits > 0;

-- What each charge must be given back, per bucket: the subscription first, less what the platform
-- gave.
CREATE TABLE real_input.due AS
SELECT c.id AS charge_id, c.account_id, d.credits,
       least(d.credits, c.subscription_credits - p.subscription) AS subscription,
       d.credits - least(d.credits, c.subscription_credits - p.subscription) AS wallet
FROM (SELECT charge_id, sum(credits) AS credits FROM real_input.items WHERE want LIKE 'refunded %'
      GROUP BY charge_id) d
JOIN charges c ON c.id = d.charge_id
CROSS JOIN LATERAL (SELECT coalesce(sum(l.credits)
                                    FILTER (WHERE l.bucket = 'subscription'), 0) AS subscription
                    FROM ledger_entries l WHERE l.charge_id = c.id AND l.kind = 'refund') p;

CREATE TABLE real_input.expected AS
SELECT charge_id, output_index, want FROM real_input.items WHERE want <> '$nothing';
CREATE TABLE real_input.balances_before AS SELECT * FROM balances;
CREATE TABLE real_input.ledger_before AS SELECT * FROM ledger_entries;
-- Not makegood's own tables: they are as new here as after any first migration.
ANALYZE accounts, charges, charge_items, stored_outputs, balances, ledger_entries,
        real_input.items, real_input.due, real_input.expected, real_input.balances_before,
        real_input.ledger_before;
