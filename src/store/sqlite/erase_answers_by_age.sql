-- erase_answers_by_age: the next answers by their key, whether each is old enough and has anything
-- to erase (due 1), and whether an open or held case of its job needs it (needed 1). $1: after this
-- id. $2: at most this many. $3: written before this.
SELECT a.id,
       a.asked_at < $3 AND a.erasure_id IS NULL
       AND coalesce(a.code, a.message, a.request, a.excerpt) IS NOT NULL AS due,
       EXISTS (SELECT 1 FROM makegood_orphans o
               WHERE o.provider_job_id = a.provider_job_id AND o.provider = a.provider
                 AND o.state IN ('open', 'held')) AS needed
FROM makegood_answers a
WHERE a.id > $1
ORDER BY a.id
LIMIT $2
