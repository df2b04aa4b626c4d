-- account_let_go: releases an account automatically; earlier refunds to it still count. $1: the
-- account. Returns a row if it was held.
UPDATE makegood_accounts SET held_at = NULL, held_reason = NULL
WHERE account_id = $1 AND held_at IS NOT NULL
RETURNING account_id
