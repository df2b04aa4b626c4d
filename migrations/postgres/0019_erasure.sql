-- Erasure: what providers and people have written about a case can be set to null, by account or by
-- age, through makegood_erase alone. Evidence may hold prompts and personal data.
--
-- Erased: code, message, request and excerpt of answers, detail of events, reports of passes, the
-- last message of a provider. What stays proves each refund: verdict, class, HTTP status, time and
-- job of the answer, reason, rule, who decided, amounts, accounts, ledger ids, and content_sha256,
-- a SHA-256 of the erased text that was written with the row. Null: the row is older than this
-- migration, or had no text.
--
-- Each portion writes a row in makegood_erasures in its own transaction, and each erased row names
-- it. A trigger refuses every other UPDATE, and this one too unless the owner of the table makes
-- it: the role of the passes can update makegood_passes.

CREATE TABLE makegood_erasures (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    erased_at         timestamptz NOT NULL,
    by_whom           text NOT NULL CHECK (by_whom <> ''),
    reason            text NOT NULL CHECK (reason <> ''),
    account_id        text,
    older_than        timestamptz,
    answers           bigint NOT NULL CHECK (answers >= 0),
    events            bigint NOT NULL CHECK (events >= 0),
    pass_reports      bigint NOT NULL CHECK (pass_reports >= 0),
    provider_messages bigint NOT NULL CHECK (provider_messages >= 0),
    CONSTRAINT by_account_or_by_age CHECK ((account_id IS NULL) <> (older_than IS NULL))
);
COMMENT ON TABLE makegood_erasures IS
    'A portion of evidence that a person had erased: who, why, by account or age, how many rows.';
COMMENT ON COLUMN makegood_erasures.older_than IS
    'What was written before this time was erased; null: it went by account_id.';
CREATE TRIGGER only_added_to BEFORE UPDATE OR DELETE ON makegood_erasures
    FOR EACH ROW EXECUTE FUNCTION makegood_only_added_to();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON makegood_erasures
    FOR EACH STATEMENT EXECUTE FUNCTION makegood_only_added_to();

ALTER TABLE makegood_answers
    ADD COLUMN content_sha256 text,
    ADD COLUMN erasure_id bigint REFERENCES makegood_erasures;
COMMENT ON COLUMN makegood_answers.content_sha256 IS
    'SHA-256 of json_build_array(code, message, request, excerpt)::text as inserted, in UTF-8.';
COMMENT ON COLUMN makegood_answers.erasure_id IS
    'Who had code, message, request and excerpt erased, and when; null: they stand.';
ALTER TABLE makegood_orphan_events
    ADD COLUMN content_sha256 text,
    ADD COLUMN erasure_id bigint REFERENCES makegood_erasures;
COMMENT ON COLUMN makegood_orphan_events.content_sha256 IS
    'SHA-256 of detail as it was inserted, in UTF-8.';
COMMENT ON COLUMN makegood_orphan_events.erasure_id IS
    'Who had detail erased, and when; null: it stands.';
ALTER TABLE makegood_passes
    ADD COLUMN content_sha256 text,
    ADD COLUMN erasure_id bigint REFERENCES makegood_erasures;
COMMENT ON COLUMN makegood_passes.content_sha256 IS
    'SHA-256 of report as it was written, in UTF-8.';
COMMENT ON COLUMN makegood_passes.erasure_id IS 'Who had report erased, and when; null: it stands.';

-- Hashes are written here, so that neither an older binary leaves them out nor the role of the
-- passes can write others.
CREATE FUNCTION makegood_hash_content() RETURNS trigger
LANGUAGE plpgsql SET search_path TO pg_catalog, pg_temp AS $$
DECLARE
    content text;
BEGIN
    -- An expression may only name columns of the table at hand.
    IF TG_TABLE_NAME = 'makegood_orphan_events' THEN
        content := NEW.detail;
    ELSIF num_nonnulls(NEW.code, NEW.message, NEW.request, NEW.excerpt) > 0 THEN
        content := json_build_array(NEW.code, NEW.message, NEW.request, NEW.excerpt)::text;
    END IF;
    NEW.content_sha256 := encode(sha256(convert_to(content, 'UTF8')), 'hex');
    RETURN NEW;
END
$$;
CREATE TRIGGER hashed BEFORE INSERT ON makegood_answers
    FOR EACH ROW EXECUTE FUNCTION makegood_hash_content();
