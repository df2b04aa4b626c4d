-- Erasure: what providers and people have written about a case can be set to null, by account or by
-- age, with `makegood erase`. Evidence may hold prompts and personal data.
--
-- Erased: code, message, request and excerpt of answers, detail of events, reports of passes, the
-- last message of a provider. What stays proves each refund: verdict, class, HTTP status, time and
-- job of the answer, reason, rule, who decided, amounts, accounts, ledger ids, and content_sha256,
-- a SHA-256 of the erased text that was written with the row. Null: the row is older than this
-- migration, or had no text.
--
-- Each portion writes a row in makegood_erasures in its own transaction, and each erased row names
-- it. Triggers refuse every other UPDATE.

-- A portion of evidence that a person had erased: who, why, by account or age, how many rows.
-- older_than: what was written before this time was erased; null: it went by account_id.
CREATE TABLE makegood_erasures (
    id                integer PRIMARY KEY AUTOINCREMENT,
    erased_at         integer NOT NULL,
    by_whom           text NOT NULL CHECK (by_whom <> ''),
    reason            text NOT NULL CHECK (reason <> ''),
    account_id        text,
    older_than        integer,
    answers           integer NOT NULL CHECK (answers >= 0),
    events            integer NOT NULL CHECK (events >= 0),
    pass_reports      integer NOT NULL CHECK (pass_reports >= 0),
    provider_messages integer NOT NULL CHECK (provider_messages >= 0),
    CONSTRAINT by_account_or_by_age CHECK ((account_id IS NULL) <> (older_than IS NULL))
) STRICT;
CREATE TRIGGER makegood_erasures_never_changed BEFORE UPDATE ON makegood_erasures
BEGIN SELECT RAISE(ABORT, 'makegood_erasures is only ever added to (UPDATE refused)'); END;
CREATE TRIGGER makegood_erasures_never_removed BEFORE DELETE ON makegood_erasures
BEGIN SELECT RAISE(ABORT, 'makegood_erasures is only ever added to (DELETE refused)'); END;
CREATE TRIGGER makegood_erasures_never_replaced BEFORE INSERT ON makegood_erasures
WHEN EXISTS (SELECT 1 FROM makegood_erasures WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'makegood_erasures is only ever added to (a second row refused)'); END;

-- content_sha256: of code, message, request and excerpt as a JSON array, ["…", null, "…", "…"]; of
-- detail; of report.
ALTER TABLE makegood_answers ADD COLUMN content_sha256 text;
ALTER TABLE makegood_answers ADD COLUMN erasure_id integer REFERENCES makegood_erasures;
ALTER TABLE makegood_orphan_events ADD COLUMN content_sha256 text;
ALTER TABLE makegood_orphan_events ADD COLUMN erasure_id integer REFERENCES makegood_erasures;
ALTER TABLE makegood_passes ADD COLUMN content_sha256 text;
ALTER TABLE makegood_passes ADD COLUMN erasure_id integer REFERENCES makegood_erasures;

-- All that may be erased at once, once, and nothing else. A column that is added later belongs into
-- these conditions.
DROP TRIGGER makegood_answers_never_changed;
CREATE TRIGGER makegood_answers_only_erased BEFORE UPDATE ON makegood_answers
WHEN NOT (OLD.erasure_id IS NULL AND NEW.erasure_id IS NOT NULL
          AND NEW.code IS NULL AND NEW.message IS NULL AND NEW.request IS NULL
          AND NEW.excerpt IS NULL
          AND (NEW.id, NEW.provider, NEW.provider_job_id, NEW.asked_at, NEW.verdict, NEW.offered)
            = (OLD.id, OLD.provider, OLD.provider_job_id, OLD.asked_at, OLD.verdict, OLD.offered)
          AND NEW.class IS OLD.class AND NEW.http_status IS OLD.http_status
          AND NEW.content_sha256 IS OLD.content_sha256)
BEGIN SELECT RAISE(ABORT, 'makegood_answers is only ever added to or erased (UPDATE refused)'); END;
DROP TRIGGER makegood_orphan_events_never_changed;
CREATE TRIGGER makegood_orphan_events_only_erased BEFORE UPDATE ON makegood_orphan_events
WHEN NOT (OLD.erasure_id IS NULL AND NEW.erasure_id IS NOT NULL AND NEW.detail IS NULL
          AND (NEW.id, NEW.orphan_id, NEW.charge_id, NEW.output_index, NEW.at, NEW.kind)
            = (OLD.id, OLD.orphan_id, OLD.charge_id, OLD.output_index, OLD.at, OLD.kind)
          AND NEW.reason IS OLD.reason AND NEW.rule IS OLD.rule AND NEW.answer_id IS OLD.answer_id
          AND NEW.pass_id IS OLD.pass_id AND NEW.lease_token IS OLD.lease_token
          AND NEW.content_sha256 IS OLD.content_sha256)
BEGIN SELECT RAISE(ABORT, 'makegood_orphan_events is only ever added to or erased (UPDATE refused)'); END;

-- A pass writes its report once, when it ends; from then on it stands, or is erased.
CREATE TRIGGER makegood_passes_only_erased BEFORE UPDATE ON makegood_passes
WHEN (NEW.erasure_id IS NOT OLD.erasure_id OR OLD.erasure_id IS NOT NULL AND NEW.report IS NOT NULL
      OR OLD.report IS NOT NULL
         AND (NEW.report IS NOT OLD.report OR NEW.content_sha256 IS NOT OLD.content_sha256))
 AND NOT (OLD.erasure_id IS NULL AND NEW.erasure_id IS NOT NULL AND NEW.report IS NULL
          AND NEW.id = OLD.id AND NEW.mode = OLD.mode AND NEW.started_at = OLD.started_at
          AND NEW.finished_at IS OLD.finished_at AND NEW.outcome IS OLD.outcome
          AND NEW.content_sha256 IS OLD.content_sha256)
BEGIN SELECT RAISE(ABORT, 'makegood_passes: a report is only ever erased (UPDATE refused)'); END;
