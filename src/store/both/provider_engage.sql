-- provider_engage: a person holds the refunds of one provider, unless they are held already. $1:
-- the provider. $2: now. $3: why. Runs under the lock of the brake's row. Returns a row if they
-- were held now.
INSERT INTO makegood_provider_brakes (provider, engaged_at, reason)
VALUES ($1, $2, $3)
ON CONFLICT (provider) DO UPDATE SET engaged_at = excluded.engaged_at, reason = excluded.reason
WHERE makegood_provider_brakes.engaged_at IS NULL
RETURNING provider
