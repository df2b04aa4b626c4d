-- What docs/adopting.md asks for, as expressions of the views.
CREATE INDEX ON people ((person::text));
CREATE INDEX ON wallets ((person::text), (CASE kind WHEN 0 THEN 'subscription' ELSE 'wallet' END));
CREATE INDEX ON runs ((began AT TIME ZONE 'UTC'), (run::text));
CREATE INDEX ON runs ((run::text));
CREATE INDEX ON runs ((ticket::text), (vendor::text));
CREATE INDEX ON shots ((run::text), (nth::bigint));
CREATE INDEX ON shots ((ticket::text)) WHERE ticket::text IS NOT NULL;
CREATE INDEX ON shots ((broke AT TIME ZONE 'UTC')) WHERE broke AT TIME ZONE 'UTC' IS NOT NULL;
CREATE INDEX ON media ((run::text), (nth::bigint));
CREATE INDEX ON media ((ticket::text), (vendor::text));
CREATE INDEX ON journal ((run::text));
