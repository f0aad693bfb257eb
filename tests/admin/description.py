"""The copy of /openapi.json for people who read before they install: python -m tests.admin.description > COPY."""

from __future__ import annotations

import json
from pathlib import Path

from flask import Flask

from bridge.record.database import Database
from tests.support.admin_world import ADMIN, World

COPY = Path(__file__).parents[2] / "docs" / "openapi.json"


def text_of(app: Flask) -> str:
    answer = app.test_client().get("/openapi.json", headers={"Authorization": f"Bearer {ADMIN}"})
    return json.dumps(answer.get_json(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(text_of(World(Database("sqlite:///bridge.db")).app()), end="")
