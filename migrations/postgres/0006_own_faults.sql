-- Refunds that rest on nothing but faults of ours have a brake of their own: once it is on, it stays on until it is released, as the
-- other does. Without that, a day later as many more would go out, and nobody would have looked.
ALTER TABLE makegood_brake
    ADD COLUMN own_faults_at          timestamptz,
    ADD COLUMN own_faults_reason      text,
    ADD COLUMN own_faults_released_at timestamptz;
COMMENT ON COLUMN makegood_brake.own_faults_at IS 'Since when refunds are held that rest on nothing but faults of ours; NULL: they are not.';
-- One release let go of both until now.
UPDATE makegood_brake SET own_faults_released_at = released_at;
