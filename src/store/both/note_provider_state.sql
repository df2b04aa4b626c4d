-- note_provider_state: records the state of a provider, unless another process has asked it later
-- (except while the clock was ahead). $1: the provider. $2: last asked. $3: verdict. $4: message or
-- null. $5: circuit open until, or null. $6: now.
INSERT INTO makegood_provider_state (provider, asked_at, verdict, message, circuit_open_until,
                                     noted_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (provider) DO UPDATE
SET asked_at = excluded.asked_at, verdict = excluded.verdict, message = excluded.message,
    circuit_open_until = excluded.circuit_open_until, noted_at = excluded.noted_at
WHERE excluded.asked_at >= makegood_provider_state.asked_at OR makegood_provider_state.asked_at > $6
