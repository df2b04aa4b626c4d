-- brake_events: when the brake was engaged and released, newest first. $1: at most this many.
SELECT at, kind, by_whom, reason, account_id, provider
FROM makegood_brake_events
ORDER BY id DESC LIMIT $1
