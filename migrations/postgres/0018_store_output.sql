-- makegood_store_output refuses what is no output: an id that looks like one of makegood's own, a
-- URI that is no place of a file (`javascript:…`), a length below zero, a hash that is none. A page
-- that shows outputs links to the URI; a hash that never matches lets a file be brought home twice.
--
-- A URI without a scheme (`outputs/1.png`) passes: it is a name in the platform's own storage.

SELECT makegood_define($definition$
CREATE OR REPLACE FUNCTION {home}.makegood_store_output(
    output_id text, charge_id text, output_index bigint, uri text, content_type text, size_bytes bigint, sha256 text,
    provider_job_id text DEFAULT NULL, provider_output_index bigint DEFAULT NULL
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path TO {path} AS $$
#variable_conflict use_column
DECLARE
    item record;
    refund record;
    job text;
    job_output bigint;
    at timestamptz;
    wrong text;
BEGIN
    -- What pages, workers and makegood itself will take for what it says. Until now anything was
    -- stored.
    wrong := CASE
        WHEN starts_with(makegood_store_output.output_id, 'makegood:'::text)
            THEN 'output_id begins with `makegood:`, as ids of makegood''s own do: give your own id'
        WHEN makegood_store_output.output_id = ''::text
            THEN 'output_id is empty: give your own id'
        WHEN makegood_store_output.uri = ''::text OR makegood_store_output.uri ~ '[[:cntrl:]]'::text
            THEN 'uri is empty or holds a control character'
        WHEN makegood_store_output.uri ~ '^[^/?#]*:'::text
             AND makegood_store_output.uri !~* '^(file|s3|gs|az|abfss|r2|b2|oss|http|https):'::text
            THEN 'uri has a scheme that is not one of file, s3, gs, az, abfss, r2, b2, oss, http and https'
        WHEN makegood_store_output.size_bytes < 0::bigint
            THEN 'size_bytes is below zero: give the length of the file, or NULL'
        WHEN makegood_store_output.sha256 !~ '^[0-9a-fA-F]{64}$'::text
            THEN 'sha256 is not 64 hexadecimal digits: give the SHA-256 of the file, or NULL'
    END;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'makegood_store_output: item %/%: %', makegood_store_output.charge_id, makegood_store_output.output_index, wrong
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT i.provider::text AS provider, i.provider_job_id::text AS provider_job_id,
           i.provider_output_index::bigint AS provider_output_index, c.account_id::text AS account_id,
           c.project_id::text AS project_id, c.node_id::text AS node_id,
           c.subscription_credits::bigint AS subscription_credits, c.wallet_credits::bigint AS wallet_credits
    INTO item
    FROM {makegood_items} i
    JOIN {charges} c ON c.id OPERATOR(pg_catalog.=) i.charge_id
    WHERE i.charge_id OPERATOR(pg_catalog.=) makegood_store_output.charge_id
      AND i.output_index OPERATOR(pg_catalog.=) makegood_store_output.output_index;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'makegood_store_output: there is no item %/%', makegood_store_output.charge_id, makegood_store_output.output_index
            USING ERRCODE = 'no_data_found';
    END IF;
    job := coalesce(makegood_store_output.provider_job_id, item.provider_job_id);
    job_output := coalesce(makegood_store_output.provider_output_index, item.provider_output_index, 0::bigint);
    IF job IS NULL THEN
        RAISE EXCEPTION 'makegood_store_output: item %/% has no provider job on record: name it (provider_job_id)', makegood_store_output.charge_id, makegood_store_output.output_index
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF item.provider_job_id IS NOT NULL AND (job <> item.provider_job_id OR job_output <> item.provider_output_index) THEN
        RAISE EXCEPTION 'makegood_store_output: item %/% was bought as output % of job %, not as output % of job %',
            makegood_store_output.charge_id, makegood_store_output.output_index, item.provider_output_index, item.provider_job_id, job_output, job
            USING ERRCODE = 'invalid_parameter_value';
    END IF;

    -- Settle's lock of the charge. Every statement after this one sees what was committed before it
    -- was ours.
    INSERT INTO {makegood_charges} AS m (charge_id, account_id, subscription_drawn, wallet_drawn)
    VALUES (makegood_store_output.charge_id, item.account_id, greatest(item.subscription_credits, 0::bigint),
            greatest(item.wallet_credits, 0::bigint))
    ON CONFLICT (charge_id) DO UPDATE SET charge_id = excluded.charge_id;

    IF EXISTS (SELECT 1 FROM {makegood_deliveries} d
               WHERE d.charge_id OPERATOR(pg_catalog.=) makegood_store_output.charge_id
                 AND d.output_index OPERATOR(pg_catalog.=) makegood_store_output.output_index) THEN
        RETURN 'already_there';
    END IF;
    at := clock_timestamp();
    INSERT INTO {stored_outputs} (id, charge_id, output_index, provider, provider_job_id, provider_output_index, project_id, node_id,
                                  uri, content_type, size_bytes, sha256, stored_at)
    VALUES (makegood_store_output.output_id, makegood_store_output.charge_id, makegood_store_output.output_index, item.provider,
            job, job_output, item.project_id, item.node_id, makegood_store_output.uri, makegood_store_output.content_type,
            makegood_store_output.size_bytes, makegood_store_output.sha256, at);

    SELECT r.id, r.provider, r.model, o.id AS orphan_id
    INTO refund
    FROM {makegood_refunds} r
    JOIN {makegood_orphans} o ON o.charge_id = r.charge_id AND o.output_index = r.output_index
    WHERE r.charge_id = makegood_store_output.charge_id AND r.output_index = makegood_store_output.output_index;
    IF NOT FOUND THEN
        RETURN 'stored';
    END IF;
    INSERT INTO {makegood_orphan_events} (orphan_id, charge_id, output_index, at, kind, detail)
    VALUES (refund.orphan_id, makegood_store_output.charge_id, makegood_store_output.output_index, at, 'stored_late',
            'output ' || makegood_store_output.output_id || ' was stored after the refund');
    INSERT INTO {makegood_late_successes} (charge_id, output_index, refund_id, kind, provider, model, provider_job_id, noticed_at,
                                           noticed_by, stored_output_id)
    VALUES (makegood_store_output.charge_id, makegood_store_output.output_index, refund.id, 'stored_late', refund.provider,
            refund.model, job, at, 'makegood_store_output', makegood_store_output.output_id)
    ON CONFLICT (charge_id, output_index) DO NOTHING;
    IF FOUND THEN
        INSERT INTO {makegood_counters} AS c (metric, label_a, label_b, value)
        VALUES ('late_successes', refund.provider, 'stored_late', 1)
        ON CONFLICT (metric, label_a, label_b) DO UPDATE SET value = c.value + 1::bigint;
    END IF;
    RETURN 'stored_late';
END
$$
$definition$);
