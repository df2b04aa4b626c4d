-- provider_release: a person releases the refunds of one provider. $1: the provider. $2: now. Runs
-- under the lock of the brake's row. Returns a row if they were held.
UPDATE makegood_provider_brakes SET engaged_at = NULL, reason = NULL, released_at = $2
WHERE provider = $1 AND engaged_at IS NOT NULL
RETURNING provider
