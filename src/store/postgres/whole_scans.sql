-- whole_scans: lets the statements of this transaction read whole tables in the order in which they
-- lie, and join by hash. Only for `makegood check --books`, which reads everything. $1:
-- milliseconds that one statement may take, as text.
SELECT set_config('enable_seqscan', 'on', true) AS seqscan, set_config('enable_hashjoin', 'on', true) AS hashjoin,
       set_config('enable_bitmapscan', 'on', true) AS bitmapscan, set_config('enable_sort', 'on', true) AS sort,
       set_config('statement_timeout', $1, true) AS patience
