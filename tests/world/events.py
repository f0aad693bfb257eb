"""What happens in a hostile world: to jobs, and to the answers of CI on their way."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Protocol

from bridge.simulator.web import Answer
from tests.support import hostile as fakes
from tests.world.oddities import deny

ENDLESS = "225508"  # a page token that leads to the same page again


# --- to jobs; `which` counts the jobs of the world, round and round ------------------------------------------------


@dataclass(frozen=True)
class Create:
    """`age_s` ago by CI's clock: a job that is listed late, or one from before the bridge."""

    tag: str = "Transcode"
    queue: str = "p1"
    state: str = "Submitted"
    age_s: int = 0
    workflow: str | None = None
    user_data: str | None = None


@dataclass(frozen=True)
class Move:
    which: int
    to: str


@dataclass(frozen=True)
class Forget:
    """CI knows nothing of the job any more."""

    which: int


@dataclass(frozen=True)
class Hide:
    """The job is in no list any more; a question by id still finds it."""

    which: int


@dataclass(frozen=True)
class Spoil:
    """From now on CI shows the job so: one of oddities.ODDITIES, or DENIED."""

    which: int
    how: str


@dataclass(frozen=True)
class Heal:
    """And from now on as it is."""

    which: int


@dataclass(frozen=True)
class Pass:
    seconds: int


Event = Create | Move | Forget | Hide | Spoil | Heal | Pass
Events = tuple[Event, ...]


# --- to answers ----------------------------------------------------------------------------------------------------


class Link(Protocol):
    """The world, as far as an answer on its way may touch it."""

    def happen(self, *events: Event) -> None: ...
    def date(self, off_s: int | None = 0) -> str: ...
    def earlier(self, back: int, *, any_page: bool = False) -> Answer | None: ...
    def poll_by_rival(self) -> None: ...
    def poll_while_away(self) -> None: ...
    def halt(self) -> None: ...


class Arrival:
    """How one answer arrives. `whole`: the bridge gets what CI said, or what CI once said."""

    whole = True

    def spoil(self, true: Answer, link: Link) -> Answer:
        return true


def dated(answer: Answer, date: str) -> Answer:
    return replace(answer, headers={**answer.headers, "Date": date})


@dataclass(frozen=True)
class Truly(Arrival):
    """As it is."""


@dataclass(frozen=True)
class Late(Arrival):
    """It was made before these events and arrives after them."""

    events: Events

    def spoil(self, true: Answer, link: Link) -> Answer:
        link.happen(*self.events)
        return dated(true, link.date())


@dataclass(frozen=True)
class Dated(Arrival):
    """Its Date is off by so much; None: there is none to be read."""

    off_s: int | None

    def spoil(self, true: Answer, link: Link) -> Answer:
        return dated(true, link.date(self.off_s))


@dataclass(frozen=True)
class Denied(Arrival):
    """Of one of the jobs that were asked for it says that there is none; of all of them with None."""

    which: int | None = 0

    def spoil(self, true: Answer, link: Link) -> Answer:
        body, jobs = true.body, re.findall(rb"<JobsDetail>.*?</JobsDetail>", true.body, re.DOTALL)
        for job in jobs if self.which is None else jobs[self.which : self.which + 1]:
            body = deny(body, job, job.partition(b"<JobId>")[2].partition(b"</JobId>")[0].decode())
        return replace(true, body=body)


@dataclass(frozen=True)
class Stale(Arrival):
    """Some cache serves an earlier answer to this question, with its own Date."""

    back: int = 1

    def spoil(self, true: Answer, link: Link) -> Answer:
        return link.earlier(self.back) or true


@dataclass(frozen=True)
class Mixed(Arrival):
    """The jobs of an earlier answer, of any page, stand in it too."""

    back: int = 1
    before: bool = False

    def spoil(self, true: Answer, link: Link) -> Answer:
        found = link.earlier(self.back, any_page=True)
        jobs = _jobs(found.body if found else true.body)
        if self.before:
            return replace(true, body=_open(true.body).replace(b"<Response>", b"<Response>" + jobs, 1))
        return replace(true, body=_open(true.body).replace(b"</Response>", jobs + b"</Response>"))


@dataclass(frozen=True)
class Reversed(Arrival):
    """Its jobs stand in the other order."""

    def spoil(self, true: Answer, link: Link) -> Answer:
        each = re.findall(rb"<JobsDetail>.*?</JobsDetail>", true.body, re.DOTALL)
        return replace(true, body=true.body.replace(b"".join(each), b"".join(reversed(each)))) if each else true


@dataclass(frozen=True)
class Endless(Arrival):
    """Its next page is itself, for ever."""

    def spoil(self, true: Answer, link: Link) -> Answer:
        bare = re.sub(rb"<NextToken>.*?</NextToken>", b"", _open(true.body))
        token = b"<NextToken>%s</NextToken></Response>" % ENDLESS.encode()
        return replace(true, body=bare.replace(b"</Response>", token))


@dataclass(frozen=True)
class Rival(Arrival):
    """Meanwhile another worker wants the bucket."""

    def spoil(self, true: Answer, link: Link) -> Answer:
        link.poll_by_rival()
        return true


@dataclass(frozen=True)
class Halting(Arrival):
    """The worker is told to stop while it is under way."""

    def spoil(self, true: Answer, link: Link) -> Answer:
        link.halt()
        return true


@dataclass(frozen=True)
class Away(Arrival):
    """The worker stands still for longer than its lease; meanwhile these happen and another worker polls."""

    events: Events
    whole = False

    def spoil(self, true: Answer, link: Link) -> Answer:
        link.happen(*self.events)
        link.poll_while_away()
        return true


@dataclass(frozen=True)
class Cut(Arrival):
    """It ends after so many tenths, or with a job; `announced`: its Content-Length is that of the whole."""

    tenths: int = 5
    announced: bool = False
    after_a_job: bool = False
    whole = False

    def spoil(self, true: Answer, link: Link) -> Answer:
        end = len(true.body) * self.tenths // 10
        if self.after_a_job:
            end = true.body.find(b"</JobsDetail>", end) + len(b"</JobsDetail>")
        end = min(end, len(true.body) - 1)
        return replace(true, body=true.body[:end], length=len(true.body) if self.announced else None)


@dataclass(frozen=True)
class Refused(Arrival):
    """Something else comes instead."""

    how: str
    whole = False

    def spoil(self, true: Answer, link: Link) -> Answer:
        return REFUSALS[self.how]


REFUSALS = {
    "429": fakes.ci_error(429, "RequestLimitExceeded"),
    "429, wait": fakes.ci_error(429, "RequestLimitExceeded", headers={"Retry-After": "600"}),
    "503": fakes.slow_down(),
    "503, wait": fakes.slow_down(600),
    "500": fakes.ci_error(500, "InternalError"),
    "403": fakes.ci_error(403, "AccessDenied"),
    "404": fakes.ci_error(404, "NoSuchBucket"),
    "HTML": fakes.html_page(200),
    "JSON": fakes.json_error(200),
    "nothing": fakes.empty_body(),
    "hang up": fakes.hang_up(),
}


def _open(body: bytes) -> bytes:
    return body.replace(b"<Response />", b"<Response></Response>")


def _jobs(body: bytes) -> bytes:
    return b"".join(re.findall(rb"<JobsDetail>.*?</JobsDetail>", body, re.DOTALL))
