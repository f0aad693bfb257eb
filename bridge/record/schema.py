"""The tables. Times are milliseconds since 1970 in UTC, compared alike on SQLite and PostgreSQL.

Hand-written migrations create them (`migrations/`); a test compares the two. The tables `redrive` and `answered` are
the previous version's: its workers may still run, so the next version drops them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    ForeignKey,
    FromClause,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    literal_column,
    text,
)

HEAD = "0017"  # the newest revision in migrations/versions

metadata = MetaData()
_Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts by itself only in INTEGER columns


def _number() -> Column[int]:
    return Column("n", _Number, primary_key=True, autoincrement=True)


def _partial(table: Table, name: str, *columns: str, where: str, unique: bool = False) -> None:
    condition = text(where)
    on = (table.c[column] for column in columns)
    Index(f"{table.name}_{name}", *on, unique=unique, sqlite_where=condition, postgresql_where=condition)


watches = Table(
    "watch",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("next_poll_at", BigInteger, nullable=False, server_default="0"),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    Column("polled_at", BigInteger),  # the last poll began
    Column("ok_at", BigInteger),  # the last complete one began
    Column("failures", Integer, nullable=False, server_default="0"),  # since then
    Column("error", Text),
    Column("calls", Integer, nullable=False, server_default="0"),  # of the last poll
    Column("jobs", Integer, nullable=False, server_default="0"),
    Column("clock_ms", BigInteger),  # how far CI's Date was ahead of our clock in the last poll
    Column("behind", Text),  # JSON: tags whose listing goes on in the next poll
    Column("took_ms", BigInteger),  # the last complete poll
    Column("waited_ms", BigInteger),  # of that, for its turn within `rate`
    Column("looked_at", BigInteger),  # jobs were asked for by id between two polls
    Column("progress", Text),  # JSON: how far a list that goes on has come
    Column("blind", Text),  # JSON: what rules have said of it since it could last see
    Column("hint_at", BigInteger),  # the last callback of CI
)

streams = Table(
    "stream",
    metadata,
    Column("key", Text, primary_key=True),
    Column("told_from", BigInteger, nullable=False),  # jobs created since then are news, even to a first snapshot
    Column("mark", BigInteger),  # jobs created before then are known; None: it was never listed to the end
    Column("out_at", BigInteger),  # since when no watch of the rules has it
    Column("seen_at", BigInteger),  # the last poll that saw all of its unfinished jobs began
    Column("lag_ms", BigInteger),  # the longest time, of late, from a job's creation until CI listed it
    Column("deep_at", BigInteger),  # the last list began that began well before the mark
    Column("news_at", BigInteger),  # it last showed a job for the first time
    Column("states_ignored_at", BigInteger),  # CI's answers showed that it ignores `states`
)

IS_OUT = streams.c.out_at >= streams.c.told_from  # of the rules; one that has come back begins anew, or has no `out_at`

leases = Table(
    "lease",
    metadata,
    Column("name", Text, primary_key=True),
    Column("token", Text),
    Column("until", BigInteger, nullable=False, server_default="0"),
    Column("starts", Text),  # of a bucket, JSON: when CI was asked of late
    Column("queues_at", BigInteger),  # of a bucket: CI was asked for its queues
    Column("queues_error", Text),
)

# Jobs that a callback of CI names, to be asked for by id. Nothing else of a callback is believed.
hints = Table(
    "hint",
    metadata,
    Column("bucket", String(100), primary_key=True),
    Column("job_id", Text, primary_key=True),
    Column("received_at", BigInteger, nullable=False),  # the last callback that names it
    Column("ask_at", BigInteger),  # None: it was asked for since
    Column("asked_at", BigInteger),
    Column("denied", Boolean, nullable=False, server_default=text("false")),  # CI had no such job, or no watch has it
    Column("times", Integer, nullable=False, server_default="1"),  # that it was named
)
_partial(hints, "ask", "ask_at", where="ask_at IS NOT NULL")

queues = Table(
    "queue",
    metadata,
    Column("bucket", String(100), primary_key=True),
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
)

workers = Table(
    "worker",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("machine", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("beat_at", BigInteger, nullable=False),
    Column("rules_sha", String(12)),
    Column("rules_fault", Text),  # why the file on its disk is not in force
    Column("rules_note", Text),  # what else is to be known of it
    Column("revision", String(10), nullable=False, server_default="0001"),  # of the schema it was written for
    Column("clock_fault", Text),  # why it does not trust its clock
)

jobs = Table(
    "job",
    metadata,
    _number(),
    Column("bucket", String(100), nullable=False),
    Column("id", Text, nullable=False),
    Column("stream", Text, nullable=False),
    Column("tag", Text),
    Column("queue", Text),
    Column("state", Text, nullable=False),
    Column("open", Boolean, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),  # when first seen, where CI does not say
    Column("changed_at", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),
    UniqueConstraint("bucket", "id", name="job_id"),
    sqlite_autoincrement=True,
)
Index("job_by_id", jobs.c.id)
# SQLAlchemy writes "open" as this on SQLite, and only the same words find a partial index there.
Index("job_open", jobs.c.stream, jobs.c.created_at, sqlite_where=text("open = 1"), postgresql_where=text("open"))
Index("job_created", jobs.c.stream, jobs.c.created_at)


# What CI says of a job that is not simply true: what of it cannot be read, or that it does not exist.
job_problems = Table(
    "job_problem",
    metadata,
    Column("bucket", String(100), primary_key=True),
    Column("job_id", Text, primary_key=True),
    Column("kind", String(20), primary_key=True),  # field: of a job that was read; left_out; missing
    Column("stream", Text, nullable=False),
    Column("times", Integer, nullable=False, server_default="1"),
    Column("first_at", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Column("ask_at", BigInteger),  # when CI is asked for it by id again; None: no more
    Column("seen_at", BigInteger),  # of a missing one: the last poll that saw it began
    Column("detail", Text, nullable=False, server_default="[]"),  # JSON: [[field, value], ...]
    Column("of_first", Boolean, nullable=False, server_default=text("false")),  # left out of a first snapshot
)
_partial(job_problems, "ask", "stream", "ask_at", where="ask_at IS NOT NULL")


def listed_by(column: Column[Any]) -> ColumnElement[str]:
    """Return a column as lists ask for it.

    SQLite, which knows nothing of how often a value is there, would take an index on the column itself for claims too.
    """
    return column.op("||")(literal_column("''"))


def _listed(table: Table, when: Column[int], *by: Column[Any]) -> None:
    """Serve lists: the newest of all, and of each value of these columns."""
    Index(f"{table.name}_listed", when, table.c.n)
    for column in by:
        Index(f"{table.name}_listed_{column.name}", listed_by(column), when, table.c.n)


_listed(jobs, jobs.c.created_at, jobs.c.state, jobs.c.tag, jobs.c.queue)

transitions = Table(
    "transition",
    metadata,
    _number(),
    Column("bucket", String(100), nullable=False),
    Column("job_id", Text, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("was", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("tag", Text),
    Column("queue", Text),
    Column("watch", String(100), nullable=False),
    Column("happened_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Column("silent", Text),
    Column("verdicts", Text, nullable=False),  # JSON: [[rule, [notifier, ...]], ...] of the rules that fired
    Column("detail", Text, nullable=False),
    Column("rules", String(12)),  # the ruleset it was matched against
    Column("still_at", BigInteger),  # the last poll before that saw its stream whole: still in `was`
    Column("inferred", Boolean, nullable=False, server_default=text("false")),  # not seen: CI's times prove it
    UniqueConstraint("bucket", "job_id", "sequence", name="transition_once"),
    sqlite_autoincrement=True,
)


def same_step(one: FromClause, other: FromClause) -> ColumnElement[bool]:
    """Return the condition that two rows are about the same transition; a job's row is about its last one."""
    job_id = other.c.id if other is jobs else other.c.job_id
    return and_(one.c.bucket == other.c.bucket, one.c.job_id == job_id, one.c.sequence == other.c.sequence)


