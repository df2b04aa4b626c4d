-- brake_let_go: releases the brake automatically. Earlier refunds still count, because no person
-- has examined them and a limit per day is one per day. $1: 1 for refunds of every kind, $2: 1 for
-- those that rest only on faults of ours; 0 leaves these as they are.
UPDATE makegood_brake
SET engaged_at = CASE WHEN $1 = 1 THEN NULL ELSE engaged_at END,
    reason = CASE WHEN $1 = 1 THEN NULL ELSE reason END,
    own_faults_at = CASE WHEN $2 = 1 THEN NULL ELSE own_faults_at END,
    own_faults_reason = CASE WHEN $2 = 1 THEN NULL ELSE own_faults_reason END
WHERE id = 1
RETURNING id
