-- Limits of the brake per account and day, which hold that account alone, and a brake for one
-- provider. What an account has had is counted from makegood_refunds itself.

-- Until now empty on SQLite; now a row for each account that was ever held.
ALTER TABLE makegood_accounts ADD COLUMN held_at integer;
ALTER TABLE makegood_accounts ADD COLUMN held_reason text;
ALTER TABLE makegood_accounts ADD COLUMN released_at integer;
ALTER TABLE makegood_accounts ADD COLUMN released_after integer;
CREATE INDEX makegood_accounts_held ON makegood_accounts (held_at) WHERE held_at IS NOT NULL;

-- What an account has had in a day is read by this.
CREATE INDEX makegood_refunds_by_account ON makegood_refunds (account_id, refunded_at);

ALTER TABLE makegood_orphans ADD COLUMN held_account text;
-- What a release makes due, in portions: of an account, of a provider.
CREATE INDEX makegood_orphans_held_account ON makegood_orphans (held_account, id)
    WHERE state = 'held' AND held_account IS NOT NULL;
CREATE INDEX makegood_orphans_held_provider ON makegood_orphans (provider, id)
    WHERE state = 'held' AND reason = 'brake' AND held_account IS NULL;

CREATE TABLE makegood_provider_brakes (
    provider    text PRIMARY KEY,
    engaged_at  integer,
    reason      text,
    released_at integer
) STRICT;

ALTER TABLE makegood_brake_events ADD COLUMN account_id text;
ALTER TABLE makegood_brake_events ADD COLUMN provider text;
