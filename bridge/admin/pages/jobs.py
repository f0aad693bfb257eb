"""Jobs: the list, one job's timeline, why notifiers were (not) notified, and notifying manually."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from flask import redirect, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from bridge.admin.http.problems import Problem
from bridge.admin.http.routes import Route
from bridge.admin.pages.routes import ROWS, Pages, argument, asked_for, done, refused, show
from bridge.admin.schemas.jobs import MOST_OF_EACH, Job, JobDetail, timeline
from bridge.decide.rules.rulebook import Rulebook
from bridge.model import STATES
from bridge.pipeline.explain import explain_stored
from bridge.pipeline.incident_facts import incidents_of_job
from bridge.pipeline.operations import RESENDABLE, OperationRefused
from bridge.record.polling import problems
from bridge.record.queries import incidents, lists
from bridge.record.queries.lists import Facts

_FIELDS = ("job", "state", "tag", "queue", "since", "until")
_MOST_EXPLAINED = 50  # transitions on one page: somebody waits for it


class JobPages(Pages):
    def routes(self) -> Iterator[Route]:
        yield Route(path="/jobs", view=self.jobs, name="jobs")
        yield Route(path="/jobs/<path:job_id>", view=self.job, name="job")
        yield Route(path="/jobs/<path:job_id>/tell", view=self.notify, name="notify", method="POST")
        yield Route(path="/find", view=self.find, name="find")

    def jobs(self) -> ResponseReturnValue:
        book = self.parts.book()
        asked = asked_for(_FIELDS, self.parts.clock())
        with self.parts.db.read() as tx:
            found = lists.find_jobs(tx, asked.which, cursor=asked.cursor, limit=ROWS)
            queue_names = self.parts.queue_names(tx)
        tags = dict.fromkeys(stream.tag for watch in book.watches for stream in watch.streams)
        fields = (
            ("job", "Job id", None),
            ("state", "State", [(word, word) for word in (*STATES, "gone")]),
            ("tag", "Tag", [(tag, tag) for tag in tags]),
            ("queue", "Queue", list(queue_names.items()) or None),
            ("since", "Created since", None),
            ("until", "Created before", None),
        )
        jobs = [Job.of(job, queue_names) for job in found.items]
        return show("jobs.html", asked=asked, jobs=jobs, cursor=found.cursor, fields=fields)

    def job(self, job_id: str) -> ResponseReturnValue:
        bucket = request.args.get("bucket")
        book, now = self.parts.book(), self.parts.clock()
        with self.parts.db.read() as tx:
            found = [job for job in lists.job_details(tx, job_id) if bucket in (None, job["bucket"])]
            if not found:
                raise Problem(404, f"{problems.no_job(tx, job_id, bucket)}; is the id right, and does a watch list it?")
            if len(found) > 1:
                return show("job_choice.html", job_id=job_id, found=found)
            bucket = found[0]["bucket"]
            counts_for = incidents_of_job(tx, bucket, job_id, self.parts.in_force(tx))
            more = {"problems": problems.of_job(tx, bucket, job_id), "incidents": counts_for}
            job = JobDetail.of(found[0] | more, self.parts.queue_names(tx))
            attempts = lists.attempts_of(tx, [delivery.id for delivery in job.deliveries[-MOST_OF_EACH:]])
            explanations, note = explained(tx, found[0], book, now=now)
        events = timeline(job, attempts)
        is_cut = len(events) > MOST_OF_EACH or max(len(job.transitions), len(job.deliveries)) > MOST_OF_EACH
        return show(
            "job.html", job=job, timeline=events[-MOST_OF_EACH:], is_cut=is_cut, explanations=explanations, note=note,
            notifiers=book.notified, resendable=RESENDABLE, is_unsent=_is_unsent(job),
            failed=[delivery for delivery in job.deliveries if delivery.state in ("dead", "dropped")],
        )  # fmt: skip

    def notify(self, job_id: str) -> ResponseReturnValue:
        """Notify manually of the job's last transition."""
        bucket, notifier = request.args.get("bucket"), request.form.get("notifier", "")
        try:
            new = self.operations().notify(self.parts.book(), job_id=job_id, bucket=bucket, notifier=notifier)
        except OperationRefused as error:
            return refused(str(error), "job", job_id=job_id, bucket=bucket)
        waits = f", which waits: {new.waits}" if new.waits else ""
        return done(f"Queued for {notifier}{waits}: {new.delivery}", "job", job_id=job_id, bucket=bucket)

    def find(self) -> ResponseReturnValue:
        """Redirect from an id, whatever it is of, to its page."""
        wanted = argument("id")
        with self.parts.db.read() as tx:
            if lists.delivery_details(tx, wanted):
                return redirect(url_for("pages.delivery", delivery_id=wanted), 303)
            if incidents.one(tx, wanted):
                return redirect(url_for("pages.incident", incident_id=wanted), 303)
            if lists.job_details(tx, wanted):
                return redirect(url_for("pages.job", job_id=wanted), 303)
        return refused(f'No job, delivery or incident has the id "{wanted[:100]}".', "jobs")


def explained(tx: Connection, job: Facts, book: Rulebook, *, now: datetime) -> tuple[Sequence[Facts], str | None]:
    """Return the explanations of a job, oldest first, and a note if they are not all."""
    found = explain_stored(tx, job["id"], book, bucket=job["bucket"], now=now, newest=_MOST_EXPLAINED)
    left = len(job["transitions"]) - len(found)
    note = f"Only the newest {_MOST_EXPLAINED} are explained; {left:,} are older: see ci-bridge rules explain."
    return found, note if left > 0 else None


def _is_unsent(job: JobDetail) -> bool:
    """Return whether nobody was notified of the job: nothing was accepted, and nothing is queued."""
    return not any(d.state in ("sent", "sending", "waiting", "held", "merged") for d in job.deliveries)
