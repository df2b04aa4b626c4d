-- insert_brake_event: keeps who pulled or released the brake and why. $1: at. $2: engaged or released. $3: who. $4: why.
INSERT INTO makegood_brake_events (at, kind, by_whom, reason) VALUES ($1, $2, $3, $4)
