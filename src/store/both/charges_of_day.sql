-- charges_of_day: charges made after $1 and up to $2, counted up to $3: beyond, their number no
-- longer matters. In the order of their time, so that the newest are read by the index and no more
-- of them than are counted.
SELECT count(*) AS charges
FROM (SELECT charged_at FROM charges WHERE charged_at > $1 AND charged_at <= $2
      ORDER BY charged_at DESC LIMIT $3) AS recent
