"""What the login role of one job can do on the server: the work of that job, and nothing else."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest
from psycopg2 import sql

from pipelinejob.plan import Shard
from pipelinejob.store import Database, Store, roles
from pipelinejob.store.ledger import Job

DENIED = psycopg2.errors.InsufficientPrivilege


def _database(url: str) -> Database:
    return Database(lambda: url, patience=5, say=lambda _: None)


def _as(url: str, user: str, password: str) -> str:
    """The same server and database for another user; a socket's URL has no host."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.netloc.rpartition('@')[2]}"))


def _job(store: Store, name: str, root: str | None = None) -> Job:
    job = store.insert_job(
        uid=str(uuid.uuid4()),
        namespace="default",
        name=name,
        phase="Planning",
        spec={"sharding": {"batchRows": 10}, "mode": "run"},
        functions=[],
        digest="d",
        data_root="/data",
        output=f"out/{name}",
        output_root="/data",
        generation=1,
        **({"root_uid": root, "redrive": 1, "selection": {"reasons": None, "pending": False}} if root else {}),
    )
    if root:
        return job
    store.save_plan(job.uid, {"sha256": "s"}, 20, lambda: [Shard(0, 0, 20, 3, 203, (103, 203), (11, 12))])
    store.open_round(job.uid)
    return store.get_job(job.uid)


def _batch(first: int) -> dict[str, object]:
    counts = {"rows": 10, "succeeded": 9, "filtered": 0, "skipped": 0, "failed": 1, "images": 9, "bytes": 9}
    digests = {"images_sha256": "x", "inputs_sha256": "y", "columns": [], "byte_start": 3, "byte_end": 103}
    failure = {"row": first, "id": "i", "reason": "ImageInvalid", "function": "", "message": "m"}
    return {"first_row": first, "attempt": "a", **counts, **digests, "failures": [failure]}


