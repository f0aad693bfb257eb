from __future__ import annotations

import hashlib

from tests.browser.axe import FILE, SHA256


def test_the_accessibility_engine_is_the_one_that_was_published() -> None:
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == SHA256
    assert {path.name for path in FILE.parent.iterdir()} == {FILE.name, "LICENSE", "LICENSE-3RD-PARTY.txt"}
