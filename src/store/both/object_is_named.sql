-- object_is_named: whether a recovery, or the stored output that this lease would have made, names
-- an object that is about to be deleted. $1: charge. $2: output index. $3: uri. $4: the lease's
-- token. The same condition as in find_leftovers.
SELECT CAST(CASE WHEN EXISTS (SELECT 1 FROM makegood_recoveries r
                              WHERE r.charge_id = $1 AND r.output_index = $2 AND r.uri = $3)
                   OR EXISTS (SELECT 1 FROM stored_outputs s
                              WHERE s.id = 'makegood:' || $1 || '/' || CAST($2 AS text)
                                      || ':' || CAST($4 AS text))
                 THEN 1 ELSE 0 END AS bigint) AS named
