-- Ends that round and those before it: a process that outlived its node closes no later one.
CREATE FUNCTION pipelinejob.close_round_v2(p_job uuid, p_round integer) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_job(p_job);
    UPDATE shards s SET open = false WHERE s.job_uid = p_job AND s.open AND s.round <= p_round;
$$;

DROP FUNCTION pipelinejob.close_round_v1(uuid);

-- Whether the job of that uid is an earlier one of the same name, deleted since; one that this ledger never knew is somebody's.
CREATE OR REPLACE FUNCTION pipelinejob.is_predecessor_v1(p_job uuid, p_other uuid) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_job(p_job);
    SELECT EXISTS (SELECT FROM jobs j WHERE j.uid = p_job AND j.deleted_at IS NULL)
        AND EXISTS (SELECT FROM jobs o WHERE o.uid = p_other AND o.deleted_at IS NOT NULL);
$$;

-- As before, of running jobs alone: the counts of the others stand still.
CREATE OR REPLACE FUNCTION pipelinejob.totals_v1()
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
        WHERE j.generation IS NOT NULL AND j.deleted_at IS NULL AND j.phase = 'Running'
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
