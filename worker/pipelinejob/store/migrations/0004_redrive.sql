-- A redrive is a job of its own that runs rows of another job, its root, again and into the root's output. Its shards list the
-- root's batches that these rows are in; what it records moves the root's counts and failed rows in the same transaction.

ALTER TABLE pipelinejob.jobs
    ADD COLUMN root_uid  uuid REFERENCES pipelinejob.jobs ON DELETE CASCADE, -- null: no redrive
    ADD COLUMN redrive   integer,               -- its number among the redrives of its root, from 1
    ADD COLUMN selection jsonb;                 -- the rows it takes: (reasons, null for any; pending, whether unrun ones too)
CREATE UNIQUE INDEX jobs_by_root ON pipelinejob.jobs (root_uid, redrive) WHERE root_uid IS NOT NULL;

ALTER TABLE pipelinejob.shards                  -- all four are null in other jobs; `rows` is how many are picked
    ADD COLUMN end_row      bigint,             -- exclusive end of the last batch
    ADD COLUMN homes        bigint[],           -- first row of each batch
    ADD COLUMN batch_starts bigint[],
    ADD COLUMN picked       bigint[];           -- the rows to run

-- Raises unless the session may speak for this job, or for a redrive of it, which reads its records to write its files.
CREATE FUNCTION pipelinejob.check_reader(p_job uuid) RETURNS void LANGUAGE plpgsql SET search_path = pipelinejob, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM jobs j WHERE j.root_uid = p_job AND session_user = 'plj_' || replace(j.uid::text, '-', '')) THEN
        PERFORM check_job(p_job);
    END IF;
END
$$;

-- As before, for redrives, too.
CREATE OR REPLACE FUNCTION pipelinejob.job_v1(p_job uuid) RETURNS SETOF pipelinejob.jobs
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_reader(p_job);
    SELECT * FROM jobs j WHERE j.uid = p_job;
$$;

CREATE OR REPLACE FUNCTION pipelinejob.update_counts_v1(p_job uuid)
RETURNS TABLE (rows_total bigint, shards bigint, begun bigint, finished bigint,
               succeeded bigint, filtered bigint, skipped bigint, failed bigint)
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_reader(p_job);
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

CREATE OR REPLACE FUNCTION pipelinejob.failures_v1(p_job uuid, p_after bigint, p_reason text, p_most integer)
RETURNS SETOF pipelinejob.failed_rows LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_reader(p_job);
    SELECT * FROM failed_rows f WHERE f.job_uid = p_job AND f.row > p_after AND (p_reason IS NULL OR f.reason = p_reason)
    ORDER BY f.row LIMIT p_most;
$$;

CREATE OR REPLACE FUNCTION pipelinejob.function_columns_v1(p_job uuid) RETURNS TABLE (value jsonb)
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_reader(p_job);
    SELECT DISTINCT c.value FROM batches b, jsonb_array_elements(b.columns) AS c(value) WHERE b.job_uid = p_job;
$$;

-- Stores the plan of a redrive: the picked rows by their batches, whole batches together up to about so many rows a shard.
-- Its work grows with the shards of the root that have such rows. Returns how many rows there are; a plan that is there stays.
CREATE FUNCTION pipelinejob.plan_redrive_v1(p_job uuid, p_rows_per_shard bigint, p_functions jsonb, p_digest text)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
DECLARE
    mine     jobs;
    root     jobs;
    size     bigint;
    reasons  text[];
    unrun    boolean;
    total    bigint;
