-- charges_of_day: the number of charges made after $1 and up to $2, counted up to $3: beyond that
-- the number does not matter. In the order of their time, so that the index reads the newest, and
-- no more than are counted.
SELECT count(*) AS charges
FROM (SELECT charged_at FROM charges WHERE charged_at > $1 AND charged_at <= $2
      ORDER BY charged_at DESC LIMIT $3) AS recent
