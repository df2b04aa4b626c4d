-- Who asks each provider how much, so that all processes together keep to its limits.
--
-- One row a provider and not one a process: a single statement replaces all holdings, and only if
-- nobody has replaced them since they were read (`version`). So processes take shares one after the
-- other without a lock that outlives a statement, and no row is ever removed.

CREATE TABLE makegood_provider_shares (
    provider text PRIMARY KEY,
    version  bigint NOT NULL,
    holdings jsonb NOT NULL
);
COMMENT ON TABLE makegood_provider_shares IS 'The processes that ask each provider now, and their parts of its limits. Losing a row costs a few seconds in which a provider may be asked more than its limits say.';
COMMENT ON COLUMN makegood_provider_shares.holdings IS 'A list of {holder, slots, max_concurrency, requests_per_second, leased_until}. Slots count until the lease ends; zero: this process waits.';
