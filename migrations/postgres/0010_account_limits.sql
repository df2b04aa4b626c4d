-- Limits of the brake per account and day, which hold that account alone, and a brake for one
-- provider. What an account has had is counted from makegood_refunds itself, under the lock of the
-- account's row that every settle takes first: refunds of older versions count too.

ALTER TABLE makegood_accounts
    ADD COLUMN held_at        timestamptz,
    ADD COLUMN held_reason    text,
    ADD COLUMN released_at    timestamptz,
    ADD COLUMN released_after bigint;
COMMENT ON COLUMN makegood_accounts.held_at IS 'Since when the refunds of this account alone are held, if they are.';
COMMENT ON COLUMN makegood_accounts.released_at IS 'When a person last released them.';
COMMENT ON COLUMN makegood_accounts.released_after IS 'The last resolution of a refund to the account before that release: only later ones count. A number and no time, so that clocks do not matter.';
CREATE INDEX makegood_accounts_held ON makegood_accounts (held_at) WHERE held_at IS NOT NULL;

-- What an account has had in a day is read by this.
CREATE INDEX makegood_refunds_by_account ON makegood_refunds (account_id, refunded_at);

ALTER TABLE makegood_orphans ADD COLUMN held_account text;
COMMENT ON COLUMN makegood_orphans.held_account IS 'The account whose limits hold the refund, where it is held for the reason brake; empty: the brake of all or of the provider holds it.';
-- What a release makes due, in portions: of an account, of a provider.
CREATE INDEX makegood_orphans_held_account ON makegood_orphans (held_account, id)
    WHERE state = 'held' AND held_account IS NOT NULL;
CREATE INDEX makegood_orphans_held_provider ON makegood_orphans (provider, id)
    WHERE state = 'held' AND reason = 'brake' AND held_account IS NULL;

CREATE TABLE makegood_provider_brakes (
    provider    text PRIMARY KEY,
    engaged_at  timestamptz,
    reason      text,
    released_at timestamptz
);
COMMENT ON TABLE makegood_provider_brakes IS 'Providers whose refunds a person holds or has held. Written under the lock of the row of makegood_brake.';

ALTER TABLE makegood_brake_events ADD COLUMN account_id text, ADD COLUMN provider text;
COMMENT ON COLUMN makegood_brake_events.account_id IS 'The account that was held or released alone.';
COMMENT ON COLUMN makegood_brake_events.provider IS 'The provider that was held or released alone.';
