-- The ledger of a cluster: a job's pods log in with a role of their own, `plj_<uid without dashes>`, which can read no
-- table. What a pod needs is a function here; each first asks check_job whether the caller may speak for that job.
-- A released function keeps its name, arguments and meaning: pods of an older image call it after an upgrade.

ALTER TABLE pipelinejob.jobs
    ADD COLUMN generation bigint,                    -- metadata.generation of the object in the cluster; null: a laptop's job
    ADD COLUMN image      text,                      -- the worker image of all its pods
    ADD COLUMN problem    jsonb,                     -- (stage, reason, message): what the first pod to fail in this round said
    ADD COLUMN round_done bigint NOT NULL DEFAULT 0, -- rows that were done when the round was opened
    ADD COLUMN deleted_at timestamptz,
    DROP CONSTRAINT jobs_namespace_name_key;
CREATE UNIQUE INDEX jobs_by_name ON pipelinejob.jobs (namespace, name) WHERE deleted_at IS NULL;
COMMENT ON COLUMN pipelinejob.jobs.stop IS 'why no new batch may start: suspend, cancel, budget, deleted';

ALTER TABLE pipelinejob.shards ADD COLUMN position integer; -- its completion index in the round

CREATE TABLE pipelinejob.settings (name text PRIMARY KEY, value text NOT NULL);

-- Raises unless the session belongs to this very job, or to the owner of the ledger. Runs inside functions with the
-- owner's rights, where current_user is the owner and session_user is whoever logged in.
CREATE FUNCTION pipelinejob.check_job(p_job uuid) RETURNS void LANGUAGE plpgsql SET search_path = pipelinejob, pg_temp AS $$
BEGIN
    IF session_user = 'plj_' || replace(p_job::text, '-', '') OR pg_has_role(session_user, current_user, 'MEMBER') THEN
        RETURN;
    END IF;
    RAISE insufficient_privilege USING MESSAGE = format('%s may not speak for the job %s', session_user, p_job);
END
$$;

CREATE FUNCTION pipelinejob.job_v1(p_job uuid) RETURNS SETOF pipelinejob.jobs
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_job(p_job);
    SELECT * FROM jobs j WHERE j.uid = p_job;
$$;

-- Why the job is to stop: null means go on.
CREATE FUNCTION pipelinejob.stop_reason_v1(p_job uuid) RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_job(p_job);
    SELECT CASE WHEN count(*) = 0 THEN 'deleted' ELSE max(j.stop) END FROM jobs j WHERE j.uid = p_job;
$$;

-- The planned job of the same claim whose output is equal to, inside or above the output of this one.
CREATE FUNCTION pipelinejob.overlapping_output_v1(p_job uuid) RETURNS TABLE (name text, output text)
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_job(p_job);
    SELECT o.name, o.output
    FROM jobs j JOIN jobs o ON o.uid <> j.uid AND o.namespace = j.namespace AND o.output_root = j.output_root
        AND o.spec->'data' IS NOT DISTINCT FROM j.spec->'data'
    WHERE j.uid = p_job AND o.deleted_at IS NULL AND o.input IS NOT NULL AND o.spec->>'mode' IS DISTINCT FROM 'plan'
        AND (starts_with(o.output || '/', j.output || '/') OR starts_with(j.output || '/', o.output || '/'))
    ORDER BY o.created_at LIMIT 1;
$$;

-- Whether the job of that uid is an earlier one of the same name, deleted since, so that its output may be moved away.
CREATE FUNCTION pipelinejob.is_predecessor_v1(p_job uuid, p_other uuid) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_job(p_job);
    SELECT EXISTS (SELECT FROM jobs j WHERE j.uid = p_job AND j.deleted_at IS NULL)
        AND NOT EXISTS (SELECT FROM jobs o WHERE o.uid = p_other AND o.deleted_at IS NULL);
$$;

-- The three parts of storing a plan, called in one transaction. False: it is stored already, by whoever did it first.
CREATE FUNCTION pipelinejob.begin_plan_v1(p_job uuid) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
BEGIN
    PERFORM check_job(p_job);
    PERFORM 1 FROM jobs j WHERE j.uid = p_job AND j.input IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM shards s WHERE s.job_uid = p_job;
    RETURN true;
