-- insert_erasure: records who had a batch of evidence erased. $1: now. $2: who. $3: why. $4: the
-- account, or null. $5: written before this, or null. $6 to $9: the number of answers, events,
-- reports of passes, and messages of providers.
INSERT INTO makegood_erasures (erased_at, by_whom, reason, account_id, older_than, answers,
                               events, pass_reports, provider_messages)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
RETURNING id