class Server:
    """An empty database with two jobs, and a session as the role of the first."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.database = _database(url)
        self.store = Store(self.database)
        roles.setup(self.database)
        self.mine, self.theirs = _job(self.store, "mine"), _job(self.store, "theirs")
        self.password, self.other_password = (roles.create_job_role(self.database, job.uid) for job in (self.mine, self.theirs))
        self.my_url = _as(url, roles.role_name(self.mine.uid), self.password)
        self.my_store = Store(_database(self.my_url), migrated=True)
        self.session = self.connect(self.mine.uid, self.password)

    def connect(self, uid: str, password: str) -> Any:
        connection = psycopg2.connect(_as(self.url, roles.role_name(uid), password))
        connection.autocommit = True
        return connection

    def tries(self, statement: str | sql.Composed, *parameters: object) -> list[tuple[Any, ...]]:
        """Runs a statement as the role of the first job."""
        with self.session.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        self.session.close()
        self.my_store.close()
        for job in (self.mine, self.theirs):
            roles.drop_job_role(self.database, job.uid)
        self.database.close()


@pytest.fixture(scope="module")
def module_database(server: str) -> str:
    name = f"test_{uuid.uuid4().hex[:12]}"
    connection = psycopg2.connect(server)
    connection.autocommit = True
    connection.cursor().execute(f"CREATE DATABASE {name}")
    connection.close()
    return server.replace("/postgres?", f"/{name}?")


@pytest.fixture(scope="module")
def tenant(module_database: str) -> Iterator[Server]:
    server = Server(module_database)
    yield server
    server.close()


def test_it_is_who_it_says(tenant: Server) -> None:
    assert tenant.tries("SELECT session_user, current_user") == [(roles.role_name(tenant.mine.uid),) * 2]


def test_its_own_job_can_be_worked_on(tenant: Server) -> None:
    store, uid = tenant.my_store, tenant.mine.uid
    assert store.get_job(uid).name == "mine"
    shard = store.shard_at(uid, 1, 0)
    assert shard is not None and shard.recorded == frozenset()
    assert store.record(uid, 0, 1, [_batch(0)]) == "go"
    assert store.shards_of(uid, [0, 15]) == {0: 0, 15: 0} and store.recorded(uid, [0, 10]) == {0}
    assert not store.shard_finished(uid, 0) and store.stop_reason(uid) is None
    assert [batch.first_row for batch in store.batches(uid)] == [0] and [row.row for row in store.failures(uid)] == [0]
    assert store.update_counts(uid)[0].pending == 10
    assert store.pending_ranges(uid, 10) == [{"first": 10, "rows": 10}]
    assert store.function_columns(uid) == [] and store.overlapping_output(uid) is None
    assert not store.save_plan(uid, {"sha256": "z"}, 0, lambda: [], [], "d")
    store.report(uid, "shard", "InputChanged", "why")
    assert tenant.store.get_job(uid).problem == {"stage": "shard", "reason": "InputChanged", "message": "why"}


@pytest.mark.parametrize("table", ["jobs", "shards", "batches", "failed_rows", "settings", "migrations"])
@pytest.mark.parametrize("how", ["SELECT * FROM {}", "DELETE FROM {}", "DO 'BEGIN LOCK TABLE {}; END'", "TRUNCATE {}", "COPY {} TO STDOUT"])
def test_no_table_is_open(tenant: Server, table: str, how: str) -> None:
    with pytest.raises(DENIED):
        tenant.tries(how.format(f"pipelinejob.{table}"))


CALLS: dict[str, Callable[[Store, str], object]] = {
    "job_v1": lambda store, uid: store.get_job(uid),
    "stop_reason_v1": lambda store, uid: store.stop_reason(uid),
    "overlapping_output_v1": lambda store, uid: store.overlapping_output(uid),
    "is_predecessor_v1": lambda store, uid: store.is_predecessor(uid, uid),
    "begin_plan_v1": lambda store, uid: store.save_plan(uid, {"sha256": "z"}, 0, lambda: []),
    "add_shards_v1": lambda store, uid: store._db.query("SELECT pipelinejob.add_shards_v1(%s, '[]')", (uid,)),
    "finish_plan_v1": lambda store, uid: store._db.query("SELECT pipelinejob.finish_plan_v1(%s, '{}', 0, null, null)", (uid,)),
    "plan_redrive_v1": lambda store, uid: store.plan_redrive(uid, 10),
    "unfinished_shard_v1": lambda store, uid: store._db.query("SELECT pipelinejob.unfinished_shard_v1(%s, -1)", (uid,)),
    "unfinished_shard_v2": lambda store, uid: list(store.unfinished_shards(uid)),
    "shard_at_v1": lambda store, uid: store._db.query("SELECT pipelinejob.shard_at_v1(%s, 1, 0)", (uid,)),
    "shard_at_v2": lambda store, uid: store.shard_at(uid, 1, 0),
    "shard_finished_v1": lambda store, uid: store.shard_finished(uid, 0),
    "shards_of_v1": lambda store, uid: store.shards_of(uid, [0]),
    "recorded_v1": lambda store, uid: store.recorded(uid, [0]),
    "record_batches_v1": lambda store, uid: store.record(uid, 0, 1, [_batch(0)]),
    "close_round_v2": lambda store, uid: store.close_round(uid, 1),
    "update_counts_v1": lambda store, uid: store.update_counts(uid),
    "batches_v1": lambda store, uid: store._db.query("SELECT pipelinejob.batches_v1(%s, -1, 1)", (uid,)),
    "batches_v2": lambda store, uid: list(store.batches(uid)),
    "touched_v1": lambda store, uid: store.touched(uid, 0),
    "set_images_v1": lambda store, uid: store.set_images(uid, []),
    "redrives_v1": lambda store, uid: store.redrives(uid),
    "failures_v1": lambda store, uid: list(store.failures(uid)),
    "function_columns_v1": lambda store, uid: store.function_columns(uid),
    "report_v1": lambda store, uid: store.report(uid, "shard", "r", "m"),
}


def test_every_granted_function_is_tried_below() -> None:
    assert set(CALLS) == set(roles.FUNCTIONS)


@pytest.mark.parametrize("function", CALLS)
def test_no_function_serves_another_job(tenant: Server, function: str) -> None:
    for uid in (tenant.theirs.uid, str(uuid.uuid4()), None):
        with pytest.raises(DENIED, match="may not speak for the job"):
            CALLS[function](tenant.my_store, uid)  # type: ignore[arg-type]


READ_BY_REDRIVES = (
    "job_v1",
    "unfinished_shard_v2",
    "update_counts_v1",
    "batches_v2",
    "failures_v1",
    "function_columns_v1",
    "redrives_v1",
)


@pytest.fixture(scope="module")
def redrive(tenant: Server) -> Iterator[tuple[Store, str, str]]:
    """(the ledger for a redrive's role, its uid, its root's uid); a row of the root has failed."""
    root = _job(tenant.store, "root").uid
    assert tenant.store.record(root, 0, 1, [_batch(0)]) == "go"
    uid = _job(tenant.store, "root-redrive-1", root=root).uid
    store = Store(_database(_as(tenant.url, roles.role_name(uid), roles.create_job_role(tenant.database, uid))), migrated=True)
    yield store, uid, root
    store.close()
    roles.drop_job_role(tenant.database, uid)


@pytest.mark.parametrize("function", CALLS)
def test_a_redrive_reads_its_root_and_no_more(redrive: tuple[Store, str, str], function: str) -> None:
    store, _, root = redrive
    if function in READ_BY_REDRIVES:
        CALLS[function](store, root)
    else:
        with pytest.raises(DENIED, match="may not speak for the job"):
            CALLS[function](store, root)


def test_a_redrive_moves_its_root_by_what_it_records(tenant: Server, redrive: tuple[Store, str, str]) -> None:
    store, uid, root = redrive
    assert store.plan_redrive(uid, 10) == 1
    number = tenant.store.open_round(uid)
    shard = store.shard_at(uid, number, 0)
    assert shard is not None and (shard.homes, shard.picked) == ([0], [0])
    assert store.touched(uid, 0)[0].succeeded == 9
    good = {**_batch(0), "rows": 1, "succeeded": 1, "failed": 0, "failures": []}
    assert store.record(uid, 0, number, [good]) == "go" == store.record(uid, 0, number, [good])
    assert store.shard_finished(uid, 0) and store.update_counts(root)[0].failed == 0
    assert list(store.failures(root)) == [] and [batch.redriven for batch in store.batches(root)] == [[[1, 1]]]
    store.set_images(uid, [{"first_row": 0, "images": 10, "bytes": 99, "images_sha256": "z"}])
    assert [(batch.images, batch.bytes) for batch in store.batches(root)] == [(10, 99)]


@pytest.mark.parametrize("function", ["totals_v1()", "check_job(null)", "check_reader(null)", "move_root(null, null, 0, '[]', '{}')"])
def test_other_functions_are_not_granted(tenant: Server, function: str) -> None:
    with pytest.raises(DENIED, match="permission denied for function"):
        tenant.tries(f"SELECT pipelinejob.{function}")


def test_a_new_function_is_open_to_nobody(tenant: Server) -> None:
    rows = tenant.database.query(
        "SELECT p.proname AS name FROM pg_proc p WHERE p.pronamespace = 'pipelinejob'::regnamespace"
        " AND has_function_privilege(%s, p.oid, 'EXECUTE')",
        (roles.role_name(tenant.mine.uid),),
    )
    assert {row["name"] for row in rows} == set(roles.FUNCTIONS)


def test_every_function_has_its_search_path(tenant: Server) -> None:
    """A function with the owner's rights must not find a table or an operator of the caller's."""
    rows = tenant.database.query("SELECT proname, proconfig FROM pg_proc WHERE pronamespace = 'pipelinejob'::regnamespace")
    assert {tuple(row["proconfig"] or ()) for row in rows} == {("search_path=pipelinejob, pg_temp",)}


def test_the_queries_of_others_are_hidden(tenant: Server) -> None:
    other = tenant.connect(tenant.theirs.uid, tenant.other_password)
    other.cursor().execute("SELECT 'a secret of theirs'")
    seen = tenant.tries("SELECT query FROM pg_stat_activity WHERE pid = %s", other.info.backend_pid)
    assert seen == [("<insufficient privilege>",)]
    assert not any(
        "secret of theirs" in (query or "") for (query,) in tenant.tries("SELECT query FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    )
    other.close()


@pytest.mark.parametrize("how", ["pg_terminate_backend", "pg_cancel_backend"])
def test_the_sessions_of_others_cannot_be_ended(tenant: Server, how: str) -> None:
    other, owner = tenant.connect(tenant.theirs.uid, tenant.other_password), psycopg2.connect(tenant.url)
    for victim in (other, owner):
        with pytest.raises(DENIED):
            tenant.tries(f"SELECT {how}(%s)", victim.info.backend_pid)
        victim.cursor().execute("SELECT 1")
        victim.close()


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER ROLE {other} PASSWORD 'x'",
        "ALTER ROLE {other} SET statement_timeout = 1",
        "ALTER ROLE {group} SET statement_timeout = 1",
        "ALTER ROLE ALL SET statement_timeout = 1",
        "ALTER DATABASE {database} SET statement_timeout = 1",
        "ALTER SYSTEM SET max_connections = 1",
        "DROP ROLE {other}",
        "CREATE ROLE more",
        "ALTER ROLE {me} SUPERUSER",
        "ALTER ROLE {me} CREATEROLE",
        "GRANT {other} TO {me}",
        "SET ROLE {owner}",
        "SET SESSION AUTHORIZATION {owner}",
        "SET SESSION AUTHORIZATION {other}",
        "SET ROLE {other}",
        "CREATE TABLE public.t (a int)",
        "CREATE TABLE pipelinejob.t (a int)",
        "CREATE TEMP TABLE t (a int)",
        "CREATE SCHEMA mine",
        "CREATE FUNCTION pipelinejob.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "DROP FUNCTION pipelinejob.job_v1",
        "COPY (SELECT 1) TO PROGRAM 'cat'",
        "COPY (SELECT 1) TO '/tmp/f'",
        "SELECT lo_create(0)",
        "SELECT lo_creat(-1)",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT lo_import('/etc/passwd')",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_try_advisory_lock(1, 2)",
        "SELECT pg_advisory_xact_lock_shared(1)",
        "SELECT pg_reload_conf()",
        "SELECT * FROM pg_authid",
    ],
)
def test_refused(tenant: Server, statement: str) -> None:
    names = {
        "me": roles.role_name(tenant.mine.uid),
        "other": roles.role_name(tenant.theirs.uid),
        "group": roles.GROUP,
        "owner": tenant.database.query("SELECT current_user AS name")[0]["name"],
        "database": tenant.database.query("SELECT current_database() AS name")[0]["name"],
    }
    with pytest.raises(DENIED):
        tenant.tries(sql.SQL(statement).format(**{key: sql.Identifier(name) for key, name in names.items()}))


def test_the_password_is_kept_as_the_server_stores_it(tenant: Server) -> None:
    """Where the server asks for passwords (the tests' own trusts its socket), this very one is right."""
    stored = tenant.database.query("SELECT rolpassword AS p FROM pg_authid WHERE rolname = %s", (roles.role_name(tenant.mine.uid),))
    assert stored[0]["p"].startswith("SCRAM-SHA-256$4096:") and tenant.password not in stored[0]["p"]
    assert roles.create_job_role(tenant.database, tenant.mine.uid) == tenant.password != tenant.other_password
    again = tenant.database.query("SELECT rolpassword AS p FROM pg_authid WHERE rolname = %s", (roles.role_name(tenant.mine.uid),))
    assert again == stored
    salt = stored[0]["p"].split("$")[1].partition(":")[2]
    assert _server_key(tenant.password, salt) == stored[0]["p"].rpartition(":")[2]


def _server_key(password: str, salt: str) -> str:
    """RFC 5802, written anew."""
    import base64
    import hashlib
    import hmac

    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), 4096)
    return base64.b64encode(hmac.digest(salted, b"Server Key", "sha256")).decode()


