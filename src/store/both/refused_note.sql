-- refused_note: records that the database rejected an orphan of an item after this time. $1: the
-- name of the record. $2: the time. $3: now. Kept among the cursors: while position < updated_at,
-- something was rejected after position, and it was retried at updated_at. The first of several
-- counts, and later ones do not postpone the next retry.
INSERT INTO makegood_cursors (name, position, updated_at)
VALUES ($1, $2, $3)
ON CONFLICT (name) DO UPDATE
SET position = CASE WHEN excluded.position < makegood_cursors.position THEN excluded.position
    ELSE makegood_cursors.position END,
    updated_at = CASE WHEN makegood_cursors.position < makegood_cursors.updated_at
        THEN makegood_cursors.updated_at
                      ELSE excluded.updated_at END
