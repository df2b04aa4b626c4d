-- The contract relations as tables, for platforms that have none of their own yet, for tests and for trying out.
--
-- A platform with its own schema provides views of these names and columns instead and never runs this file.
-- makegood reads and writes them by name through the search path and knows no other column.
-- Times are whole microseconds since 1970 UTC. Ids are text. Credits are whole numbers in the smallest unit. Nothing here refers to a table of makegood's.
-- On purpose there are few CHECKs: makegood must get along with what real platforms hold.

-- Who pays: a user or a workspace. Read by people only; money follows charges.account_id (P07).
CREATE TABLE accounts (
    id   text PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('user', 'workspace'))
) STRICT;

-- Credits taken from an account for one run, and from which balance (P03). One row a run; a retry is a row of its own (P08).
-- provider_job_id: null until it was submitted. cancelled_at: when the user cancelled the run (P11).
CREATE TABLE charges (
    id                   text PRIMARY KEY,
    account_id           text NOT NULL,
    project_id           text NOT NULL,
    node_id              text NOT NULL,
    provider             text NOT NULL,
    model                text NOT NULL,
    provider_job_id      text,
    charged_at           integer NOT NULL,
    subscription_credits integer NOT NULL,
    wallet_credits       integer NOT NULL,
    cancelled_at         integer
) STRICT;
CREATE INDEX charges_by_time ON charges (charged_at, id);
CREATE INDEX charges_by_job ON charges (provider_job_id, provider);

-- One expected output of a charge, billed alone (P05, P06). provider_job_id: the item's own job; null: the charge's.
-- provider_output_index: null: output_index on the charge's job, 0 on a job of its own. failed_at: recorded by the platform (P19).
CREATE TABLE charge_items (
    charge_id             text NOT NULL,
    output_index          integer NOT NULL,
    credits               integer NOT NULL,
    provider_job_id       text,
    provider_output_index integer,
    failed_at             integer,
    PRIMARY KEY (charge_id, output_index)
) STRICT;
CREATE INDEX charge_items_by_job ON charge_items (provider_job_id) WHERE provider_job_id IS NOT NULL;
CREATE INDEX charge_items_failed ON charge_items (failed_at) WHERE failed_at IS NOT NULL;

-- A row for every output ever stored; it stays when the output is deleted (P10, P22).
-- moved_at: when a person moved it; then it stays where it was put (P13).
CREATE TABLE stored_outputs (
    id                    text PRIMARY KEY,
    charge_id             text,
    output_index          integer,
    provider              text NOT NULL,
    provider_job_id       text NOT NULL,
    provider_output_index integer NOT NULL,
    project_id            text NOT NULL,
    node_id               text NOT NULL,
    uri                   text NOT NULL,
    content_type          text NOT NULL,
    size_bytes            integer NOT NULL,
    sha256                text NOT NULL,
    stored_at             integer NOT NULL,
    moved_at              integer,
    deleted_at            integer
) STRICT;
CREATE INDEX stored_outputs_by_item ON stored_outputs (charge_id, output_index);
CREATE INDEX stored_outputs_by_job ON stored_outputs (provider_job_id, provider);

-- What an account can spend, per bucket. May be negative (P03).
CREATE TABLE balances (
    account_id text NOT NULL,
    bucket     text NOT NULL CHECK (bucket IN ('subscription', 'wallet')),
    credits    integer NOT NULL,
    PRIMARY KEY (account_id, bucket)
) STRICT;

-- What was taken and given back. Only ever added to. makegood adds kind = refund with credits > 0 and its refund_id.
CREATE TABLE ledger_entries (
    id           text PRIMARY KEY,
    account_id   text NOT NULL,
    bucket       text NOT NULL CHECK (bucket IN ('subscription', 'wallet')),
    credits      integer NOT NULL,
    kind         text NOT NULL,
    charge_id    text NOT NULL,
    output_index integer,
    refund_id    text,
    posted_at    integer NOT NULL
) STRICT;
CREATE INDEX ledger_entries_by_charge ON ledger_entries (charge_id);

CREATE TRIGGER ledger_entries_never_changed BEFORE UPDATE ON ledger_entries
BEGIN SELECT RAISE(ABORT, 'ledger_entries is only ever added to (UPDATE refused)'); END;
CREATE TRIGGER ledger_entries_never_removed BEFORE DELETE ON ledger_entries
BEGIN SELECT RAISE(ABORT, 'ledger_entries is only ever added to (DELETE refused)'); END;
-- INSERT OR REPLACE slips past the two above.
CREATE TRIGGER ledger_entries_never_replaced BEFORE INSERT ON ledger_entries
WHEN EXISTS (SELECT 1 FROM ledger_entries WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'ledger_entries is only ever added to (a second row of one id refused)'); END;
