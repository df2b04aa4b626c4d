-- find_leftovers: objects that dead leases may have left in the storage. $1: storage. $2: an upload
-- that began before this is removed for the last time. $3: at most this many. An expired lease can
-- settle nothing any more, so an object that no row names now is never named later. found 1: not
-- removed before. named 1: a recovery, or the stored output that this lease would have made, names
-- the object.
SELECT u.orphan_id, u.lease_token, u.nth, u.path, u.uri, u.upload_id,
       CAST(CASE WHEN u.begun_at <= $2 THEN 1 ELSE 0 END AS bigint) AS for_good,
       CAST(CASE WHEN u.swept_at IS NULL THEN 1 ELSE 0 END AS bigint) AS found,
       CAST(CASE WHEN EXISTS (SELECT 1 FROM makegood_recoveries r
                         WHERE r.charge_id = u.charge_id AND r.output_index = u.output_index
                           AND r.uri = u.uri)
              OR EXISTS (SELECT 1 FROM stored_outputs s
                         WHERE s.id = 'makegood:' || u.charge_id || '/'
                                      || CAST(u.output_index AS text) || ':'
                                      || CAST(u.lease_token AS text))
            THEN 1 ELSE 0 END AS bigint) AS named
FROM makegood_uploads u
LEFT JOIN makegood_orphans o ON o.id = u.orphan_id
WHERE u.storage = $1
  AND (u.swept_at IS NULL OR u.begun_at <= $2)
  AND (o.id IS NULL OR o.lease_token <> u.lease_token OR o.leased_until IS NULL)
ORDER BY coalesce(u.tried_at, u.begun_at), u.orphan_id, u.lease_token, u.nth
LIMIT $3
