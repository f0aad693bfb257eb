"""A browser that has signed in, as far as Flask's test client is one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.support.admin_world import ADMIN, READ, World

HERE = "http://localhost"
SignedIn = Callable[..., FlaskClient]


def signed_in(world: World, role: str = "admin", *, app: Flask | None = None) -> FlaskClient:
    """Return a client with a session, whose requests come from a page of this bridge."""
    client = (app or world.app()).test_client()
    client.environ_base["HTTP_ORIGIN"] = HERE
    answer = client.post("/sign-in", data={"token": {"admin": ADMIN, "read": READ}[role]})
    assert answer.status_code == 303
    return client


def page(client: FlaskClient, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    return answer.text


def posted(client: FlaskClient, path: str, status: int = 200, **form: str) -> str:
    answer = client.post(path, data=form)
    assert answer.status_code == status, answer.text
    return answer.text


@pytest.fixture
def admin(world: World) -> FlaskClient:
    return signed_in(world)


@pytest.fixture
def reader(world: World) -> FlaskClient:
    return signed_in(world, "read")
