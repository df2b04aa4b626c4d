-- insert_answers: keeps what providers said, one row a question. $1: JSON list of {provider,
-- provider_job_id, asked_at, verdict, class, code, message, offered, request, http_status, excerpt,
-- content_sha256}.
INSERT INTO makegood_answers (provider, provider_job_id, asked_at, verdict, class, code, message,
                              offered, request, http_status, excerpt, content_sha256)
SELECT d.provider, d.provider_job_id, d.asked_at, d.verdict, d.class, d.code, d.message, d.offered,
       d.request, d.http_status, d.excerpt, d.content_sha256
FROM (SELECT value ->> 'provider' AS provider, value ->> 'provider_job_id' AS provider_job_id,
             value ->> 'asked_at' AS asked_at, value ->> 'verdict' AS verdict,
             value ->> 'class' AS class, value ->> 'code' AS code, value ->> 'message' AS message,
             value ->> 'offered' AS offered, value ->> 'request' AS request,
             value ->> 'http_status' AS http_status, value ->> 'excerpt' AS excerpt,
             value ->> 'content_sha256' AS content_sha256
             FROM json_each($1)) AS d
WHERE true
RETURNING id, provider, provider_job_id, asked_at, verdict
