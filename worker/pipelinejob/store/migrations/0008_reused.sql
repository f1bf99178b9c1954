-- Rows whose results a job took over from the one that it is incremental of; they count as succeeded, too.
ALTER TABLE pipelinejob.shards ADD COLUMN reused bigint NOT NULL DEFAULT 0;
ALTER TABLE pipelinejob.jobs ADD COLUMN rows_reused bigint NOT NULL DEFAULT 0;

DROP FUNCTION pipelinejob.given_batches(jsonb);
CREATE FUNCTION pipelinejob.given_batches(p_batches jsonb)
RETURNS TABLE (first_row bigint, attempt text, rows bigint, succeeded bigint, filtered bigint, skipped bigint, failed bigint,
               images bigint, bytes bigint, images_sha256 text, inputs_sha256 text, columns jsonb, byte_start bigint,
               byte_end bigint, failures jsonb, reused bigint)
LANGUAGE sql IMMUTABLE SET search_path = pipelinejob, pg_temp AS $$
    SELECT b.* FROM jsonb_to_recordset(p_batches) AS b(
        first_row bigint, attempt text, rows bigint, succeeded bigint, filtered bigint, skipped bigint, failed bigint,
        images bigint, bytes bigint, images_sha256 text, inputs_sha256 text, columns jsonb, byte_start bigint,
        byte_end bigint, failures jsonb, reused bigint);
$$;

-- As before, with `reused`.
CREATE OR REPLACE FUNCTION pipelinejob.record_batches_v1(p_job uuid, p_shard integer, p_round integer, p_batches jsonb)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
DECLARE
    root     uuid;
    recorded bigint[];
    why      text;
BEGIN
    PERFORM check_job(p_job);
    PERFORM 1 FROM shards s WHERE s.job_uid = p_job AND s.index = p_shard AND s.open AND s.round = p_round FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'closed';
    END IF;
    SELECT j.root_uid INTO root FROM jobs j WHERE j.uid = p_job;
    WITH given AS (
        SELECT * FROM given_batches(p_batches)
    ), fresh AS (
        INSERT INTO batches (job_uid, first_row, shard, attempt, rows, succeeded, filtered, skipped, failed, images,
                             bytes, images_sha256, inputs_sha256, columns)
        SELECT p_job, first_row, p_shard, attempt, rows, succeeded, filtered, skipped, failed, images,
               bytes, images_sha256, inputs_sha256, columns
        FROM given
        ON CONFLICT DO NOTHING
        RETURNING first_row
    ), failures AS (
        INSERT INTO failed_rows (job_uid, row, id, reason, function, message, attempts, byte_start, byte_end)
        SELECT p_job, f.row, f.id, f.reason, f.function, f.message,
               coalesce((SELECT o.attempts + 1 FROM failed_rows o WHERE o.job_uid = root AND o.row = f.row), 1),
               g.byte_start, g.byte_end
        FROM given g JOIN fresh USING (first_row),
             jsonb_to_recordset(g.failures) AS f(row bigint, id text, reason text, function text, message text)
    ), counted AS (
        UPDATE shards s
        SET succeeded = s.succeeded + n.succeeded, filtered = s.filtered + n.filtered,
            skipped = s.skipped + n.skipped, failed = s.failed + n.failed, reused = s.reused + n.reused
        FROM (SELECT coalesce(sum(g.succeeded), 0) AS succeeded, coalesce(sum(g.filtered), 0) AS filtered,
                     coalesce(sum(g.skipped), 0) AS skipped, coalesce(sum(g.failed), 0) AS failed,
                     coalesce(sum(g.reused), 0) AS reused
              FROM given g JOIN fresh USING (first_row)) n
        WHERE s.job_uid = p_job AND s.index = p_shard
    )
    SELECT array_agg(first_row) INTO recorded FROM fresh;
    IF root IS NOT NULL AND recorded IS NOT NULL THEN
        PERFORM move_root(p_job, root, p_shard, p_batches, recorded);
    END IF;
    SELECT stop INTO why FROM jobs WHERE uid = p_job;
    RETURN CASE WHEN why IS NULL THEN 'go' ELSE 'stop' END;
END
$$;

