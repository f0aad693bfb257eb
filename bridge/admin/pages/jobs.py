"""Jobs: the list, one job's whole life, and why who was (not) told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from flask import redirect, request, url_for
from flask.typing import ResponseReturnValue

from bridge.admin.pages import filters
from bridge.admin.pages.explained import explained
from bridge.admin.pages.life import life
from bridge.admin.pages.routes import Page, Pages, done, refused, show
from bridge.admin.problems import Problem
from bridge.model import STATES, Job
from bridge.pipeline.operations import OperationRefused
from bridge.record.polling import problems
from bridge.record.queries import lists
from bridge.record.queries.lists import Facts

_FIELDS = ("job", "state", "tag", "queue", "since", "until")
_MOST = 200  # transitions, messages and attempts of one job that are shown: the newest of each


class JobPages(Pages):
    def pages(self) -> Iterator[Page]:
        yield Page(path="/jobs", view=self.jobs, name="jobs")
        yield Page(path="/jobs/<path:job_id>", view=self.job, name="job")
        yield Page(path="/jobs/<path:job_id>/tell", view=self.notify, name="tell", method="POST")
        yield Page(path="/find", view=self.find, name="find")

    def jobs(self) -> ResponseReturnValue:
        book = self.parts.book()
        asked = filters.read(_FIELDS, self.parts.clock())
        with self.parts.db.read() as tx:
            found = lists.find_jobs(tx, asked.which, cursor=asked.cursor, limit=filters.ROWS)
        tags = dict.fromkeys(stream.tag for watch in book.watches for stream in watch.streams)
        wanted = (
            ("job", "Job id", None),
            ("state", "State", [(word, word) for word in (*STATES, "gone")]),
            ("tag", "Tag", [(tag, tag) for tag in tags]),
            ("queue", "Queue", list(book.queue_names.items()) or None),
            ("since", "Created since", None),
            ("until", "Created before", None),
        )
        return show(
            "jobs.html", asked=asked, jobs=[_whole(one) for one in found.items], cursor=found.cursor, fields=wanted,
            queue_names=book.queue_names,
        )  # fmt: skip

    def job(self, job_id: str) -> ResponseReturnValue:
        bucket = request.args.get("bucket")
        book, now = self.parts.book(), self.parts.clock()
        with self.parts.db.read() as tx:
            found = [one for one in lists.job_details(tx, job_id) if bucket in (None, one["bucket"])]
            if not found:
                raise Problem(404, f"{problems.no_job(tx, job_id, bucket)}; is the id right, and does a watch list it?")
            if len(found) > 1:
                return show("job_choice.html", job_id=job_id, found=found)
            job = _whole(found[0])
            newest = job | {part: job[part][-_MOST:] for part in ("transitions", "deliveries")}
            tries = lists.attempts_of(tx, [one["id"] for one in newest["deliveries"]])
            unread = problems.of_job(tx, job["bucket"], job_id)
            said, note = explained(tx, job, book, now=now)
        lived = life(newest, tries)
        return show(
            "job.html", job=job, life=lived[-_MOST:], is_cut=newest != job or len(lived) > _MOST, said=said, note=note,
            notifiers=list(book.notifiers), queue_name=book.queue_names.get(job["queue"]), untold=_untold(job),
            unread=unread, stuck=[one for one in job["deliveries"] if one["state"] in ("dead", "dropped")],
        )  # fmt: skip

    def notify(self, job_id: str) -> ResponseReturnValue:
        """Tell a notifier of the job's last transition, because a person wants it told."""
        bucket, notifier = request.args.get("bucket"), request.form.get("notifier", "")
        try:
            new = self.operations().notify(self.parts.book(), job_id=job_id, bucket=bucket, notifier=notifier)
        except OperationRefused as error:
            return refused(str(error), "job", job_id=job_id, bucket=bucket)
        said = f"It is on its way to {notifier}" + (f", and waits: {new.waits}" if new.waits else "")
        return done(f"{said}: {new.delivery}", "job", job_id=job_id, bucket=bucket)

    def find(self) -> ResponseReturnValue:
        """Lead from an id, whatever it is of, to its page."""
        wanted = request.args.get("id", "").replace("\0", "").strip()[:1000]
        with self.parts.db.read() as tx:
            if lists.delivery_details(tx, wanted):
                return redirect(url_for("pages.delivery", delivery_id=wanted), 303)
            if lists.job_details(tx, wanted):
                return redirect(url_for("pages.job", job_id=wanted), 303)
        return refused(f'no job and no delivery has the id "{wanted[:100]}"', "jobs")


_NOTHING_SAID = {one.name: None for one in fields(Job)}


def _whole(job: Facts) -> Facts:
    """Return a job with what CI did not say of it as None."""
    return _NOTHING_SAID | job


def _untold(job: Facts) -> bool:
    """Tell whether nobody has heard of the job: nothing was accepted, and nothing is on its way."""
    return not any(one["state"] in ("sent", "sending", "waiting", "held", "merged") for one in job["deliveries"])