BEGIN
    PERFORM check_job(p_job);
    SELECT * INTO mine FROM jobs j WHERE j.uid = p_job FOR UPDATE;
    IF mine.input IS NOT NULL THEN
        RETURN mine.rows_total;
    END IF;
    SELECT * INTO STRICT root FROM jobs j WHERE j.uid = mine.root_uid;
    size := (root.spec->'sharding'->>'batchRows')::bigint;
    unrun := coalesce((mine.selection->>'pending')::boolean, false);
    SELECT array_agg(r) INTO reasons FROM jsonb_array_elements_text(nullif(mine.selection->'reasons', 'null')) r;
    DELETE FROM shards s WHERE s.job_uid = p_job;
    WITH batch AS MATERIALIZED (
        SELECT s.first_row + (b.n - 1) * size AS home, least(s.first_row + b.n * size, s.first_row + s.rows) AS end_row,
            coalesce(lag(b.byte_end) OVER (PARTITION BY s.index ORDER BY b.n), s.byte_start) AS byte_start, b.byte_end, b.checksum
        FROM shards s, unnest(s.batch_ends, s.batch_checksums) WITH ORDINALITY AS b(byte_end, checksum, n)
        WHERE s.job_uid = root.uid AND (s.failed > 0 OR unrun AND s.succeeded + s.filtered + s.skipped + s.failed < s.rows)
    ), picked AS MATERIALIZED (
        SELECT f.row, f.row / size * size AS home FROM failed_rows f
        WHERE f.job_uid = root.uid AND (reasons IS NULL OR f.reason = ANY (reasons))
        UNION ALL
        SELECT r.row, b.home FROM batch b, generate_series(b.home, b.end_row - 1) AS r(row)
        WHERE unrun AND NOT EXISTS (SELECT FROM batches d WHERE d.job_uid = root.uid AND d.first_row = b.home)
    ), home AS (
        SELECT p.home, count(*) AS rows, (sum(count(*)) OVER (ORDER BY p.home) - count(*))::bigint / p_rows_per_shard AS part
        FROM picked p GROUP BY p.home
    ), numbered AS MATERIALIZED (
        SELECT h.home, h.rows, (dense_rank() OVER (ORDER BY h.part) - 1)::integer AS index FROM home h
    ), rows_of AS (
        SELECT n.index, array_agg(p.row ORDER BY p.row) AS picked FROM picked p JOIN numbered n USING (home) GROUP BY n.index
    )
    INSERT INTO shards (job_uid, index, first_row, end_row, rows, byte_start, byte_end, homes, batch_starts, batch_ends,
                        batch_checksums, picked)
    SELECT p_job, n.index, min(n.home), max(b.end_row), sum(n.rows), min(b.byte_start), max(b.byte_end),
        array_agg(n.home ORDER BY n.home), array_agg(b.byte_start ORDER BY n.home), array_agg(b.byte_end ORDER BY n.home),
        array_agg(b.checksum ORDER BY n.home), r.picked
    FROM numbered n JOIN batch b USING (home) JOIN rows_of r USING (index) GROUP BY n.index, r.picked;
    SELECT coalesce(sum(s.rows), 0) INTO total FROM shards s WHERE s.job_uid = p_job;
    UPDATE jobs j SET input = root.input, input_digest = root.input_digest, rows_total = total,
        functions = coalesce(p_functions, j.functions), digest = coalesce(p_digest, j.digest)
    WHERE j.uid = p_job;
    RETURN total;
END
$$;

-- As version 1, with what a redrive's shard has more.
CREATE FUNCTION pipelinejob.unfinished_shard_v2(p_job uuid, p_after integer)
RETURNS TABLE (index integer, first_row bigint, rows bigint, end_row bigint, byte_start bigint, batch_ends bigint[],
               batch_checksums bigint[], homes bigint[], batch_starts bigint[], picked bigint[], recorded bigint[])
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_reader(p_job);
    SELECT s.index, s.first_row, s.rows, e.row, s.byte_start, s.batch_ends, s.batch_checksums, s.homes, s.batch_starts, s.picked,
        ARRAY(SELECT b.first_row FROM batches b WHERE b.job_uid = p_job AND b.first_row >= s.first_row AND b.first_row < e.row)
    FROM shards s, LATERAL (SELECT coalesce(s.end_row, s.first_row + s.rows)) AS e(row)
    WHERE s.job_uid = p_job AND s.index > p_after AND s.succeeded + s.filtered + s.skipped + s.failed < s.rows
    ORDER BY s.index LIMIT 1;
$$;

CREATE FUNCTION pipelinejob.shard_at_v2(p_job uuid, p_round integer, p_position integer)
RETURNS TABLE (index integer, first_row bigint, rows bigint, end_row bigint, byte_start bigint, batch_ends bigint[],
               batch_checksums bigint[], homes bigint[], batch_starts bigint[], picked bigint[], recorded bigint[])
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_job(p_job);
    SELECT s.index, s.first_row, s.rows, e.row, s.byte_start, s.batch_ends, s.batch_checksums, s.homes, s.batch_starts, s.picked,
        ARRAY(SELECT b.first_row FROM batches b WHERE b.job_uid = p_job AND b.first_row >= s.first_row AND b.first_row < e.row)
    FROM shards s, LATERAL (SELECT coalesce(s.end_row, s.first_row + s.rows)) AS e(row)
    WHERE s.job_uid = p_job AND s.round = p_round AND s.position = p_position AND s.open;
$$;

