-- How long the steps of a batch took, as its process counted: [[position, bucket, calls, seconds], ...] (timings.py). A batch of an
-- older worker has none.
ALTER TABLE pipelinejob.batches ADD COLUMN timings jsonb;
-- The batches of late are read again and again, for metrics; rows are added in the order of time.
CREATE INDEX batches_by_time ON pipelinejob.batches USING brin (recorded_at);

DROP FUNCTION pipelinejob.given_batches(jsonb);
CREATE FUNCTION pipelinejob.given_batches(p_batches jsonb)
RETURNS TABLE (first_row bigint, attempt text, rows bigint, succeeded bigint, filtered bigint, skipped bigint, failed bigint,
               images bigint, bytes bigint, images_sha256 text, inputs_sha256 text, columns jsonb, byte_start bigint,
               byte_end bigint, failures jsonb, reused bigint, timings jsonb)
LANGUAGE sql IMMUTABLE SET search_path = pipelinejob, pg_temp AS $$
    SELECT b.* FROM jsonb_to_recordset(p_batches) AS b(
        first_row bigint, attempt text, rows bigint, succeeded bigint, filtered bigint, skipped bigint, failed bigint,
        images bigint, bytes bigint, images_sha256 text, inputs_sha256 text, columns jsonb, byte_start bigint,
        byte_end bigint, failures jsonb, reused bigint, timings jsonb);
$$;

-- As before, with `timings`.
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
                             bytes, images_sha256, inputs_sha256, columns, timings)
        SELECT p_job, first_row, p_shard, attempt, rows, succeeded, filtered, skipped, failed, images,
               bytes, images_sha256, inputs_sha256, columns, timings
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
