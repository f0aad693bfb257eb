"""The [template.NAME] of rules.toml, compiled and tried out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from bridge.decide.faults import Faults
from bridge.decide.messages import DEFAULT_FIELDS, Wording
from bridge.decide.shapes import TemplateTable
from bridge.decide.tables import Tables
from bridge.decide.templates import Template, TemplateFault, UserData, Work, compiled, rendered, variables
from bridge.decide.words import instead
from bridge.model import FAILED, RUNNING, Job, Transition

_MOST_WORK = 200_000  # steps of trying out all templates of a file; one takes some dozens
_MOST_CHARACTERS = 200_000  # of all templates of a file


def read_wordings(tables: Tables, faults: Faults) -> dict[str, Wording]:
    """Return the templates by name; what is wrong with them is noted in `faults`."""
    return _Reader(faults).read(tables)


class _Reader:
    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._work = Work()
        self._characters = 0
        self._ended = False

    def read(self, tables: Tables) -> dict[str, Wording]:
        wordings = {}
        for name, table in tables.named("template"):
            path = ("template", name)
            shape = tables.shape(TemplateTable, table, "template", path)
            if shape is None:
                continue
            wordings[name] = Wording(
                title=self._template(shape.title, (*path, "title")),
                text=self._template(shape.text, (*path, "text")),
                fields=_field_names(shape.fields, (*path, "fields"), self._faults),
            )
        return wordings

    @property
    def _too_much(self) -> str:
        if self._characters > _MOST_CHARACTERS:
            return f"have more than {_MOST_CHARACTERS:,} characters"
        return f"take more than {_MOST_WORK:,} steps" if self._work.steps > _MOST_WORK else ""

    def _template(self, source: str | None, path: tuple[str, ...]) -> Template | None:
        if not source or self._ended:
            return None
        self._characters += len(source)
        if too_much := self._too_much:
            self._faults.note(path, f"up to here the templates {too_much}, so the rest was not looked at")
            self._ended = True
            return None
        try:
            template = compiled(source)
            rendered(template, _FULL, strict=True, work=self._work)
        except TemplateFault as error:
            self._faults.note(path, f"the template does not render: {error}")
            return None
        try:
            rendered(template, _SPARSE, work=self._work)
        except TemplateFault as error:
            text = f"of a job of which CI says little, the default text is told, since this does not render: {error}"
            self._faults.note(path, text, warning=True)
        return template


def _field_names(names: Sequence[str] | None, path: tuple[str, ...], faults: Faults) -> tuple[str, ...]:
    known = tuple(_FULL["job"])
    for name in names or ():
        if name not in known:
            faults.note(path, f'a job has no field "{name}"{instead(name, known)}')
    return DEFAULT_FIELDS if names is None else tuple(names)


def _names(job: Job) -> dict[str, Any]:
    seen_at = datetime(2026, 11, 21, 9, 3, tzinfo=UTC)
    step = Transition(job=job, was=RUNNING, to=FAILED, sequence=3, seen_at=seen_at, watch="vod")
    return variables(step, "sample", {"p1": "vod"})


def _full() -> dict[str, Any]:
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


_FULL = _full()
_SPARSE = _names(Job(id="j1", bucket="media-1250000000", region="ap-chongqing", state=FAILED))
