-- provider_states: the states of the providers when a pass last asked them. $1: one of them, or
-- null for all.
SELECT provider, asked_at, verdict, message, circuit_open_until, noted_at
FROM makegood_provider_state
WHERE provider = $1 OR $1 IS NULL
ORDER BY provider
