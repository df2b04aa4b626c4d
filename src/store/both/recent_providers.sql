-- recent_providers: the providers that charges name. $1: from then on. $2: at most this many
-- charges are read, the newest by their index.
SELECT provider, count(*) AS charges
FROM (SELECT provider FROM charges WHERE charged_at >= $1 ORDER BY charged_at DESC, id DESC
      LIMIT $2) AS newest
GROUP BY provider ORDER BY provider