def test_a_dropped_role_cannot_log_in(tenant: Server) -> None:
    uid = _job(tenant.store, "gone").uid
    url = _as(tenant.url, roles.role_name(uid), roles.create_job_role(tenant.database, uid))
    psycopg2.connect(url).close()
    roles.drop_job_role(tenant.database, uid)
    roles.drop_job_role(tenant.database, uid)
    with pytest.raises(psycopg2.OperationalError, match="does not exist"):
        psycopg2.connect(url)


def test_roles_that_ended_jobs_left_are_dropped(tenant: Server) -> None:
    left = {phase: _job(tenant.store, phase.lower()).uid for phase in ("Complete", "Running", "Deleted")}
    urls = {phase: _as(tenant.url, roles.role_name(uid), roles.create_job_role(tenant.database, uid)) for phase, uid in left.items()}
    tenant.store.update_job(left["Complete"], phase="Complete")
    tenant.store.update_job(left["Running"], phase="Running")
    tenant.store.mark_deleted(left["Deleted"])
    roles.drop_roles_of_ended(tenant.database)
    psycopg2.connect(urls["Running"]).close()
    for phase in ("Complete", "Deleted"):
        with pytest.raises(psycopg2.OperationalError, match="does not exist"):
            psycopg2.connect(urls[phase])
    roles.drop_job_role(tenant.database, left["Running"])


