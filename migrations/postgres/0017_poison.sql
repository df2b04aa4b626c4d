-- An orphan that was in flight in two passes that died is retried alone and last: it may be what
-- ended them. Each claim that takes over a lease that ran out counts one death.

ALTER TABLE makegood_orphans
    ADD COLUMN deaths      bigint NOT NULL DEFAULT 0,
    ADD COLUMN alone_since timestamptz;
COMMENT ON COLUMN makegood_orphans.deaths IS 'Passes in a row that died while they had leased it, as far as a later claim has found out.';
COMMENT ON COLUMN makegood_orphans.alone_since IS 'When a pass began to retry it alone. If that pass died, this was a question without an answer.';

-- A question about a refunded job that was in flight in two passes that died is not asked again.
ALTER TABLE makegood_late_questions ADD COLUMN deaths bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN makegood_late_questions.deaths IS 'Passes in a row that died while they had leased it, as far as a later claim has found out.';
