-- The few orphans that were in flight when a pass died: the next to be retried alone is found by
-- this.
CREATE INDEX makegood_orphans_suspects ON makegood_orphans (deaths, urgent_at, id)
    WHERE state IN ('open', 'held') AND deaths > 0;
