-- How each provider stood when a pass last left it: for people (`makegood provider list`), and so that the next
-- process does not begin by knocking at a door that has just been found shut.

CREATE TABLE makegood_provider_state (
    provider           text PRIMARY KEY,
    asked_at           timestamptz NOT NULL,
    verdict            text NOT NULL,
    message            text,
    circuit_open_until timestamptz,
    noted_at           timestamptz NOT NULL
);
COMMENT ON TABLE makegood_provider_state IS 'The last question to each provider and whether it is left alone. Losing it costs a few questions, nothing else.';
COMMENT ON COLUMN makegood_provider_state.circuit_open_until IS 'Left alone until then; past: one question tries it. Null: asked as usual.';
