-- replace_provider_shares: all holdings of a provider's limits, unless another process has replaced
-- them since they were read: then no row is returned. $1: the provider. $2: the version that was
-- read; 0: there was no row. $3: the holdings.
INSERT INTO makegood_provider_shares AS s (provider, version, holdings) VALUES ($1, 1, CAST($3 AS jsonb))
ON CONFLICT (provider) DO UPDATE SET version = s.version + 1, holdings = excluded.holdings
WHERE s.version = $2
RETURNING version