CREATE TRIGGER hashed BEFORE INSERT ON makegood_orphan_events
    FOR EACH ROW EXECUTE FUNCTION makegood_hash_content();

-- The arguments are the columns that may be erased: all of them at once, once, and nothing else,
-- also of columns that are added later.
CREATE FUNCTION makegood_only_erased() RETURNS trigger
LANGUAGE plpgsql SET search_path TO pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF OLD.erasure_id IS NULL AND NEW.erasure_id IS NOT NULL
           AND to_jsonb(NEW) - TG_ARGV - 'erasure_id'::text
               = to_jsonb(OLD) - TG_ARGV - 'erasure_id'::text
           AND (SELECT count(to_jsonb(NEW) ->> erasable.name) FROM unnest(TG_ARGV) AS erasable(name)) = 0
           AND (SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class c WHERE c.oid = TG_RELID) THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION '% is only ever added to, or erased by makegood_erase (% refused)',
        TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END
$$;
DROP TRIGGER only_added_to ON makegood_answers;
CREATE TRIGGER only_erased BEFORE UPDATE OR DELETE ON makegood_answers
    FOR EACH ROW EXECUTE FUNCTION makegood_only_erased('code', 'message', 'request', 'excerpt');
DROP TRIGGER only_added_to ON makegood_orphan_events;
CREATE TRIGGER only_erased BEFORE UPDATE OR DELETE ON makegood_orphan_events
    FOR EACH ROW EXECUTE FUNCTION makegood_only_erased('detail');

-- A pass writes its report once, when it ends; from then on it stands, or is erased.
CREATE FUNCTION makegood_hash_report() RETURNS trigger
LANGUAGE plpgsql SET search_path TO pg_catalog, pg_temp AS $$
BEGIN
    NEW.content_sha256 := encode(sha256(convert_to(NEW.report, 'UTF8')), 'hex');
    RETURN NEW;
END
$$;
CREATE TRIGGER hashed BEFORE UPDATE ON makegood_passes FOR EACH ROW
    WHEN (OLD.report IS NULL AND NEW.report IS NOT NULL) EXECUTE FUNCTION makegood_hash_report();
CREATE TRIGGER only_erased BEFORE UPDATE ON makegood_passes FOR EACH ROW
    WHEN (NEW.erasure_id IS DISTINCT FROM OLD.erasure_id
          OR OLD.erasure_id IS NOT NULL AND NEW.report IS NOT NULL
          OR OLD.report IS NOT NULL
             AND (NEW.report IS DISTINCT FROM OLD.report
                  OR NEW.content_sha256 IS DISTINCT FROM OLD.content_sha256))
    EXECUTE FUNCTION makegood_only_erased('report');

