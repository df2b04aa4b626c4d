-- charges_of_day: charges made after $1 and up to $2, counted up to $3: beyond, their number no longer matters.
SELECT count(*) AS charges
FROM (SELECT 1 AS one FROM charges WHERE charged_at > $1 AND charged_at <= $2 LIMIT $3) AS recent
