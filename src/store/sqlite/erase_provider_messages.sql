-- erase_provider_messages: erases the last messages of providers, each of which is a copy of an
-- answer about some job. $1: received before this, or null. $2: JSON list of the answers that are
-- erased.
UPDATE makegood_provider_state AS s SET message = NULL
WHERE s.message IS NOT NULL
  AND (s.asked_at < $1
       OR EXISTS (SELECT 1 FROM json_each($2) AS n CROSS JOIN makegood_answers a ON a.id = n.value
                  WHERE a.provider = s.provider AND a.message = s.message))
RETURNING provider
