-- The ledger: jobs, their shards, the batches that are done, and the rows that failed.
-- It grows with shards, batches and failures, never with rows that succeeded.

CREATE TABLE pipelinejob.jobs (
    uid            uuid PRIMARY KEY,
    namespace      text NOT NULL,
    name           text NOT NULL,
    phase          text NOT NULL,
    reason         text,
    message        text,
    spec           jsonb NOT NULL,
    functions      jsonb NOT NULL,              -- as run: params with defaults, digests
    digest         text NOT NULL,               -- of source, functions, output, seed, batchRows
    status         jsonb NOT NULL DEFAULT '{}',
    data_root      text NOT NULL,               -- real path of the data root
    output         text NOT NULL,               -- output folder relative to its root
    output_root    text NOT NULL,               -- real path of the folder that holds outputs
    row_limit      bigint,
    round          integer NOT NULL DEFAULT 0,
    stop           text,                        -- why no new batch may start: cancel
    input          jsonb,                       -- as planned: csv, rows, bytes, sha256, mtime_ns, columns
    input_digest   text,
    rows_total     bigint NOT NULL DEFAULT 0,
    rows_succeeded bigint NOT NULL DEFAULT 0,
    rows_filtered  bigint NOT NULL DEFAULT 0,
    rows_skipped   bigint NOT NULL DEFAULT 0,
    rows_failed    bigint NOT NULL DEFAULT 0,
    created_at     timestamptz NOT NULL DEFAULT now(),
    started_at     timestamptz,
    finished_at    timestamptz,
    UNIQUE (namespace, name)
);

CREATE TABLE pipelinejob.shards (
    job_uid    uuid NOT NULL REFERENCES pipelinejob.jobs ON DELETE CASCADE,
    index      integer NOT NULL,
    first_row  bigint NOT NULL,
    rows       bigint NOT NULL,
    byte_start bigint NOT NULL,
    byte_end   bigint NOT NULL,
    batch_ends bigint[] NOT NULL,               -- exclusive end offset of each batch
    batch_checksums bigint[] NOT NULL,          -- xxh3 of each batch's bytes: rows of an edited file are never mixed in
    open       boolean NOT NULL DEFAULT false,
    round      integer NOT NULL DEFAULT 0,
    succeeded  bigint NOT NULL DEFAULT 0,
    filtered   bigint NOT NULL DEFAULT 0,
    skipped    bigint NOT NULL DEFAULT 0,
    failed     bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (job_uid, index)
);

CREATE TABLE pipelinejob.batches (
    job_uid       uuid NOT NULL REFERENCES pipelinejob.jobs ON DELETE CASCADE,
    first_row     bigint NOT NULL,
    shard         integer NOT NULL,
    attempt       text NOT NULL,
    rows          bigint NOT NULL,
    succeeded     bigint NOT NULL,
    filtered      bigint NOT NULL,
    skipped       bigint NOT NULL,
    failed        bigint NOT NULL,
    images        bigint NOT NULL,
    bytes         bigint NOT NULL,
    images_sha256 text NOT NULL,
    inputs_sha256 text NOT NULL,
    columns       jsonb NOT NULL,               -- [position, function, column] of what functions returned
    recorded_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job_uid, first_row)
);

CREATE TABLE pipelinejob.failed_rows (
    job_uid    uuid NOT NULL REFERENCES pipelinejob.jobs ON DELETE CASCADE,
    row        bigint NOT NULL,
    id         text NOT NULL,
    reason     text NOT NULL,
    function   text NOT NULL,
    message    text NOT NULL,
    attempts   integer NOT NULL DEFAULT 1,
    byte_start bigint NOT NULL,                 -- of the row's batch
    byte_end   bigint NOT NULL,
    PRIMARY KEY (job_uid, row)
);
CREATE INDEX failed_rows_by_reason ON pipelinejob.failed_rows (job_uid, reason, row);

-- Records finished batches of one shard, and answers what the worker does next: go, closed (this round is over) or
-- stop (start no new batch). A batch that is recorded already changes nothing, whoever recorded it.
-- It touches rows of its own shard only, so that workers never wait for each other.
CREATE FUNCTION pipelinejob.record_batches_v1(p_job uuid, p_shard integer, p_round integer, p_batches jsonb)
RETURNS text LANGUAGE plpgsql SET search_path = pipelinejob, pg_temp AS $$
DECLARE
    why text;
BEGIN
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
REVOKE ALL ON FUNCTION pipelinejob.record_batches_v1 FROM PUBLIC;