-- As before, also for the shards of a redrive, in whose range there are rows that are not its own.
CREATE OR REPLACE FUNCTION pipelinejob.shards_of_v1(p_job uuid, p_rows bigint[]) RETURNS TABLE (row_number bigint, index integer)
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_job(p_job);
    SELECT r.row_number, s.index FROM unnest(p_rows) AS r(row_number)
    JOIN shards s ON s.job_uid = p_job AND r.row_number >= s.first_row
        AND r.row_number < coalesce(s.end_row, s.first_row + s.rows);
$$;

-- Which redrives had rows of a batch of their root succeed: [number, how many], in order.
CREATE FUNCTION pipelinejob.redriven(p_root uuid, p_first_row bigint) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pipelinejob, pg_temp AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_array(j.redrive, r.succeeded) ORDER BY j.redrive), '[]')
    FROM jobs j JOIN batches r ON r.job_uid = j.uid AND r.first_row = p_first_row AND r.succeeded > 0
    WHERE j.root_uid = p_root;
$$;

-- As version 1, with what redrives did.
CREATE FUNCTION pipelinejob.batches_v2(p_job uuid, p_after bigint, p_most integer)
RETURNS TABLE (first_row bigint, rows bigint, succeeded bigint, images bigint, bytes bigint, images_sha256 text,
               inputs_sha256 text, redriven jsonb)
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_reader(p_job);
    SELECT b.first_row, b.rows, b.succeeded, b.images, b.bytes, b.images_sha256, b.inputs_sha256, redriven(p_job, b.first_row)
    FROM batches b WHERE b.job_uid = p_job AND b.first_row > p_after ORDER BY b.first_row LIMIT p_most;
$$;

-- The root's batches that a shard of a redrive has rows of, also those that nobody has recorded yet (with no rows).
CREATE FUNCTION pipelinejob.touched_v1(p_job uuid, p_shard integer)
RETURNS TABLE (first_row bigint, rows bigint, succeeded bigint, images bigint, bytes bigint, images_sha256 text,
               inputs_sha256 text, redriven jsonb)
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_job(p_job);
    SELECT h.row, coalesce(b.rows, 0), coalesce(b.succeeded, 0), coalesce(b.images, 0), coalesce(b.bytes, 0),
        coalesce(b.images_sha256, ''), coalesce(b.inputs_sha256, ''), redriven(j.root_uid, h.row)
    FROM jobs j JOIN shards s ON s.job_uid = j.uid AND s.index = p_shard CROSS JOIN unnest(s.homes) AS h(row)
    LEFT JOIN batches b ON b.job_uid = j.root_uid AND b.first_row = h.row
    WHERE j.uid = p_job ORDER BY h.row;
$$;

