-- sample_patience: ends the statements of this transaction that take longer. $1: milliseconds, as
-- text. A sample that cannot be read by an index is given up: a report of the plans says why.
SELECT set_config('statement_timeout', $1, true) AS patience