-- Erases one portion. Takes {account_id or older_than, by, reason, dry_run, table, after_id, rows}
-- and looks at so many rows of one table, by its key: answers, events or passes by age, orphans by
-- account. Returns the last id that it looked at (null: there are no more), what it erased, and
-- what it left because its case is open or held: a person may need it to decide. A dry run erases
-- nothing. Portions run one after the other, and each is a transaction of its caller's.
SELECT makegood_define($definition$
CREATE FUNCTION {home}.makegood_erase(request jsonb)
RETURNS TABLE (last_id bigint, answers bigint, events bigint, pass_reports bigint,
               provider_messages bigint, left_answers bigint, left_events bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path TO {path}
SET enable_seqscan TO off SET enable_hashjoin TO off SET enable_mergejoin TO off AS $$
#variable_conflict use_column
DECLARE
    account text := request ->> 'account_id';
    age timestamptz := (request ->> 'older_than')::timestamptz;
    is_dry boolean := coalesce((request ->> 'dry_run')::boolean, false);
    walked text := request ->> 'table';
    after_id bigint := coalesce((request ->> 'after_id')::bigint, 0::bigint);
    portion bigint := coalesce((request ->> 'rows')::bigint, 1000::bigint);
    of_account bigint[];
    names text[];
    answer_ids bigint[];
    event_ids bigint[];
    pass_ids bigint[];
    erasure bigint;
BEGIN
    left_answers := 0;
    left_events := 0;
    provider_messages := 0;
    IF (account IS NULL) = (age IS NULL) OR coalesce(request ->> 'by', '') = ''
       OR coalesce(request ->> 'reason', '') = '' THEN
        RAISE EXCEPTION 'makegood_erase takes account_id or older_than, and who (by) and why (reason)'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT is_dry THEN
        LOCK TABLE {makegood_erasures} IN SHARE ROW EXCLUSIVE MODE;
    END IF;

    IF account IS NOT NULL AND walked = 'orphans' THEN
        SELECT max(n.id) INTO last_id
        FROM (SELECT o.id FROM {makegood_orphans} o
              WHERE o.id > after_id ORDER BY o.id LIMIT portion) AS n;
        -- The platform may have removed the charge: what makegood kept of it counts too.
        SELECT array_agg(o.id), array_agg(DISTINCT o.charge_id) INTO of_account, names
        FROM {makegood_orphans} o
        WHERE o.id > after_id AND o.id <= last_id
          AND ((SELECT count(*) FROM {charges} c
                WHERE c.id OPERATOR(pg_catalog.=) o.charge_id
                  AND c.account_id OPERATOR(pg_catalog.=) account) > 0
               OR (SELECT count(*) FROM {makegood_charges} m
                   WHERE m.charge_id = o.charge_id AND m.account_id = account) > 0);

        SELECT array_agg(e.id) FILTER (WHERE NOT e.needed), count(*) FILTER (WHERE e.needed)
        INTO event_ids, left_events
        FROM (SELECT e.id, o.state = 'open' OR o.state = 'held' AS needed
              FROM unnest(of_account) AS n(id)
              JOIN {makegood_orphans} o ON o.id = n.id
              CROSS JOIN LATERAL (SELECT e.id FROM {makegood_orphan_events} e
                                  WHERE e.charge_id = o.charge_id
                                    AND e.output_index = o.output_index
                                    AND e.detail IS NOT NULL
                                  OFFSET 0) AS e) AS e;

        -- Not every answer has an event: one that changed nothing is found by its job.
        SELECT array_agg(a.id) FILTER (WHERE NOT a.needed), count(*) FILTER (WHERE a.needed)
        INTO answer_ids, left_answers
        FROM (SELECT n.id, a.needed
              FROM (SELECT e.answer_id AS id
                    FROM unnest(of_account) AS n(id)
                    JOIN {makegood_orphans} o ON o.id = n.id
                    CROSS JOIN LATERAL (SELECT e.answer_id FROM {makegood_orphan_events} e
                                        WHERE e.charge_id = o.charge_id
                                          AND e.output_index = o.output_index
                                          AND e.answer_id IS NOT NULL
                                        OFFSET 0) AS e
                    UNION
                    SELECT a.id
                    FROM unnest(of_account) AS n(id)
                    JOIN {makegood_orphans} o ON o.id = n.id
                    CROSS JOIN LATERAL (SELECT a.id FROM {makegood_answers} a
                                        WHERE a.provider_job_id = o.provider_job_id
                                          AND a.provider = o.provider
                                        OFFSET 0) AS a) AS n
              CROSS JOIN LATERAL (
                  SELECT (SELECT count(*) FROM {makegood_orphans} o
                          WHERE o.provider_job_id = a.provider_job_id AND o.provider = a.provider
                            AND o.state IN ('open', 'held')) > 0 AS needed
                  FROM {makegood_answers} a
                  WHERE a.id = n.id AND a.erasure_id IS NULL
                    AND num_nonnulls(a.code, a.message, a.request, a.excerpt) > 0
                  OFFSET 0) AS a) AS a;

        -- Reports of passes that worked on these cases and name the account or one of the charges.
        SELECT array_agg(p.id) INTO pass_ids
        FROM (SELECT DISTINCT e.pass_id AS id
              FROM unnest(of_account) AS n(id)
              JOIN {makegood_orphans} o ON o.id = n.id
              CROSS JOIN LATERAL (SELECT e.pass_id FROM {makegood_orphan_events} e
                                  WHERE e.charge_id = o.charge_id
                                    AND e.output_index = o.output_index
                                    AND e.pass_id IS NOT NULL
                                  OFFSET 0) AS e) AS n
        CROSS JOIN LATERAL (SELECT p.id, p.report FROM {makegood_passes} p
                            WHERE p.id = n.id AND p.report IS NOT NULL OFFSET 0) AS p
        WHERE (SELECT count(*)
               -- As JSON spells it, without the quotation marks.
               FROM (SELECT to_json(named.id)::text AS id
                     FROM unnest(array_append(names, account)) AS named(id)) AS named
               WHERE position(substr(named.id, 2, length(named.id) - 2) IN p.report) > 0) > 0;

    ELSIF age IS NOT NULL AND walked = 'answers' THEN
        SELECT max(n.id) INTO last_id
        FROM (SELECT a.id FROM {makegood_answers} a
              WHERE a.id > after_id ORDER BY a.id LIMIT portion) AS n;
        SELECT array_agg(a.id) FILTER (WHERE NOT a.needed), count(*) FILTER (WHERE a.needed)
        INTO answer_ids, left_answers
        FROM (SELECT a.id, (SELECT count(*) FROM {makegood_orphans} o
                            WHERE o.provider_job_id = a.provider_job_id AND o.provider = a.provider
                              AND o.state IN ('open', 'held')) > 0 AS needed
              FROM {makegood_answers} a
              WHERE a.id > after_id AND a.id <= last_id AND a.asked_at < age
                AND a.erasure_id IS NULL
                AND num_nonnulls(a.code, a.message, a.request, a.excerpt) > 0) AS a;

    ELSIF age IS NOT NULL AND walked = 'events' THEN
        SELECT max(n.id) INTO last_id
        FROM (SELECT e.id FROM {makegood_orphan_events} e
              WHERE e.id > after_id ORDER BY e.id LIMIT portion) AS n;
        SELECT array_agg(e.id) FILTER (WHERE NOT e.needed), count(*) FILTER (WHERE e.needed)
        INTO event_ids, left_events
        FROM (SELECT e.id, (SELECT count(*) FROM {makegood_orphans} o
                            WHERE o.id = e.orphan_id AND o.state IN ('open', 'held')) > 0 AS needed
              FROM {makegood_orphan_events} e
              WHERE e.id > after_id AND e.id <= last_id AND e.at < age
                AND e.detail IS NOT NULL) AS e;

    ELSIF age IS NOT NULL AND walked = 'passes' THEN
        SELECT max(n.id) INTO last_id
        FROM (SELECT p.id FROM {makegood_passes} p
              WHERE p.id > after_id ORDER BY p.id LIMIT portion) AS n;
        SELECT array_agg(p.id) INTO pass_ids
        FROM {makegood_passes} p
        WHERE p.id > after_id AND p.id <= last_id AND p.finished_at < age
          AND p.report IS NOT NULL;

    ELSE
        RAISE EXCEPTION 'makegood_erase takes account_id with the table orphans, or older_than with %',
            'one of answers, events and passes' USING ERRCODE = 'invalid_parameter_value';
    END IF;

    answers := coalesce(cardinality(answer_ids), 0);
    events := coalesce(cardinality(event_ids), 0);
    pass_reports := coalesce(cardinality(pass_ids), 0);
    IF NOT is_dry THEN
        -- What a provider said last is a copy of what it said of some job.
        UPDATE {makegood_provider_state} s SET message = NULL
        WHERE s.message IS NOT NULL
          AND (s.asked_at < age
               OR (SELECT count(*) FROM {makegood_answers} a
                   WHERE a.id = ANY (answer_ids) AND a.provider = s.provider
                     AND a.message = s.message) > 0);
        GET DIAGNOSTICS provider_messages = ROW_COUNT;
        IF answers + events + pass_reports + provider_messages > 0 THEN
            INSERT INTO {makegood_erasures} (erased_at, by_whom, reason, account_id, older_than,
                                             answers, events, pass_reports, provider_messages)
            VALUES (clock_timestamp(), request ->> 'by', request ->> 'reason', account, age,
                    makegood_erase.answers, makegood_erase.events, makegood_erase.pass_reports,
                    makegood_erase.provider_messages)
            RETURNING id INTO erasure;
            UPDATE {makegood_answers}
            SET code = NULL, message = NULL, request = NULL, excerpt = NULL, erasure_id = erasure
            WHERE id = ANY (answer_ids);
            UPDATE {makegood_orphan_events} SET detail = NULL, erasure_id = erasure
            WHERE id = ANY (event_ids);
            UPDATE {makegood_passes} SET report = NULL, erasure_id = erasure
            WHERE id = ANY (pass_ids);
        END IF;
    END IF;
    RETURN NEXT;
END
$$
$definition$);

SELECT makegood_define($definition$
COMMENT ON FUNCTION {home}.makegood_erase(jsonb) IS
    'Erases a portion of what was written about cases, and records who ordered it. For people.'
$definition$);

SELECT makegood_define($definition$
REVOKE ALL ON FUNCTION {home}.makegood_erase(jsonb) FROM PUBLIC
$definition$);
