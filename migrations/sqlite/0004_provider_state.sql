-- How each provider stood when a pass last left it: for people (`makegood provider list`), and so that the next
-- process does not begin by knocking at a door that has just been found shut.

CREATE TABLE makegood_provider_state (
    provider           text PRIMARY KEY,
    asked_at           integer NOT NULL,
    verdict            text NOT NULL,
    message            text,
    circuit_open_until integer,
    noted_at           integer NOT NULL
) STRICT;
