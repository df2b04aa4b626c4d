-- pass_begin: records the beginning of a pass. $1: run, schedule or by_hand. $2: now.
INSERT INTO makegood_passes (mode, started_at) VALUES ($1, $2) RETURNING id
