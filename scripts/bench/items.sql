-- :n charge items whose jobs failed, on :n / 5 accounts; half of them were paid from one bucket,
-- half from two. They are loaded twice: into the floor's own tables (floor_…), and into makegood's
-- contract relations. For a database in which migrations/reference/postgres was run. Items of one
-- account lie far apart in the order of ids (7919).
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
SELECT greatest(:n / 5, 1) AS accounts \gset

CREATE TABLE floor_accounts (id bigint PRIMARY KEY);
CREATE TABLE floor_balances (
    account_id bigint NOT NULL REFERENCES floor_accounts,
    bucket     text   NOT NULL CHECK (bucket IN ('subscription', 'wallet')),
    balance    bigint NOT NULL,
    PRIMARY KEY (account_id, bucket)
);
CREATE TABLE floor_items (
    id              bigint PRIMARY KEY,
    account_id      bigint NOT NULL REFERENCES floor_accounts,
    provider        text   NOT NULL,
    provider_job_id text   NOT NULL UNIQUE,
    credits         bigint NOT NULL CHECK (credits > 0),
    status          text   NOT NULL DEFAULT 'charged' CHECK (status IN ('charged', 'refunded')),
    charged_at      timestamptz NOT NULL,
    resolved_at     timestamptz
);
CREATE INDEX floor_items_open ON floor_items (charged_at) WHERE status = 'charged';
CREATE TABLE floor_funding (
    charge_item_id bigint NOT NULL REFERENCES floor_items,
    bucket         text   NOT NULL CHECK (bucket IN ('subscription', 'wallet')),
    credits        bigint NOT NULL CHECK (credits > 0),
    PRIMARY KEY (charge_item_id, bucket)
);
CREATE TABLE floor_refunds (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    charge_item_id bigint NOT NULL UNIQUE REFERENCES floor_items,
    account_id     bigint NOT NULL REFERENCES floor_accounts,
    credits        bigint NOT NULL,
    reason         text   NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE floor_entries (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    refund_id  bigint NOT NULL REFERENCES floor_refunds,
    account_id bigint NOT NULL,
    bucket     text   NOT NULL,
    credits    bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (refund_id, bucket)
);
CREATE TABLE floor_events (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    charge_item_id bigint NOT NULL,
    kind           text   NOT NULL,
    detail         jsonb  NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (charge_item_id, kind)
);

INSERT INTO floor_accounts SELECT generate_series(1, :accounts);
INSERT INTO floor_balances
SELECT a.id, b.bucket, b.balance
FROM floor_accounts a, (VALUES ('subscription', 1000), ('wallet', 500)) b (bucket, balance);
INSERT INTO floor_items (id, account_id, provider, provider_job_id, credits, charged_at)
SELECT i, 1 + (i::bigint * 7919) % :accounts, 'replicate', 'job-' || md5(i::text), 10,
       now() - interval '3 hours' + i * interval '0.1 second'
FROM generate_series(1, :n) i;
INSERT INTO floor_funding
SELECT i, 'subscription', CASE (i + (i - 1) / :accounts) % 2 WHEN 0 THEN 10 ELSE 6 END
FROM generate_series(1, :n) i
UNION ALL
SELECT i, 'wallet', 4 FROM generate_series(1, :n) i WHERE (i + (i - 1) / :accounts) % 2 = 1;

INSERT INTO accounts SELECT id::text, 'user' FROM floor_accounts;
INSERT INTO balances SELECT account_id::text, bucket, balance FROM floor_balances;
INSERT INTO charges
SELECT c.id::text, c.account_id::text, 'project-' || c.account_id, 'node-' || c.id, c.provider,
       'owner/model',
       c.provider_job_id, c.charged_at, coalesce(sum(f.credits)
                                                 FILTER (WHERE f.bucket = 'subscription'), 0),
       coalesce(sum(f.credits) FILTER (WHERE f.bucket = 'wallet'), 0), NULL
FROM floor_items c JOIN floor_funding f ON f.charge_item_id = c.id GROUP BY c.id;
INSERT INTO charge_items (charge_id, output_index, credits) SELECT id::text, 0, credits
FROM floor_items;
INSERT INTO ledger_entries
SELECT 'd-' || f.charge_item_id || '-' || f.bucket, c.account_id::text, f.bucket, -f.credits,
       'charge',
       f.charge_item_id::text, NULL, NULL, now()
FROM floor_funding f JOIN floor_items c ON c.id = f.charge_item_id;

-- Only filled tables: one that was looked at while it was empty gets plans that read it whole.
VACUUM (FREEZE, ANALYZE) floor_accounts, floor_balances, floor_items, floor_funding,
    accounts, balances, charges, charge_items, ledger_entries;
CHECKPOINT;
