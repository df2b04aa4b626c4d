-- The contract relations as tables, for platforms that have none of their own yet, for tests and for trying out.
--
-- A platform with its own schema provides views of these names and columns instead and never runs this file.
-- makegood reads and writes them by name through the search path and knows no other column.
-- Ids are text. Credits are whole numbers in the smallest unit. Nothing here refers to a table of makegood's.
-- On purpose there are few CHECKs: makegood must get along with what real platforms hold.

CREATE TABLE accounts (
    id   text PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('user', 'workspace'))
);
COMMENT ON TABLE accounts IS 'Who pays: a user or a workspace. Read by people only; money follows charges.account_id (P07).';

CREATE TABLE charges (
    id                   text PRIMARY KEY,
    account_id           text NOT NULL,
    project_id           text NOT NULL,
    node_id              text NOT NULL,
    provider             text NOT NULL,
    model                text NOT NULL,
    provider_job_id      text,
    charged_at           timestamptz NOT NULL,
    subscription_credits bigint NOT NULL,
    wallet_credits       bigint NOT NULL,
    cancelled_at         timestamptz
);
COMMENT ON TABLE charges IS 'Credits taken from an account for one run, and from which balance (P03). One row a run; a retry is a row of its own (P08).';
COMMENT ON COLUMN charges.provider_job_id IS 'The provider''s id of the job; null until it was submitted.';
COMMENT ON COLUMN charges.cancelled_at IS 'When the user cancelled the run (P11).';
CREATE INDEX charges_by_time ON charges (charged_at, id);
CREATE INDEX charges_by_job ON charges (provider_job_id, provider);

CREATE TABLE charge_items (
    charge_id             text NOT NULL,
    output_index          bigint NOT NULL,
    credits               bigint NOT NULL,
    provider_job_id       text,
    provider_output_index bigint,
    failed_at             timestamptz,
    PRIMARY KEY (charge_id, output_index)
);
COMMENT ON TABLE charge_items IS 'One expected output of a charge, billed alone (P05, P06).';
COMMENT ON COLUMN charge_items.provider_job_id IS 'The item''s own provider job; null: the charge''s.';
COMMENT ON COLUMN charge_items.provider_output_index IS 'Which output of its job; null: output_index on the charge''s job, 0 on a job of its own.';
COMMENT ON COLUMN charge_items.failed_at IS 'When the platform itself recorded that it failed (P19).';
CREATE INDEX charge_items_by_job ON charge_items (provider_job_id) WHERE provider_job_id IS NOT NULL;
CREATE INDEX charge_items_failed ON charge_items (failed_at) WHERE failed_at IS NOT NULL;

CREATE TABLE stored_outputs (
    id                    text PRIMARY KEY,
    charge_id             text,
    output_index          bigint,
    provider              text NOT NULL,
    provider_job_id       text NOT NULL,
    provider_output_index bigint NOT NULL,
    project_id            text NOT NULL,
    node_id               text NOT NULL,
    uri                   text NOT NULL,
    content_type          text NOT NULL,
    size_bytes            bigint NOT NULL,
    sha256                text NOT NULL,
    stored_at             timestamptz NOT NULL,
    moved_at              timestamptz,
    deleted_at            timestamptz
);
COMMENT ON TABLE stored_outputs IS 'A row for every output ever stored; it stays when the output is deleted (P10, P22).';
COMMENT ON COLUMN stored_outputs.moved_at IS 'When a person moved it; then it stays where it was put (P13).';
CREATE INDEX stored_outputs_by_item ON stored_outputs (charge_id, output_index);
CREATE INDEX stored_outputs_by_job ON stored_outputs (provider_job_id, provider);

CREATE TABLE balances (
    account_id text NOT NULL,
    bucket     text NOT NULL CHECK (bucket IN ('subscription', 'wallet')),
    credits    bigint NOT NULL,
    PRIMARY KEY (account_id, bucket)
);
COMMENT ON TABLE balances IS 'What an account can spend, per bucket. May be negative (P03).';

CREATE TABLE ledger_entries (
    id           text PRIMARY KEY,
    account_id   text NOT NULL,
    bucket       text NOT NULL CHECK (bucket IN ('subscription', 'wallet')),
    credits      bigint NOT NULL,
    kind         text NOT NULL,
    charge_id    text NOT NULL,
    output_index bigint,
    refund_id    text,
    posted_at    timestamptz NOT NULL
);
COMMENT ON TABLE ledger_entries IS 'What was taken and given back. Only ever added to. makegood adds kind = refund with credits > 0 and its refund_id.';
CREATE INDEX ledger_entries_by_charge ON ledger_entries (charge_id);

CREATE FUNCTION ledger_entries_are_only_added_to() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'ledger_entries is only ever added to (% refused)', TG_OP USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER only_added_to BEFORE UPDATE OR DELETE ON ledger_entries
    FOR EACH ROW EXECUTE FUNCTION ledger_entries_are_only_added_to();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_entries_are_only_added_to();
