"""The only place that chooses concrete parts, and puts them together."""

from bridge.wiring.checks import notifier_checks
from bridge.wiring.parts import database, source, start_logging, sync, utc_now
from bridge.wiring.rules import Rules, load_rules
from bridge.wiring.web import served, warn_of_open_door, web_app
from bridge.wiring.worker import Worker, poll_all

__all__ = [
    "Rules",
    "Worker",
    "database",
    "load_rules",
    "notifier_checks",
    "poll_all",
    "served",
    "source",
    "start_logging",
    "sync",
    "utc_now",
    "warn_of_open_door",
    "web_app",
]
