"""Who looks at the pages: a browser's window, and everything that it complains of."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Request, Response, expect

from tests.browser.bridges import ADMIN, Bridge

AGAIN = re.compile("^Resend")
_REPORT = """document.addEventListener("securitypolicyviolation", (event) => console.error(
    `Content-Security-Policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));"""
_LEFT = "net::ERR_ABORTED"  # the page was left before the answer came


@dataclass
class Complaints:
    """What no page may do: say an error, break its own policy, ask another host, lack a file.

    A refusal is both an answer and a line on the console; `expected` are the statuses a test is about.
    """

    origins: set[str]
    expected: set[int] = field(default_factory=set)
    meant: bool = False  # a test does wrong on purpose
    heard: list[str] = field(default_factory=list)

    def listen(self, context: BrowserContext) -> None:
        context.add_init_script(_REPORT)
        context.on("console", self._said)
        context.on("weberror", lambda error: self.heard.append(f"uncaught: {error.error}"))
        context.on("request", self._asked)
        context.on("requestfailed", self._failed)
        context.on("response", self._answered)

    def _said(self, message: ConsoleMessage) -> None:
        refused = any(f"status of {status}" in message.text for status in self.expected)
        if message.type in ("error", "warning") and not refused:
            self.heard.append(f"{message.type} on the console: {message.text}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith(("data:", *(f"{origin}/" for origin in self.origins))):
            self.heard.append(f"asked another host: {request.url}")

    def _failed(self, request: Request) -> None:
        if request.failure != _LEFT:
            self.heard.append(f"{request.method} {request.url}: {request.failure}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400 and response.status not in self.expected:
            self.heard.append(f"{response.request.method} {response.url} was answered {response.status}")


@dataclass
class Person:
    """Somebody with a window open on a bridge."""

    bridge: Bridge
    page: Page
    complaints: Complaints

    def goes_to(self, path: str) -> None:
        self.page.goto(self.bridge.url + path)

    def signs_in(self, token: str = ADMIN) -> None:
        self.goes_to("/sign-in")
        self.page.get_by_label("Token").fill(token)
        self.page.get_by_role("button", name="Sign in").click()

    def looks_again(self) -> None:
        """Come back to the window: the page refreshes itself at once, instead of every five seconds."""
        self.page.evaluate("() => void document.dispatchEvent(new Event('visibilitychange'))")

    def reads(self, text: str) -> None:
        expect(self.page.get_by_role("main")).to_contain_text(text)

    def awaits_complaint(self, text: str) -> None:
        """Return once the page was heard to do this wrong."""
        for _ in range(100):
            if any(text in one for one in self.complaints.heard):
                return
            self.page.wait_for_timeout(50)  # what the browser says is only heard meanwhile
        raise AssertionError(f"nobody heard {text}: {self.complaints.heard}")
