"""Names that do not show what they are: what is copied of them."""

from __future__ import annotations

from playwright.sync_api import expect

from bridge.record.polling import snapshots
from tests.browser.bridges import Bridge
from tests.browser.people import Person
from tests.conftest import only_sqlite
from tests.support.nouns import NOON, a_job

pytestmark = only_sqlite

_NAME = "photo\u202egpj.exe"


def test_a_name_that_is_spelt_out_is_copied_as_it_is(admin: Person, bridge: Bridge) -> None:
    job = a_job(id="j-odd", input=_NAME, user_data="plain")
    with bridge.stage.db.write() as tx:
        snapshots.save(tx, [job], [], {}, stream="s", streams=["s"], now=NOON)
    admin.goes_to("/jobs/j-odd")
    shown = admin.page.get_by_text(r"photo\u202egpj.exe", exact=True)
    expect(shown).to_be_visible()
    admin.page.evaluate("document.addEventListener('copy', (event) => {"
                        " window.copied = event.clipboardData.getData('text/plain'); })")  # fmt: skip
    for select, copied in (
        ("one => one", _NAME),
        ("one => one.parentElement.parentElement", f"Input\n{_NAME}"),
    ):
        shown.evaluate(f"one => getSelection().selectAllChildren(({select})(one))")
        admin.page.keyboard.press("Control+C")
        assert admin.page.evaluate("window.copied").replace("\n\n", "\n") == copied
