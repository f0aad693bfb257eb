"""A record as a bridge has it after a month of many jobs, made by the database itself from a few real texts."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, text

from benchmarks.stored_texts import BUCKET, DETAIL_TIMES, ID, NOTIFIERS, QUEUE, QUEUES, RULES, STATES, TAG, TAGS, texts
from bridge.record.database import Database, ms
from bridge.record.schema import DEAD, DROPPED, HELD, MERGED, SENDING, SENT, WAITING

_TABLES = ("job", "transition", "message", "delivery", "attempt")
_WAITING_DIGESTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSize:
    """How many jobs there are, each with three transitions and deliveries; of what is special, one in so many."""

    jobs: int
    rare: int  # of the jobs and of three deliveries
    failed: int = 33
    cancelled: int = 200
    gone: int
    newest: int  # of these jobs one in ten is unfinished
    waiting: int  # the newest deliveries
    held: int  # those before them
    dead: int
    dropped: int
    merged: int = 60
    digests: int = 500
    days: int = 31  # of tallies

    @classmethod
    def of(cls, jobs: int) -> DatabaseSize:
        """A month of a bridge: what is special is rare."""
        return cls(
            jobs=jobs, rare=jobs // 100, gone=jobs // 20, newest=20_000, waiting=1_000, held=2_000,
            dead=jobs // 1_000, dropped=jobs // 333,
        )  # fmt: skip

    @classmethod
    def handful(cls) -> DatabaseSize:
        """So few that nothing takes long, and yet a full page of whatever is asked for."""
        return cls(
            jobs=1_200, rare=8, failed=11, cancelled=9, gone=13, newest=1_200, waiting=60, held=60, dead=31, dropped=23,
            merged=29, digests=2, days=8,
        )  # fmt: skip


def fill(db: Database, crowd: DatabaseSize, *, now: datetime) -> None:
    """Fill a database that has only its schema."""
    values = {"now": ms(now), "step": 30 * 86_400_000 // crowd.jobs, **asdict(crowd)}
    values |= {"first": ms(now - timedelta(days=30, minutes=3)), "newest_step": 3 * crowd.jobs, **texts(db, now)}
    db.close()  # SQLite lets nobody else be there while it changes its journal
    engine = sa.create_engine(db.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as at:
        _prepare(at)
        with _without_indexes(at):
            for table in _ROWS:
                _timed(table, partial(_insert, at, table, values))
        if not db.sqlite:
            at.execute(text("SELECT setval(pg_get_serial_sequence('delivery', 'n'), (SELECT max(n) FROM delivery))"))
            # In life autovacuum does so by itself: its statistics, and the map that spares an index a look at the row.
            _timed("VACUUM ANALYZE", partial(at.exec_driver_sql, "VACUUM ANALYZE"))
    engine.dispose()


def log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _timed(what: str, do: Callable[[], object]) -> None:
    from_s = time.monotonic()
    do()
    if (took_s := time.monotonic() - from_s) > 0.5:
        log(f"  {what}: {took_s:.1f} s")


def _prepare(at: Connection) -> None:
    if at.dialect.name == "postgresql":
        at.exec_driver_sql("SET synchronous_commit = off")
        return
    driver: Any = at.connection.driver_connection
    driver.create_function("md5", 1, lambda said: hashlib.md5(said.encode()).hexdigest())  # noqa: S324  (spreads)
    for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -200000"):
        at.exec_driver_sql(f"PRAGMA {pragma}")


# --- indexes ------------------------------------------------------------------------------------------------

# What is dropped, and how it is made again; those of primary keys and of what is unique stay.
_INDEXES = {
    "postgresql": """
        SELECT indexname, 'DROP INDEX ' || indexname, indexdef FROM pg_indexes WHERE tablename = ANY(:tables)
        AND schemaname = current_schema() AND NOT EXISTS (SELECT FROM pg_constraint WHERE conname = indexname)
        UNION ALL
        SELECT conname, 'ALTER TABLE ' || CAST(CAST(conrelid AS regclass) AS text) || ' DROP CONSTRAINT ' || conname,
        'ALTER TABLE ' || CAST(CAST(conrelid AS regclass) AS text) || ' ADD CONSTRAINT ' || conname || ' '
        || pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'f'
    """,
    "sqlite": """
        SELECT name, 'DROP INDEX ' || name, sql FROM sqlite_master
        WHERE type = 'index' AND sql IS NOT NULL AND tbl_name IN (SELECT value FROM json_each(:tables))
    """,
}


@contextmanager
def _without_indexes(at: Connection) -> Iterator[None]:
    """Fill tables first and make their indexes then, as that is faster; how long each takes is printed."""
    tables: object = list(_TABLES)
    if at.dialect.name == "sqlite":
        tables = str(tables).replace("'", '"')
    found: Sequence[Any] = at.execute(text(_INDEXES[at.dialect.name]), {"tables": tables}).all()
    for _, drop, _ in found:
        at.exec_driver_sql(drop)
    yield
    for name, _, create in sorted(found, key=lambda one: "FOREIGN KEY" in one[2]):
        _timed(name, partial(at.exec_driver_sql, create))


# --- rows ---------------------------------------------------------------------------------------------------

_SERIES = {
    "sqlite": "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < :count) {insert}",
    "postgresql": "WITH s AS (SELECT n FROM generate_series(1, CAST(:count AS BIGINT)) AS s(n)) {insert}",
}


def _insert(at: Connection, table: str, values: Mapping[str, Any]) -> None:
    each, insert = _ROWS[table]
    count = each * values["jobs"] or _WAITING_DIGESTS + values["digests"]
    statement = text(_SERIES[at.dialect.name].format(insert=_sql(f"INSERT INTO {table} {insert}")))
    given = {**values, "count": count}
    at.execute(statement, {name: given[name] for name in statement.compile().params})


def _sql(template: str) -> str:
    """Return SQL with its parts, and the parts of those."""
    while "{" in template:
        template = template.format_map(_PARTS)
    return template


def _text(kind: str) -> str:
    """Return the SQL of a text of this kind, about this job in this state."""
    cases = " ".join(f"WHEN '{state}' THEN CAST(:{kind}_{state} AS TEXT)" for state in STATES)
    marks = {ID: "id", TAG: "tag", QUEUE: "queue"}
    if kind == "detail":
        marks |= {mark: f"CAST(made + {30_000 * place} AS TEXT)" for place, mark in enumerate(DETAIL_TIMES)}
    filled = f"CASE state {cases} END"
    for mark, value in marks.items():
        filled = f"replace({filled}, '{mark}', {value})"
    return filled


_STATE_NUMBERS = {"WAITING": WAITING, "SENDING": SENDING, "SENT": SENT, "DEAD": DEAD}
_STATE_NUMBERS |= {"HELD": HELD, "MERGED": MERGED, "DROPPED": DROPPED}
_PARTS: Mapping[str, object] = {
    **_STATE_NUMBERS,
    **{f"{kind}_text": _text(kind) for kind in ("detail", "says", "event")},
    "bucket": BUCKET,
    "tags": TAGS,
    "queues": QUEUES,
    "notifiers": NOTIFIERS,
    "rare_rule": RULES[-1],
    "waiting_digests": _WAITING_DIGESTS,
    "message_id": "'msg_' || substr(md5('m' || CAST(n AS TEXT)), 1, 26)",
    "delivery_id": "'dlv_' || substr(md5('d' || CAST(n AS TEXT)), 1, 26)",
    "printed_by": "'dlv_' || substr(md5('d' || CAST(n - {waiting_digests} AS TEXT)), 1, 26)",
    # From the number of a row that is one of three of a job.
    "job_number": "((n + 2) / 3)",
    "sequence": "((n + 2) % 3 + 1)",
    "jobs": """
        SELECT n, number, 'j' || md5(CAST(number AS TEXT)) AS id, :first + :step * number AS made,
            CASE WHEN number % :rare = 7 THEN '{tags[4]}' WHEN number % 10 < 6 THEN '{tags[0]}'
                WHEN number % 10 < 8 THEN '{tags[1]}' WHEN number % 10 = 8 THEN '{tags[2]}' ELSE '{tags[3]}' END AS tag,
            CASE number % 3 WHEN 0 THEN '{queues[0]}' WHEN 1 THEN '{queues[1]}' ELSE '{queues[2]}' END AS queue,
            CASE WHEN number > :jobs - :newest AND number % 20 = 3 THEN 'Submitted'
                WHEN number > :jobs - :newest AND number % 20 = 13 THEN 'Running'
                WHEN number % :failed = 1 THEN 'Failed' WHEN number % :cancelled = 2 THEN 'Cancel'
                WHEN number % :gone = 5 THEN 'gone' ELSE 'Success' END AS ends""",
    "steps": """
        SELECT n, id, tag, queue, made, sequence, made + 30000 * sequence AS at,
            CASE sequence WHEN 1 THEN 'Submitted' WHEN 2 THEN 'Running' ELSE ends END AS state,
            CASE sequence WHEN 1 THEN 'new' WHEN 2 THEN 'Submitted' ELSE 'Running' END AS was,
            CASE WHEN n % (3 * :rare) = 5 THEN '{notifiers[3]}' WHEN n / 7 % 10 < 6 THEN '{notifiers[0]}'
                WHEN n / 7 % 10 < 9 THEN '{notifiers[1]}' ELSE '{notifiers[2]}' END AS notifier,
            CASE WHEN n % (3 * :rare) = 3 THEN '{rare_rule}' ELSE 'rule ' || CAST(n / 5 % 9 AS TEXT) END AS rule
        FROM (SELECT {sequence} AS sequence, job.* FROM ({jobs} FROM (SELECT n, {job_number} AS number FROM s) AS s)
            AS job) AS step
        WHERE sequence <= CASE ends WHEN 'Submitted' THEN 1 WHEN 'Running' THEN 2 ELSE 3 END""",
    "fates": """
        SELECT n, id, notifier, rule, at, CASE WHEN n > :newest_step - :waiting THEN {WAITING}
            WHEN n > :newest_step - :waiting - 48 AND sequence = 1 THEN {SENDING}
            WHEN n > :newest_step - :waiting - :held THEN {HELD} WHEN n % :dead = 17 THEN {DEAD}
            WHEN n % :merged = 5 THEN {MERGED} WHEN n % :dropped = 11 THEN {DROPPED} ELSE {SENT} END AS fate
        FROM ({steps}) AS step""",
}
# By table: how many for each job (0: as many as there are digests), and which.
_ROWS = {
    "job": (1, """
        (bucket, id, stream, tag, queue, state, open, sequence, created_at, changed_at, detail)
        SELECT '{bucket}', id, '{bucket}|' || tag || '||||', tag, queue, state, state IN ('Submitted', 'Running'),
            CASE state WHEN 'Submitted' THEN 1 WHEN 'Running' THEN 2 ELSE 3 END, made, made + 90000, {detail_text}
        FROM (SELECT job.*, ends AS state FROM ({jobs} FROM (SELECT n, n AS number FROM s) AS s) AS job) AS job
    """),
    "transition": (3, """
        (bucket, job_id, sequence, was, state, tag, queue, watch, happened_at, seen_at, verdicts, detail, still_at)
        SELECT '{bucket}', id, sequence, was, state, tag, queue, 'bench', at, at + 5000,
            '[["' || rule || '",["' || notifier || '"]]]', {detail_text}, at - 10000
        FROM ({steps}) AS step
    """),
    "message": (3, """
        (id, kind, bucket, job_id, sequence, rule, state, says, event, happened_at)
        SELECT {message_id}, 'transition', '{bucket}', id, sequence, rule, state, {says_text}, {event_text}, at
        FROM ({steps}) AS step
    """),
    "digest": (0, """
        (gate, name, notifier, key, label, open, opened_at, due_at, ended_at, members, delivery)
        SELECT 'group', 'rule ' || CAST(n % 9 AS TEXT), '{notifiers[0]}', 'key' || CAST(n AS TEXT),
            '[["queue","{queues[0]}"]]', n <= {waiting_digests}, :now - 600000, :now + 600000,
            CASE WHEN n > {waiting_digests} THEN :now - 60000 END, 100,
            CASE WHEN n > {waiting_digests} THEN {printed_by} END
        FROM s
    """),
    "delivery": (3, """
        (n, id, message, notifier, lane, state, due_at, attempts, lease, lease_until, created_at, since, ended_at,
            why, held_by, digest, rule)
        SELECT n, {delivery_id}, {message_id}, notifier, '{bucket}/' || id, fate, at + 5000,
            CASE WHEN fate IN ({SENT}, {DEAD}) THEN 1 ELSE 0 END, CASE WHEN fate = {SENDING} THEN 'w1.1' END,
            CASE WHEN fate = {SENDING} THEN :now + 60000 END, at + 5000, at + 5000,
            CASE WHEN fate NOT IN ({WAITING}, {SENDING}, {HELD}) THEN at + 5200 END,
            CASE WHEN fate = {DEAD} THEN 'it answered 410 Gone' END,
            CASE WHEN fate IN ({HELD}, {MERGED}, {DROPPED}) THEN 'group:' || rule END,
            CASE WHEN fate = {HELD} THEN 1 + n % {waiting_digests}
                WHEN fate IN ({MERGED}, {DROPPED}) THEN {waiting_digests} + 1 + n / 60 % :digests END,
            rule
        FROM ({fates}) AS fate
    """),
    "attempt": (3, """
        (delivery, number, outcome, status, answer, address, started_at, ms)
        SELECT n, 1, CASE fate WHEN {SENT} THEN 'sent' ELSE 'refused' END, CASE fate WHEN {SENT} THEN 200 ELSE 410 END,
            'ok', '203.0.113.7:443', at + 5050, 120
        FROM ({fates}) AS fate WHERE fate IN ({SENT}, {DEAD})
    """),
}  # fmt: skip
