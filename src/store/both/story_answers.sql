-- story_answers: the answers of providers on which decisions about one charge rest, and who had
-- them erased. $1: the charge's id.
SELECT a.id, a.provider, a.provider_job_id, a.asked_at, a.verdict, a.class, a.code, a.message,
       a.offered, a.request, a.http_status, a.excerpt, a.content_sha256,
       z.erased_at, z.by_whom AS erased_by, z.reason AS erased_for
FROM makegood_answers a
LEFT JOIN makegood_erasures z ON z.id = a.erasure_id
WHERE a.id IN (SELECT answer_id FROM makegood_orphan_events WHERE charge_id = $1)
ORDER BY a.id
