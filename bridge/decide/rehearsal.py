"""Templates are tried out when the rules are read, all of a file within one bound."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Protocol

from bridge.decide.templates import Budget, Names, Template, TemplateFault, UserData, compiled, rendered, variables
from bridge.model import FAILED, RUNNING, Job, Transition

_MOST_WORK = 200_000  # steps of trying out all templates of a file; one takes some dozens
_MOST_CHARACTERS = 200_000  # of all templates of a file


class Note(Protocol):
    """Takes what is wrong with rules.toml."""

    def __call__(self, path: Sequence[str | int], text: str, *, warning: bool = False) -> None: ...


class Render(Protocol):
    """Renders a template."""

    def __call__(self, template: Template, names: Names, *, strict: bool, budget: Budget) -> object: ...


class _Play(Protocol):
    def __call__(self, names: Names, *, strict: bool, budget: Budget) -> object: ...


class Rehearsal:
    """Compiles the templates of one file and tries them out; `note` takes what is wrong with them."""

    def __init__(self, note: Note) -> None:
        self._note = note
        self._steps = 0
        self._characters = 0
        self._ended = False

    def template(
        self,
        source: str,
        path: Sequence[str | int],
        *,
        render: Render = rendered,
        instead: str = "the default text is told",
    ) -> Template | None:
        """Return the template; None when it is wrong, or when there was too much already.

        `instead` says what is done for a job for which it does not render.
        """
        if not self._has_room(source, path):
            return None
        try:
            template = compiled(source)
            play = partial(render, template)
            self.plays(play)
        except TemplateFault as error:
            self._note(path, f"the template does not render: {error}")
            return None
        try:
            self._count(play, SPARSE, strict=False)
        except TemplateFault as error:
            text = f"of a job of which CI says little, {instead}, since this does not render: {error}"
            self._note(path, text, warning=True)
        return template

    def plays(self, play: _Play) -> None:
        """Try out for a job that has everything. Raises TemplateFault."""
        self._count(play, FULL, strict=True)

    def _count(self, play: _Play, names: Names, *, strict: bool) -> None:
        budget = Budget()
        try:
            play(names, strict=strict, budget=budget)
        finally:
            self._steps += budget.spent

    def _has_room(self, source: str, path: Sequence[str | int]) -> bool:
        self._characters += len(source)
        if (too_much := self._too_much) and not self._ended:
            self._note(path, f"up to here the templates {too_much}, so the rest was not looked at")
            self._ended = True
        return not self._ended

    @property
    def _too_much(self) -> str:
        if self._characters > _MOST_CHARACTERS:
            return f"have more than {_MOST_CHARACTERS:,} characters"
        return f"take more than {_MOST_WORK:,} steps" if self._steps > _MOST_WORK else ""


def _names(job: Job) -> Names:
    seen_at = datetime(2026, 11, 21, 9, 3, tzinfo=UTC)
    step = Transition(job=job, was=RUNNING, to=FAILED, sequence=3, seen_at=seen_at, watch="vod")
    return variables(step, "sample", {"p1": "vod"})


def _full() -> Names:
    """Return the names a template can use, from a job that has everything."""
    at = datetime(2026, 11, 21, 9, tzinfo=UTC)
    job = Job(
        id="j1", bucket="media-1250000000", region="ap-chongqing", state=FAILED, tag="Transcode", queue="p1",
        code="InvalidArgument", message="sample", progress=30, created_at=at, started_at=at,
        ended_at=at + timedelta(minutes=3), input="uploads/a.mp4", output="out/a.mp4", outputs=("out/a.mp4",),
        outputs_total=1, template="t1", template_name="hls", workflow="w1", workflow_name="nightly",
        workflow_run="i1", level="0",
    )  # fmt: skip
    names = _names(job)
    names["job"]["user_data"] = _AnyKey("")
    return names


class _AnyKey(UserData):
    """User data whose keys nobody can know beforehand."""

    def __getitem__(self, key: str) -> str:
        return key


FULL = _full()
SPARSE = _names(Job(id="j1", bucket="media-1250000000", region="ap-chongqing", state=FAILED))
