"""What every other test relies on: whatever a page does wrong is heard."""

from __future__ import annotations

from tests.browser.people import Person
from tests.conftest import only_sqlite

pytestmark = only_sqlite

DEEDS = {
    "console.error('dear me')": "error on the console: dear me",
    "setTimeout(() => { throw new Error('oh dear') })": "uncaught: oh dear",
    "fetch('/no-such-page')": "/no-such-page was answered 4",
    "document.body.setAttribute('style', 'color: red')": "Content-Security-Policy: style-src-attr",
    "document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.2:9/x'}))": "Policy: img-src http://127",
    "window.open('http://127.0.0.2:9/x')": "asked another host: http://127.0.0.2:9/x",
}


def test_errors_of_a_page_are_detected(admin: Person) -> None:
    admin.complaints.meant = True
    for deed, complaint in DEEDS.items():
        admin.page.evaluate(f"() => {{ {deed} }}")
        admin.awaits_complaint(complaint)
