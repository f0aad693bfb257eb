"""`incidents list`, `show` and `acknowledge` on the command line."""

from __future__ import annotations

import json

from tests.support.admin_world import World
from tests.support.stage import Stage


def test_incidents_are_listed_shown_and_acknowledged(stage: Stage) -> None:
    stage.command("poll")
    assert "none on record" in stage.command("incidents", "list").stdout
    id_ = World(stage.db).incident("j1", "j2", rule="sick")
    (found,) = json.loads(stage.command("incidents", "list", "--state", "open", "--rule", "sick", "--json").stdout)
    assert (found["id"], found["key"], found["count"]) == (id_, "queue p224", 2)
    assert id_ in stage.command("incidents", "list").stdout
    assert "none on record" in stage.command("incidents", "list", "--state", "closed").stdout
    done = stage.command("incidents", "acknowledge", id_, "--by", "ann")
    assert (done.exit_code, done.stdout) == (0, f"{id_} is acknowledged by ann\n")
    again = stage.command("incidents", "acknowledge", id_, "--by", "ben")
    assert again.exit_code == 1
    assert "was acknowledged by ann at" in again.stderr
    shown = stage.command("incidents", "show", id_)
    assert "acknowledged_byann" in shown.stdout.replace(" ", "")
    assert "j1" in shown.stdout
    assert [job["job"] for job in json.loads(stage.command("incidents", "show", id_, "--json").stdout)["jobs"]] == [
        "j2", "j1"
    ]  # fmt: skip
    missing = stage.command("incidents", "show", "inc_none")
    assert (missing.exit_code, "no incident" in missing.stderr) == (1, True)
    assert stage.command("incidents", "acknowledge", id_, "--by", "a\nb").exit_code == 2