-- As before, with `reused`: NULL for a job that is not incremental.
DROP FUNCTION pipelinejob.update_counts_v1(uuid);
CREATE FUNCTION pipelinejob.update_counts_v1(p_job uuid)
RETURNS TABLE (rows_total bigint, shards bigint, begun bigint, finished bigint,
               succeeded bigint, filtered bigint, skipped bigint, failed bigint, reused bigint)
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_reader(p_job);
    WITH n AS (
        SELECT count(*) AS shards, count(*) FILTER (WHERE s.done > 0 AND s.done < s.rows) AS begun,
            count(*) FILTER (WHERE s.done = s.rows) AS finished,
            coalesce(sum(s.succeeded), 0)::bigint AS succeeded, coalesce(sum(s.filtered), 0)::bigint AS filtered,
            coalesce(sum(s.skipped), 0)::bigint AS skipped, coalesce(sum(s.failed), 0)::bigint AS failed,
            coalesce(sum(s.reused), 0)::bigint AS reused
        FROM (SELECT *, succeeded + filtered + skipped + failed AS done FROM shards WHERE job_uid = p_job) s
    )
    UPDATE jobs j SET rows_succeeded = n.succeeded, rows_filtered = n.filtered, rows_skipped = n.skipped, rows_failed = n.failed,
        rows_reused = n.reused
    FROM n WHERE j.uid = p_job
    RETURNING j.rows_total, n.shards, n.begun, n.finished, n.succeeded, n.filtered, n.skipped, n.failed,
        CASE WHEN j.spec->>'incrementalOf' IS NOT NULL THEN n.reused END;
$$;

DROP FUNCTION pipelinejob.totals_v1();
CREATE FUNCTION pipelinejob.totals_v1()
RETURNS TABLE (uid uuid, rows_total bigint, shards bigint, begun bigint, finished bigint,
               succeeded bigint, filtered bigint, skipped bigint, failed bigint, reused bigint)
LANGUAGE sql SET search_path = pipelinejob, pg_temp AS $$
    WITH n AS MATERIALIZED (
        SELECT j.uid, count(s.job_uid) AS shards, count(*) FILTER (WHERE s.done > 0 AND s.done < s.rows) AS begun,
            count(*) FILTER (WHERE s.done = s.rows) AS finished,
            coalesce(sum(s.succeeded), 0)::bigint AS succeeded, coalesce(sum(s.filtered), 0)::bigint AS filtered,
            coalesce(sum(s.skipped), 0)::bigint AS skipped, coalesce(sum(s.failed), 0)::bigint AS failed,
            coalesce(sum(s.reused), 0)::bigint AS reused
        FROM jobs j
        LEFT JOIN (SELECT *, succeeded + filtered + skipped + failed AS done FROM shards) s ON s.job_uid = j.uid
        WHERE j.generation IS NOT NULL AND j.deleted_at IS NULL AND j.phase = 'Running'
        GROUP BY j.uid
    ), judged AS MATERIALIZED (
        SELECT n.*, j.rows_total, j.spec->>'incrementalOf' IS NOT NULL AS incremental, j.stop IS NULL AND (
                n.failed > (j.spec->'failurePolicy'->>'maxFailedRows')::bigint
                OR n.succeeded + n.skipped + n.failed >= 1000
                AND 100 * n.failed::float8 / nullif(n.succeeded + n.skipped + n.failed, 0)
                    > coalesce((j.spec->'failurePolicy'->>'maxFailedRowsPercent')::float8, 5)) IS TRUE AS broken
        FROM n JOIN jobs j USING (uid)
    ), written AS (
        UPDATE jobs j SET rows_succeeded = n.succeeded, rows_filtered = n.filtered, rows_skipped = n.skipped,
            rows_failed = n.failed, rows_reused = n.reused, stop = CASE WHEN n.broken AND j.stop IS NULL THEN 'budget' ELSE j.stop END
        FROM judged n
        WHERE j.uid = n.uid AND (n.broken OR (j.rows_succeeded, j.rows_filtered, j.rows_skipped, j.rows_failed)
            IS DISTINCT FROM (n.succeeded, n.filtered, n.skipped, n.failed))
    )
    SELECT n.uid, n.rows_total, n.shards, n.begun, n.finished, n.succeeded, n.filtered, n.skipped, n.failed,
        CASE WHEN n.incremental THEN n.reused END FROM judged n;
$$;

-- As before; a job whose output another one has taken over has none.
CREATE OR REPLACE FUNCTION pipelinejob.overlapping_output_v1(p_job uuid) RETURNS TABLE (name text, output text)
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_job(p_job);
    SELECT o.name, o.output
    FROM jobs j JOIN jobs o ON o.uid <> j.uid AND o.namespace = j.namespace AND o.output_root = j.output_root
        AND o.spec->'data' IS NOT DISTINCT FROM j.spec->'data'
    WHERE j.uid = p_job AND o.deleted_at IS NULL AND o.input IS NOT NULL AND o.spec->>'mode' IS DISTINCT FROM 'plan'
        AND o.root_uid IS NULL
        AND (o.output <> j.output OR j.spec->>'incrementalOf' IS NULL)
        AND (starts_with(o.output || '/', j.output || '/') OR starts_with(j.output || '/', o.output || '/'))
    ORDER BY o.created_at LIMIT 1;
$$;
