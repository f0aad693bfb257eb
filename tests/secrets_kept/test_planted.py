"""The search finds what it is there to find."""

from __future__ import annotations

import html
import json
from base64 import b64encode
from collections.abc import Callable
from urllib.parse import quote

import pytest

from tests.secrets_kept.planted import SECRETS, leaked

KEY = SECRETS["bearer"]


@pytest.mark.parametrize(
    "written",
    [
        str,
        str.lower,
        lambda key: quote(key, safe=""),
        lambda key: json.dumps(f'"{key}').replace("/", "\\/"),
        html.escape,
        lambda key: b64encode(f"user:{key}".encode()).decode(),
        lambda key: key[:12],
        lambda key: key[-12:],
    ],
)
def test_a_secret_is_found_however_it_is_written(written: Callable[[str], str]) -> None:
    assert leaked(f"answered 500 {written(KEY)}.") == {"bearer"}
    assert leaked("answered 500 [secret].") == set()
