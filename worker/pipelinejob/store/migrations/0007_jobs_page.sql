-- A page of the jobs, the newest first, without sorting all of them.
CREATE INDEX jobs_by_age ON pipelinejob.jobs (created_at DESC, uid DESC) WHERE deleted_at IS NULL;