def test_setup_again_keeps_the_passwords(tenant: Server) -> None:
    roles.setup(tenant.database)
    assert roles.create_job_role(tenant.database, tenant.mine.uid) == tenant.password


def test_an_owner_that_is_no_superuser(server: str, database: str) -> None:
    """The operator on a managed server: it owns its database and may make roles, no more."""
    admin = _database(database)
    owner, name = f"owner_{uuid.uuid4().hex[:8]}", admin.query("SELECT current_database() AS name")[0]["name"]
    admin.query(f"CREATE ROLE {owner} LOGIN CREATEROLE PASSWORD 'x'")
    admin.query(f"ALTER DATABASE {name} OWNER TO {owner}")
    if admin.query("SELECT 1 FROM pg_roles WHERE rolname = %s", (roles.GROUP,)):  # by the tests before: it must be the owner's to give
        admin.query(f"GRANT {roles.GROUP} TO {owner} WITH ADMIN OPTION")
    operators = _database(_as(database, owner, "x"))
    store = Store(operators)
    roles.setup(operators)
    mine, theirs = _job(store, "mine"), _job(store, "theirs")
    pod = Store(_database(_as(database, roles.role_name(mine.uid), roles.create_job_role(operators, mine.uid))), migrated=True)
    assert pod.record(mine.uid, 0, 1, [_batch(0)]) == "go"
    with pytest.raises(DENIED):
        pod.get_job(theirs.uid)
    with pytest.raises(DENIED):
        pod.jobs()
    with pytest.raises(DENIED):
        pod._db.query("CREATE TEMP TABLE t (a int)")
    store.update_job(mine.uid, phase="Running")
    assert store.connections()[0] >= 1 and store.totals()[mine.uid][0].failed == 1
    pod.close()
    roles.drop_job_role(operators, mine.uid)
    operators.close()


def test_a_laptops_owner_needs_no_right_to_make_roles(database: str) -> None:
    admin = _database(database)
    owner, name = f"owner_{uuid.uuid4().hex[:8]}", admin.query("SELECT current_database() AS name")[0]["name"]
    admin.query(f"CREATE ROLE {owner} LOGIN PASSWORD 'x'")
    admin.query(f"ALTER DATABASE {name} OWNER TO {owner}")
    store = Store(_database(_as(database, owner, "x")))
    job = _job(store, "mine")
    assert store.record(job.uid, 0, 1, [_batch(0)]) == "go"
    store.close()
