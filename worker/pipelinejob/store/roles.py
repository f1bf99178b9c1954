"""A login role for each job of a cluster: it may call the functions of its own job, and nothing else.

Called by the operator alone, whose role owns the ledger and has CREATEROLE; a laptop has no roles.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import uuid
from typing import Any

import psycopg2
from psycopg2 import sql

from pipelinejob.store.connection import Database

GROUP = "plj_worker"
FUNCTIONS = (
    "job_v1",
    "stop_reason_v1",
    "overlapping_output_v1",
    "is_predecessor_v1",
    "begin_plan_v1",
    "add_shards_v1",
    "finish_plan_v1",
    "plan_redrive_v1",
    "unfinished_shard_v1",  # with shard_at_v1 and batches_v1: pods of the release before call them still
    "unfinished_shard_v2",
    "shard_at_v1",
    "shard_at_v2",
    "shard_finished_v1",
    "shards_of_v1",
    "recorded_v1",
    "record_batches_v1",
    "close_round_v2",
    "update_counts_v1",
    "batches_v1",
    "batches_v2",
    "touched_v1",
    "set_images_v1",
    "redrives_v1",
    "failures_v1",
    "function_columns_v1",
    "report_v1",
)
_ITERATIONS = 4096  # of SCRAM, as the server has it by default; the password is random, not guessable

# What a server lets everybody do, and a job's role is better without. Only the owner of the database, or a superuser,
# can take it away; where the operator is neither, the rest stands without it.
_TAKEN_FROM_EVERYBODY = (
    "EXECUTE format('REVOKE TEMPORARY, CREATE ON DATABASE %I FROM PUBLIC', current_database())",
    "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    "FOR f IN SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace"
    " AND p.proname ~ '^pg_(try_)?advisory_' LOOP EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f); END LOOP",
    "FOR f IN SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace"
    " AND p.proname ~ '^(lo_|loread$|lowrite$)' LOOP EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f); END LOOP",
)


def role_name(uid: str) -> str:
    """The login role of a job."""
    return f"plj_{uuid.UUID(uid).hex}"


def setup(database: Database) -> None:
    """Makes the group of the jobs' roles with its grants, and the key of their passwords; again after every upgrade."""
    _create(database, sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(GROUP)))

    def grant(cursor: Any) -> None:
        cursor.execute(sql.SQL("GRANT USAGE ON SCHEMA pipelinejob TO {}").format(sql.Identifier(GROUP)))
        functions = sql.SQL(", ").join(sql.Identifier("pipelinejob", name) for name in FUNCTIONS)
        cursor.execute(sql.SQL("GRANT EXECUTE ON FUNCTION {} TO {}").format(functions, sql.Identifier(GROUP)))
        cursor.execute(
            "INSERT INTO pipelinejob.settings (name, value) VALUES ('worker_key', %s) ON CONFLICT DO NOTHING", (secrets.token_hex(32),)
        )

    database.transaction(grant)
    for statement in _TAKEN_FROM_EVERYBODY:
        denied = "insufficient_privilege OR invalid_schema_name"
        database.query("DO %s", (f"DECLARE f regprocedure; BEGIN {statement}; EXCEPTION WHEN {denied} THEN NULL; END",))


def create_job_role(database: Database, uid: str) -> str:
    """Makes the login role of a job and returns its password, the same one each time.

    The server is sent the password as it stores it, so that no log of statements holds it.
    """
    key = bytes.fromhex(database.query("SELECT value FROM pipelinejob.settings WHERE name = 'worker_key'")[0]["value"])
    password = hmac.new(key, uuid.UUID(uid).bytes, hashlib.sha256).hexdigest()
    salt = hmac.new(key, b"salt" + uuid.UUID(uid).bytes, hashlib.sha256).digest()[:16]
    role = sql.Identifier(role_name(uid))
    _create(database, sql.SQL("CREATE ROLE {} LOGIN").format(role))
    stored = sql.Literal(_stored(password, salt))

    def grant(cursor: Any) -> None:
        cursor.execute(sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(role, stored))
        cursor.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(GROUP), role))

    database.transaction(grant)
    return password


def drop_job_role(database: Database, uid: str) -> None:
    """Removes the login role of a job, if there is one."""
    database.transaction(lambda cursor: cursor.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role_name(uid)))))


def drop_roles_of_ended(database: Database) -> None:
    """Removes the login roles that jobs have left which ended or are deleted; one that is to run again waits for it, and gets a new one.

    A redrive that was deleted before its end keeps its own as long as the job is there whose files it has to write.
    """

    def drop(cursor: Any) -> None:
        cursor.execute(
            "SELECT r.rolname FROM pipelinejob.jobs j JOIN pg_roles r ON r.rolname = 'plj_' || replace(j.uid::text, '-', '')"
            " WHERE j.phase IN ('Complete', 'Failed', 'Cancelled') OR j.deleted_at IS NOT NULL"
            " AND NOT EXISTS (SELECT FROM pipelinejob.jobs o WHERE o.uid = j.root_uid AND o.deleted_at IS NULL) FOR UPDATE OF j"
        )
        for row in cursor.fetchall():
            cursor.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(row["rolname"])))

    database.transaction(drop)


def _create(database: Database, statement: sql.Composed) -> None:
    """There is no CREATE ROLE IF NOT EXISTS, and a role can be made by another process at the same moment."""
    try:
        database.transaction(lambda cursor: cursor.execute(statement))
    except (psycopg2.errors.DuplicateObject, psycopg2.errors.UniqueViolation):
        return


def _stored(password: str, salt: bytes) -> str:
    """A password as a server stores it for SCRAM-SHA-256 (RFC 5803)."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    client = hashlib.sha256(hmac.new(salted, b"Client Key", hashlib.sha256).digest()).digest()
    server = hmac.new(salted, b"Server Key", hashlib.sha256).digest()
    encoded = [base64.b64encode(value).decode() for value in (salt, client, server)]
    return f"SCRAM-SHA-256${_ITERATIONS}:{encoded[0]}${encoded[1]}:{encoded[2]}"