-- What images the root's batches have after a redrive: [first_row, images, bytes, images_sha256] as objects.
CREATE FUNCTION pipelinejob.set_images_v1(p_job uuid, p_batches jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_job(p_job);
    UPDATE batches b SET images = g.images, bytes = g.bytes, images_sha256 = g.images_sha256
    FROM jobs j, jsonb_to_recordset(p_batches) AS g(first_row bigint, images bigint, bytes bigint, images_sha256 text)
    WHERE j.uid = p_job AND b.job_uid = j.root_uid AND b.first_row = g.first_row;
$$;

CREATE FUNCTION pipelinejob.redrives_v1(p_job uuid) RETURNS SETOF pipelinejob.jobs
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_reader(p_job);
    SELECT * FROM jobs j WHERE j.root_uid = p_job ORDER BY j.redrive;
$$;

CREATE FUNCTION pipelinejob.given_batches(p_batches jsonb)
RETURNS TABLE (first_row bigint, attempt text, rows bigint, succeeded bigint, filtered bigint, skipped bigint, failed bigint,
               images bigint, bytes bigint, images_sha256 text, inputs_sha256 text, columns jsonb, byte_start bigint,
               byte_end bigint, failures jsonb)
LANGUAGE sql IMMUTABLE SET search_path = pipelinejob, pg_temp AS $$
    SELECT b.* FROM jsonb_to_recordset(p_batches) AS b(
        first_row bigint, attempt text, rows bigint, succeeded bigint, filtered bigint, skipped bigint, failed bigint,
        images bigint, bytes bigint, images_sha256 text, inputs_sha256 text, columns jsonb, byte_start bigint,
        byte_end bigint, failures jsonb);
$$;

-- Moves the root's counts, batches and failed rows by what a redrive has just recorded.
CREATE FUNCTION pipelinejob.move_root(p_job uuid, p_root uuid, p_shard integer, p_batches jsonb, p_fresh bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = pipelinejob, pg_temp AS $$
DECLARE
    size bigint;
BEGIN
    SELECT (j.spec->'sharding'->>'batchRows')::bigint INTO size FROM jobs j WHERE j.uid = p_root;
    UPDATE shards s
    SET succeeded = s.succeeded + n.succeeded, filtered = s.filtered + n.filtered,
        skipped = s.skipped + n.skipped, failed = s.failed + n.failed - n.had_failed
    FROM (SELECT o.index, sum(g.succeeded) AS succeeded, sum(g.filtered) AS filtered, sum(g.skipped) AS skipped,
                 sum(g.failed) AS failed, sum(CASE WHEN b.job_uid IS NULL THEN 0 ELSE g.rows END) AS had_failed
          FROM given_batches(p_batches) g
          JOIN shards o ON o.job_uid = p_root AND g.first_row >= o.first_row AND g.first_row < o.first_row + o.rows
          LEFT JOIN batches b ON b.job_uid = p_root AND b.first_row = g.first_row
          WHERE g.first_row = ANY (p_fresh) GROUP BY o.index) n
    WHERE s.job_uid = p_root AND s.index = n.index;

    INSERT INTO batches (job_uid, first_row, shard, attempt, rows, succeeded, filtered, skipped, failed, images,
                         bytes, images_sha256, inputs_sha256, columns)
    SELECT p_root, g.first_row, o.index, g.attempt, g.rows, g.succeeded, g.filtered, g.skipped, g.failed, g.images,
           g.bytes, g.images_sha256, g.inputs_sha256, g.columns
    FROM given_batches(p_batches) g
    JOIN shards o ON o.job_uid = p_root AND g.first_row >= o.first_row AND g.first_row < o.first_row + o.rows
    WHERE g.first_row = ANY (p_fresh)
    ON CONFLICT (job_uid, first_row) DO UPDATE
    SET succeeded = batches.succeeded + excluded.succeeded, filtered = batches.filtered + excluded.filtered,
        skipped = batches.skipped + excluded.skipped, failed = batches.failed + excluded.failed - excluded.rows,
        columns = (SELECT coalesce(jsonb_agg(DISTINCT c.value), '[]') FROM jsonb_array_elements(batches.columns || excluded.columns) c);

    DELETE FROM failed_rows f
    USING shards s, unnest(s.picked) AS p(row)
    WHERE s.job_uid = p_job AND s.index = p_shard AND p.row / size * size = ANY (p_fresh) AND f.job_uid = p_root AND f.row = p.row
        AND NOT EXISTS (SELECT FROM given_batches(p_batches) g, jsonb_to_recordset(g.failures) AS again(row bigint)
                        WHERE g.first_row = p.row / size * size AND again.row = p.row);

    INSERT INTO failed_rows (job_uid, row, id, reason, function, message, byte_start, byte_end)
    SELECT p_root, f.row, f.id, f.reason, f.function, f.message, g.byte_start, g.byte_end
    FROM given_batches(p_batches) g,
         jsonb_to_recordset(g.failures) AS f(row bigint, id text, reason text, function text, message text)
    WHERE g.first_row = ANY (p_fresh)
    ON CONFLICT (job_uid, row) DO UPDATE
    SET reason = excluded.reason, function = excluded.function, message = excluded.message, attempts = failed_rows.attempts + 1;
END
$$;

-- As before; what a redrive records counts for its root, too.
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
            skipped = s.skipped + n.skipped, failed = s.failed + n.failed
        FROM (SELECT coalesce(sum(g.succeeded), 0) AS succeeded, coalesce(sum(g.filtered), 0) AS filtered,
                     coalesce(sum(g.skipped), 0) AS skipped, coalesce(sum(g.failed), 0) AS failed
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

-- As before; a redrive shares the output of its root.
CREATE OR REPLACE FUNCTION pipelinejob.overlapping_output_v1(p_job uuid) RETURNS TABLE (name text, output text)
LANGUAGE sql SECURITY DEFINER SET search_path = pipelinejob, pg_temp AS $$
    SELECT check_job(p_job);
    SELECT o.name, o.output
    FROM jobs j JOIN jobs o ON o.uid <> j.uid AND o.namespace = j.namespace AND o.output_root = j.output_root
        AND o.spec->'data' IS NOT DISTINCT FROM j.spec->'data'
    WHERE j.uid = p_job AND o.deleted_at IS NULL AND o.input IS NOT NULL AND o.spec->>'mode' IS DISTINCT FROM 'plan'
        AND o.root_uid IS NULL
        AND (starts_with(o.output || '/', j.output || '/') OR starts_with(j.output || '/', o.output || '/'))
    ORDER BY o.created_at LIMIT 1;
$$;
