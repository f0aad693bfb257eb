"""The [template.NAME] of rules.toml, compiled and tried out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from bridge.decide.faults import Faults
from bridge.decide.messages import DEFAULT_FIELDS, Wording
from bridge.decide.shapes import TemplateTable
from bridge.decide.tables import Tables
from bridge.decide.templates import Template, TemplateFault, UserData, check, compiled, rendered, variables
from bridge.decide.words import instead
from bridge.model import FAILED, RUNNING, Job, Transition


def read_wordings(tables: Tables, faults: Faults) -> dict[str, Wording]:
    """Return the templates by name; what is wrong with them is noted in `faults`."""
    wordings = {}
    for name, table in tables.named("template"):
        path = ("template", name)
        shape = tables.shape(TemplateTable, table, "template", path)
        if shape is None:
            continue
        wordings[name] = Wording(
            title=_template(shape.title, (*path, "title"), faults),
            text=_template(shape.text, (*path, "text"), faults),
            fields=_field_names(shape.fields, (*path, "fields"), faults),
        )
    return wordings


def _template(source: str | None, path: tuple[str, ...], faults: Faults) -> Template | None:
    if not source:
        return None
    try:
        check(source, _FULL)
        template = compiled(source)
    except TemplateFault as error:
        faults.note(path, f"the template does not render: {error}")
        return None
    try:
        rendered(template, _SPARSE)
    except TemplateFault as error:
        text = f"of a job of which CI says little, the default text is told, since this does not render: {error}"
        faults.note(path, text, warning=True)
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
