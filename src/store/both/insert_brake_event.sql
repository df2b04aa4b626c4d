-- insert_brake_event: $1: now. $2: engaged or released. $3: by whom. $4: why. $5: the account
-- alone, or null. $6: the provider alone, or null.
INSERT INTO makegood_brake_events (at, kind, by_whom, reason, account_id, provider)
VALUES ($1, $2, $3, $4, $5, $6)