Index("transition_job", transitions.c.job_id)
_listed(transitions, transitions.c.seen_at, transitions.c.state, transitions.c.tag, transitions.c.queue)

messages = Table(
    "message",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("kind", String(20), nullable=False),
    Column("bucket", String(100)),
    Column("job_id", Text),
    Column("sequence", Integer),
    Column("rule", Text),
    Column("state", Text),
    Column("workflow_run", Text),
    Column("says", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("happened_at", BigInteger, nullable=False),
)
Index("message_job", messages.c.job_id)

# `due_at` of a delivery that goes out at once, whatever its notifier waits for: neither a breaker nor a Retry-After.
DUE_AT_ONCE = 0
WAITING, SENDING, SENT, DEAD, HELD, MERGED, DROPPED, DISCARDED = range(8)
DELIVERY_STATES = ("waiting", "sending", "sent", "dead", "held", "merged", "dropped", "discarded")

deliveries = Table(
    "delivery",
    metadata,
    _number(),
    Column("id", String(40), nullable=False, unique=True),
    Column("message", String(40), ForeignKey("message.id"), nullable=False),
    Column("notifier", String(100), nullable=False),
    Column("lane", Text),
    Column("thread", Text),
    Column("note", Text),
    Column("state", Integer, nullable=False, server_default="0"),
    Column("due_at", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("lost", Integer, nullable=False, server_default="0"),  # of these, with their worker
    Column("lease", Text),
    Column("lease_until", BigInteger),  # others go by how long they have seen it, and by this only long after
    Column("created_at", BigInteger, nullable=False),
    Column("since", BigInteger, nullable=False),  # it waits; versions before 0006 count the retry time from here
    Column("ended_at", BigInteger),
    Column("why", Text),
    Column("body", Text),  # instead of the message's event
    Column("channel", Text),  # instead of the notifier's
    Column("held_by", Text),  # "gate:name" that first held it, for good
    Column("digest", BigInteger),  # where it waits, or with which it was sent
    Column("rule", Text),  # its message's, for lists; "": there is none; None: by a version that did not say
    Column("retry_from", BigInteger),  # the run clock at its first attempt, or at a probe that stood for it
    Column("retry_due", BigInteger),  # the run clock at the end of its last pause
    Column("batch", String(40)),  # with which it was resent the last time, at a `due_at` of its own, or discarded
    Column("urgent_since", BigInteger),  # its rule is urgent: it goes first
    Column("shown_with", Integer),  # it shows as an edit of its thread's root: the `wanted_no` that has it
    sqlite_autoincrement=True,
)
_listed(deliveries, deliveries.c.created_at, deliveries.c.notifier)
Index("delivery_listed_rule", deliveries.c.rule, deliveries.c.created_at, deliveries.c.n)


def state_is(number: int, table: FromClause = deliveries) -> ColumnElement[bool]:
    """Return the condition with the number written out: a partial index cannot serve a bound parameter."""
    return table.c.state == literal_column(str(number))


_partial(deliveries, "due", "notifier", "due_at", "n", where="state = 0")
_partial(deliveries, "sending", "notifier", "lease_until", where="state = 1")
_partial(deliveries, "dead", "notifier", "n", where="state = 3")
for _state in (DEAD, HELD, MERGED, DROPPED, DISCARDED):
    _partial(deliveries, f"listed_{DELIVERY_STATES[_state]}", "created_at", "n", where=f"state = {_state}")
_partial(deliveries, "lane", "lane", "notifier", "n", where="state < 2 AND lane IS NOT NULL")
_partial(deliveries, "lane_one", "lane", "notifier", where="state = 1 AND lane IS NOT NULL", unique=True)
_partial(deliveries, "digest", "digest", "n", where="digest IS NOT NULL")
Index("delivery_message", deliveries.c.message)
_partial(deliveries, "batch", "batch", "state", "due_at", where="batch IS NOT NULL")
_partial(deliveries, "urgent", "notifier", "due_at", "n", where="state = 0 AND urgent_since IS NOT NULL")
_partial(deliveries, "shown_with", "notifier", "thread", "shown_with", where="state = 4 AND shown_with IS NOT NULL")

# Messages that wait to be sent as one. `open` takes more in; it is sent when it is due, and then has ended.
# The window of a throttle is one too: what was let through counts in `passed`, the rest are its members.
digests = Table(
    "digest",
    metadata,
    _number(),
    Column("gate", String(10), nullable=False),
    Column("name", Text, nullable=False),
    Column("notifier", String(100), nullable=False),
    Column("key", String(40), nullable=False),  # of what its messages have in common
    Column("label", Text),  # JSON: that, for people
    Column("channel", Text),  # that they go to, instead of the notifier's
    Column("wall", Boolean, nullable=False, server_default=text("false")),  # due at a time of the wall clock
    Column("open", Boolean, nullable=False, server_default=text("true")),
    Column("drops", Boolean, nullable=False, server_default=text("false")),
    Column("opened_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("passed", Integer, nullable=False, server_default="0"),
    Column("members", Integer, nullable=False, server_default="0"),
    Column("delivery", String(40)),  # that it was sent with
    sqlite_autoincrement=True,
)
Index(
    "digest_open", digests.c.gate, digests.c.name, digests.c.notifier, digests.c.key,
    unique=True, sqlite_where=text("open = 1"), postgresql_where=text("open"),
)  # fmt: skip
_partial(digests, "due", "due_at", where="ended_at IS NULL")

silences = Table(
    "silence",
    metadata,
    _number(),
    Column("id", String(40), nullable=False, unique=True),
    Column("spec", Text, nullable=False),  # JSON: what it matches
    Column("mode", String(10), nullable=False),
    Column("author", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("begins_at", BigInteger, nullable=False),
    Column("ends_at", BigInteger, nullable=False),
    Column("ended_by", Text),  # who ended it early
    Column("told", Text, nullable=False, server_default="[]"),  # JSON: notifiers that were sent that it is over
    sqlite_autoincrement=True,
)

# What people did.
actions = Table(
    "action",
    metadata,
    _number(),
    Column("at", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("claimed", Text),  # the name that who shares a token gave
    Column("what", String(40), nullable=False),
    Column("subject", Text, nullable=False),  # the id or name of what it was done to
    Column("before", Text),  # JSON: what it changed, as it was
    Column("after", Text),  # JSON: the same, as it is since
    sqlite_autoincrement=True,
)
_listed(actions, actions.c.at, actions.c.subject)

# A level rule that fired for a job's time in a state (the one that transition `sequence` began).
alarms = Table(
    "alarm",
    metadata,
    _number(),
    Column("bucket", String(100), nullable=False),
    Column("job_id", Text, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("rule", Text, nullable=False),
    Column("repeats", Integer, nullable=False),  # the number of the last repetition; 0 is the first message
    Column("notifiers", Text, nullable=False),  # JSON: those that were notified
    Column("fired_at", BigInteger, nullable=False),
    Column("told_at", BigInteger, nullable=False),
    Column("since", BigInteger, nullable=False),  # since when the job was in the state, as it was said
    Column("recovered_at", BigInteger),
    UniqueConstraint("bucket", "job_id", "sequence", "rule", name="alarm_once"),
    sqlite_autoincrement=True,
)

# A rule over several jobs, for one key, or an alarm that escalates; it is open from `opened_at` to `closed_at`.
incidents = Table(
    "incident",
    metadata,
    _number(),
    Column("id", String(40), nullable=False, unique=True),
    Column("rule", String(100), nullable=False),
    Column("key", String(40), nullable=False),  # of the values of `by`
    Column("generation", Integer, nullable=False),
    Column("by", Text, nullable=False),  # JSON: [[field, value], ...]
    Column("since", BigInteger, nullable=False),
    Column("opened_at", BigInteger),
    Column("notified_at", BigInteger),
    Column("closed_at", BigInteger),
    Column("closed_why", Text),
    Column("acknowledged_at", BigInteger),
    Column("acknowledged_by", Text),
    Column("escalated_at", BigInteger),
    Column("due_at", BigInteger),  # when it is to be judged; None: when something happens
    Column("last_at", BigInteger),
    Column("counted", Integer, nullable=False, server_default="0"),
    Column("total", Integer, nullable=False, server_default="0"),
    Column("expected", Integer),
    Column("said", Integer, nullable=False, server_default="0"),
    Column("notifiers", Text, nullable=False, server_default="[]"),  # JSON
    Column("judged", BigInteger, nullable=False, server_default="0"),
    Column("kind", String(20)),  # of its rule; None: stored by an older version
    UniqueConstraint("rule", "key", "generation", name="incident_once"),
    sqlite_autoincrement=True,
)
_partial(incidents, "current", "rule", "key", where="closed_at IS NULL", unique=True)
_partial(incidents, "due", "due_at", "n", where="due_at IS NOT NULL")
_partial(incidents, "open", "opened_at", "n", where="opened_at IS NOT NULL AND closed_at IS NULL")
_partial(incidents, "listed", "opened_at", "n", where="opened_at IS NOT NULL")
Index(
    "incident_listed_rule", listed_by(incidents.c.rule), incidents.c.opened_at, incidents.c.n,
    sqlite_where=text("opened_at IS NOT NULL"), postgresql_where=text("opened_at IS NOT NULL"),
)  # fmt: skip

incident_jobs = Table(
    "incident_job",
    metadata,
    _number(),
    Column("incident", _Number, ForeignKey("incident.n"), nullable=False),
    Column("bucket", String(100), nullable=False),
    Column("job_id", Text, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("happened_at", BigInteger, nullable=False),
    Column("counts", Boolean, nullable=False),
    Column("silent", Boolean, nullable=False),
    Column("left_at", BigInteger),  # it moved on, and no longer belongs to it
    UniqueConstraint("bucket", "job_id", "incident", name="incident_job_once"),
    sqlite_autoincrement=True,
)
Index("incident_job_order", incident_jobs.c.incident, incident_jobs.c.happened_at, incident_jobs.c.n)

# The rules as they were, without what may be secret: a transition names the ones it was matched against.
rulesets = Table(
    "ruleset",
    metadata,
    Column("sha", String(12), primary_key=True),
    Column("text", Text, nullable=False),
    Column("used_at", BigInteger, nullable=False),
    Column("source", Text),  # the file, with what may be secret masked; None: stored by an older version
    Column("accepted_at", BigInteger),  # the last time; None as above
    Column("accepted", BigInteger),  # counts acceptances: the ruleset with the highest number is in force, unless
    Column("stands_in", Boolean, nullable=False, server_default=text("false")),  # this one is, as no live worker has it
    Column("empty_allowed", Boolean, nullable=False, server_default=text("false")),  # a person said it may be empty
)
# Asked in every transaction that evaluates rules: the whole answer is in the index, and the texts are not read.
_partial(rulesets, "accepted", "stands_in", "accepted", "sha", where="accepted IS NOT NULL")

# Templates that did not render.
rule_faults = Table(
    "rule_fault",
    metadata,
    Column("rule", Text, primary_key=True),
    Column("times", Integer, nullable=False, server_default="0"),
    Column("why", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
)

attempts = Table(
    "attempt",
    metadata,
    _number(),
    Column("delivery", _Number, ForeignKey("delivery.n"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("outcome", String(10), nullable=False),  # sent, later, refused, lost
    Column("why", Text),
    Column("reason", String(20)),  # None: sent, or by a version that did not say
    Column("status", Integer),
    Column("answer", Text),
    Column("address", Text),
    Column("started_at", BigInteger, nullable=False),
    Column("ms", Integer, nullable=False),
    sqlite_autoincrement=True,
)
Index("attempt_delivery", attempts.c.delivery)

PICK = "pick"  # the type of a name that stands for several notifiers: nothing is sent to it
notifiers = Table(
    "notifier",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("type", String(20), nullable=False),
    Column("max_in_flight", Integer, nullable=False),
    Column("interval_ms", BigInteger),  # of its rate; None: as fast as it goes
    Column("burst", Integer, nullable=False, server_default="1"),
    Column("used_until", BigInteger, nullable=False, server_default="0"),  # its rate is used up until then
    Column("not_before", BigInteger, nullable=False, server_default="0"),
    Column("paused_at", BigInteger),
    Column("paused_why", Text),
    Column("paused_reason", String(20)),  # None: not paused, or by a version that did not say
    Column("ok_at", BigInteger),
    Column("failures", Integer, nullable=False, server_default="0"),  # attempts in a row without an answer: the breaker
    Column("claims", BigInteger, nullable=False, server_default="0"),  # a claim counts only if none came between
    Column("broken_run", BigInteger),  # the run clock at which its breaker opened, while that is open
    Column("probed_run", BigInteger),  # the run clock at the last probe since then
    Column("asked_run", BigInteger),  # the run clock up to which its Retry-After asks to wait
)

# A Slack thread. Its root is stale while `wanted_no` is more than `shown_no`; it is edited then.
threads = Table(
    "thread",
    metadata,
    Column("notifier", String(100), primary_key=True),
    Column("thread", Text, primary_key=True),
    Column("receipt", Text, nullable=False),  # where its root is; "": it was not posted yet, or is gone
    Column("used_at", BigInteger, nullable=False, server_default="0"),
    Column("wanted", Text),  # JSON: what the root should show
    Column("wanted_no", Integer, nullable=False, server_default="0"),  # goes up with each change of `wanted`
    Column("shown_no", Integer, nullable=False, server_default="0"),  # the `wanted_no` of what the root shows
    Column("job_states", Text),  # JSON, of a workflow's thread: {job id: state}
    Column("due_at", BigInteger, nullable=False, server_default="0"),  # of the next edit
    Column("attempts", Integer, nullable=False, server_default="0"),  # failed ones since the last accepted edit
    Column("retry_from", BigInteger),  # as of a delivery
    Column("retry_due", BigInteger),
    Column("lease", Text),  # of the edit that is being made
    Column("lease_until", BigInteger),
    Column("why", Text),  # the last edit failed
)
Index("thread_thread", threads.c.thread)
_partial(threads, "stale", "notifier", "due_at", where="wanted_no > shown_no AND receipt <> ''")

# Limits of others that all notifiers and processes share, such as a Slack channel's.
rate_limits = Table(
    "rate_limit",
    metadata,
    Column("name", Text, primary_key=True),
    Column("used_until", BigInteger, nullable=False, server_default="0"),
    Column("not_before", BigInteger, nullable=False, server_default="0"),  # it asked for time
    Column("slow_until", BigInteger, nullable=False, server_default="0"),  # it was exceeded: its `usual` interval holds
    Column("served", String(100)),  # the notifier that used it last: the next one's turn comes first
    Column("claims", BigInteger, nullable=False, server_default="0"),  # as of a notifier
)

# Jobs created up to then may have been pruned: a list that goes further back would show them as new.
horizons = Table(
    "horizon",
    metadata,
    Column("bucket", String(100), primary_key=True),
    Column("pruned_to", BigInteger, nullable=False),
)

# How often something happened and how long it took, in each span of time (`slot` is its beginning) and in all (slot 0).
tallies = Table(
    "tally",
    metadata,
    Column("metric", String(40), primary_key=True),
    Column("slot", BigInteger, primary_key=True, autoincrement=False),
    Column("labels", Text, primary_key=True),  # JSON: a list of texts
    Column("bucket", Integer, primary_key=True, autoincrement=False),  # of a histogram; 0 where it is none
    Column("count", BigInteger, nullable=False),
    Column("ms", BigInteger, nullable=False),  # in all
    Column("last_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,  # the key is the table: one page less to write in each transaction that counts
)

# Numbers that all processes share. "run_clock": how long the bridge has run in all, in milliseconds; "trusted_clock":
# when (`at`) the clock was last known to be right; "reload": how often a reload of rules.toml was asked for;
# "accepted": how often rules were accepted, and when the last time.
shared_numbers = Table(
    "shared_number",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("value", BigInteger, nullable=False, server_default="0"),
    Column("at", BigInteger, nullable=False, server_default="0"),
)

# Texts that all processes share. "public_url": where the web process is reached.
shared_texts = Table(
    "shared_text",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("value", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
)
