-- charges_up_to: the last of the next charges in the order of their ids. $1: after this id. $2:
-- this many.
SELECT max(n.id) AS id FROM (SELECT c.id FROM charges c WHERE c.id > $1 ORDER BY c.id LIMIT $2) AS n