END
$$;

CREATE FUNCTION pipelinejob.add_shards_v1(p_job uuid, p_shards jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_job(p_job);
    INSERT INTO shards (job_uid, index, first_row, rows, byte_start, byte_end, batch_ends, batch_checksums)
    SELECT p_job, s.index, s.first_row, s.rows, s.byte_start, s.byte_end, s.batch_ends, s.batch_checksums
    FROM jobs j, jsonb_to_recordset(p_shards) AS s(index integer, first_row bigint, rows bigint, byte_start bigint,
        byte_end bigint, batch_ends bigint[], batch_checksums bigint[])
    WHERE j.uid = p_job AND j.input IS NULL;
$$;

CREATE FUNCTION pipelinejob.finish_plan_v1(p_job uuid, p_input jsonb, p_rows bigint, p_functions jsonb, p_digest text)
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_job(p_job);
    UPDATE jobs j SET input = p_input, input_digest = p_input->>'sha256', rows_total = p_rows,
        functions = coalesce(p_functions, j.functions), digest = coalesce(p_digest, j.digest)
    WHERE j.uid = p_job AND j.input IS NULL;
$$;

-- The unfinished shard that comes after that index, with the first rows of its batches that are recorded.
CREATE FUNCTION pipelinejob.unfinished_shard_v1(p_job uuid, p_after integer)
RETURNS TABLE (index integer, first_row bigint, rows bigint, byte_start bigint, batch_ends bigint[],
               batch_checksums bigint[], recorded bigint[])
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_job(p_job);
    SELECT s.index, s.first_row, s.rows, s.byte_start, s.batch_ends, s.batch_checksums,
        ARRAY(SELECT b.first_row FROM batches b
              WHERE b.job_uid = p_job AND b.first_row >= s.first_row AND b.first_row < s.first_row + s.rows)
    FROM shards s
    WHERE s.job_uid = p_job AND s.index > p_after AND s.succeeded + s.filtered + s.skipped + s.failed < s.rows
    ORDER BY s.index LIMIT 1;
$$;

-- The shard of a completion index, as long as its round is open.
CREATE FUNCTION pipelinejob.shard_at_v1(p_job uuid, p_round integer, p_position integer)
RETURNS TABLE (index integer, first_row bigint, rows bigint, byte_start bigint, batch_ends bigint[],
               batch_checksums bigint[], recorded bigint[])
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_job(p_job);
    SELECT s.index, s.first_row, s.rows, s.byte_start, s.batch_ends, s.batch_checksums,
        ARRAY(SELECT b.first_row FROM batches b
              WHERE b.job_uid = p_job AND b.first_row >= s.first_row AND b.first_row < s.first_row + s.rows)
    FROM shards s WHERE s.job_uid = p_job AND s.round = p_round AND s.position = p_position AND s.open;
$$;

CREATE FUNCTION pipelinejob.shard_finished_v1(p_job uuid, p_shard integer) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_job(p_job);
    SELECT EXISTS (SELECT FROM shards s WHERE s.job_uid = p_job AND s.index = p_shard
                   AND s.succeeded + s.filtered + s.skipped + s.failed = s.rows);
$$;

-- The shard that each of these rows is in; rows of no shard are left out.
CREATE FUNCTION pipelinejob.shards_of_v1(p_job uuid, p_rows bigint[]) RETURNS TABLE (row_number bigint, index integer)
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_job(p_job);
    SELECT r.row_number, s.index FROM unnest(p_rows) AS r(row_number)
    JOIN shards s ON s.job_uid = p_job AND r.row_number >= s.first_row AND r.row_number < s.first_row + s.rows;
$$;

-- Which of the batches that start at these rows are recorded.
CREATE FUNCTION pipelinejob.recorded_v1(p_job uuid, p_first_rows bigint[]) RETURNS TABLE (first_row bigint)
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_job(p_job);
    SELECT b.first_row FROM batches b WHERE b.job_uid = p_job AND b.first_row = ANY (p_first_rows);
$$;

CREATE FUNCTION pipelinejob.close_round_v1(p_job uuid) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_job(p_job);
    UPDATE shards s SET open = false WHERE s.job_uid = p_job AND s.open;
$$;

-- Adds up the shards into the job's counts.
CREATE FUNCTION pipelinejob.update_counts_v1(p_job uuid)
RETURNS TABLE (rows_total bigint, shards bigint, begun bigint, finished bigint,
               succeeded bigint, filtered bigint, skipped bigint, failed bigint)
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_job(p_job);
    WITH n AS (
        SELECT count(*) AS shards, count(*) FILTER (WHERE s.done > 0 AND s.done < s.rows) AS begun,
            count(*) FILTER (WHERE s.done = s.rows) AS finished,
            coalesce(sum(s.succeeded), 0)::bigint AS succeeded, coalesce(sum(s.filtered), 0)::bigint AS filtered,
            coalesce(sum(s.skipped), 0)::bigint AS skipped, coalesce(sum(s.failed), 0)::bigint AS failed
        FROM (SELECT *, succeeded + filtered + skipped + failed AS done FROM shards WHERE job_uid = p_job) s
    )
    UPDATE jobs j SET rows_succeeded = n.succeeded, rows_filtered = n.filtered, rows_skipped = n.skipped, rows_failed = n.failed
    FROM n WHERE j.uid = p_job
    RETURNING j.rows_total, n.shards, n.begun, n.finished, n.succeeded, n.filtered, n.skipped, n.failed;
$$;

CREATE FUNCTION pipelinejob.batches_v1(p_job uuid, p_after bigint, p_most integer) RETURNS SETOF pipelinejob.batches
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_job(p_job);
    SELECT * FROM batches b WHERE b.job_uid = p_job AND b.first_row > p_after ORDER BY b.first_row LIMIT p_most;
$$;

CREATE FUNCTION pipelinejob.failures_v1(p_job uuid, p_after bigint, p_reason text, p_most integer)
RETURNS SETOF pipelinejob.failed_rows LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_job(p_job);
    SELECT * FROM failed_rows f WHERE f.job_uid = p_job AND f.row > p_after AND (p_reason IS NULL OR f.reason = p_reason)
    ORDER BY f.row LIMIT p_most;
$$;

-- [position, function, column] of everything that functions returned.
CREATE FUNCTION pipelinejob.function_columns_v1(p_job uuid) RETURNS TABLE (value jsonb)
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_job(p_job);
    SELECT DISTINCT c.value FROM batches b, jsonb_array_elements(b.columns) AS c(value) WHERE b.job_uid = p_job;
$$;

-- What went wrong in a pod; the first report of a round stands.
CREATE FUNCTION pipelinejob.report_v1(p_job uuid, p_stage text, p_reason text, p_message text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_job(p_job);
    UPDATE jobs j SET problem = jsonb_build_object('stage', p_stage, 'reason', p_reason, 'message', left(p_message, 4000))
    WHERE j.uid = p_job AND j.problem IS NULL;
$$;

-- As before; a job's role may call it now.
CREATE OR REPLACE FUNCTION pipelinejob.record_batches_v1(p_job uuid, p_shard integer, p_round integer, p_batches jsonb)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
DECLARE
    why text;
BEGIN
    PERFORM check_job(p_job);
    PERFORM 1 FROM shards s WHERE s.job_uid = p_job AND s.index = p_shard AND s.open AND s.round = p_round FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'closed';
    END IF;
    WITH given AS (
        SELECT b.* FROM jsonb_to_recordset(p_batches) AS b(
            first_row bigint, attempt text, rows bigint, succeeded bigint, filtered bigint, skipped bigint,
            failed bigint, images bigint, bytes bigint, images_sha256 text, inputs_sha256 text, columns jsonb,
            byte_start bigint, byte_end bigint, failures jsonb)
    ), fresh AS (
        INSERT INTO batches (job_uid, first_row, shard, attempt, rows, succeeded, filtered, skipped, failed, images,
                             bytes, images_sha256, inputs_sha256, columns)
        SELECT p_job, first_row, p_shard, attempt, rows, succeeded, filtered, skipped, failed, images,
               bytes, images_sha256, inputs_sha256, columns
        FROM given
        ON CONFLICT DO NOTHING
        RETURNING first_row
    ), failures AS (
        INSERT INTO failed_rows (job_uid, row, id, reason, function, message, byte_start, byte_end)
        SELECT p_job, f.row, f.id, f.reason, f.function, f.message, g.byte_start, g.byte_end
        FROM given g JOIN fresh USING (first_row),
             jsonb_to_recordset(g.failures) AS f(row bigint, id text, reason text, function text, message text)
    )
    UPDATE shards s
    SET succeeded = s.succeeded + n.succeeded, filtered = s.filtered + n.filtered,
        skipped = s.skipped + n.skipped, failed = s.failed + n.failed
    FROM (SELECT coalesce(sum(g.succeeded), 0) AS succeeded, coalesce(sum(g.filtered), 0) AS filtered,
                 coalesce(sum(g.skipped), 0) AS skipped, coalesce(sum(g.failed), 0) AS failed
          FROM given g JOIN fresh USING (first_row)) n
    WHERE s.job_uid = p_job AND s.index = p_shard;
    SELECT stop INTO why FROM jobs WHERE uid = p_job;
    RETURN CASE WHEN why IS NULL THEN 'go' ELSE 'stop' END;
END
$$;

-- The operator's tick: the counts of all unfinished jobs of the cluster by one statement, which also writes them where
-- they changed and stops a job whose failure budget is broken. The percentage is judged from 1,000 rows that ran.
CREATE FUNCTION pipelinejob.totals_v1()
RETURNS TABLE (uid uuid, rows_total bigint, shards bigint, begun bigint, finished bigint,
               succeeded bigint, filtered bigint, skipped bigint, failed bigint)
LANGUAGE sql SET search_path = pipelinejob, pg_temp AS $$
    WITH n AS MATERIALIZED (
        SELECT j.uid, count(s.job_uid) AS shards, count(*) FILTER (WHERE s.done > 0 AND s.done < s.rows) AS begun,
            count(*) FILTER (WHERE s.done = s.rows) AS finished,
            coalesce(sum(s.succeeded), 0)::bigint AS succeeded, coalesce(sum(s.filtered), 0)::bigint AS filtered,
            coalesce(sum(s.skipped), 0)::bigint AS skipped, coalesce(sum(s.failed), 0)::bigint AS failed
        FROM jobs j
        LEFT JOIN (SELECT *, succeeded + filtered + skipped + failed AS done FROM shards) s ON s.job_uid = j.uid
        WHERE j.generation IS NOT NULL AND j.deleted_at IS NULL AND j.phase NOT IN ('Complete', 'Failed', 'Cancelled')
        GROUP BY j.uid
    ), judged AS MATERIALIZED (
        SELECT n.*, j.rows_total, j.stop IS NULL AND (
                n.failed > (j.spec->'failurePolicy'->>'maxFailedRows')::bigint
                OR n.succeeded + n.skipped + n.failed >= 1000
                AND 100 * n.failed::float8 / nullif(n.succeeded + n.skipped + n.failed, 0)
                    > coalesce((j.spec->'failurePolicy'->>'maxFailedRowsPercent')::float8, 5)) IS TRUE AS broken
        FROM n JOIN jobs j USING (uid)
    ), written AS (
        UPDATE jobs j SET rows_succeeded = n.succeeded, rows_filtered = n.filtered, rows_skipped = n.skipped,
            rows_failed = n.failed, stop = CASE WHEN n.broken AND j.stop IS NULL THEN 'budget' ELSE j.stop END
        FROM judged n
        WHERE j.uid = n.uid AND (n.broken OR (j.rows_succeeded, j.rows_filtered, j.rows_skipped, j.rows_failed)
            IS DISTINCT FROM (n.succeeded, n.filtered, n.skipped, n.failed))
    )
    SELECT n.uid, n.rows_total, n.shards, n.begun, n.finished, n.succeeded, n.filtered, n.skipped, n.failed FROM judged n;
$$;
