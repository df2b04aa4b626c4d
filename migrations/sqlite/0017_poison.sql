-- An orphan that was in flight in two passes that died is retried alone and last: it may be what
-- ended them. Each claim that takes over a lease that ran out counts one death.

-- Passes in a row that died while they had leased it, as far as a later claim has found out.
ALTER TABLE makegood_orphans ADD COLUMN deaths integer NOT NULL DEFAULT 0;
-- When a pass began to retry it alone. If that pass died, this was a question without an answer.
ALTER TABLE makegood_orphans ADD COLUMN alone_since integer;

-- A question about a refunded job that was in flight in two passes that died is not asked again.
ALTER TABLE makegood_late_questions ADD COLUMN deaths integer NOT NULL DEFAULT 0;
