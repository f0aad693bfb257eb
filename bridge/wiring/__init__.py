"""The only place that chooses concrete parts, and puts them together."""

from bridge.wiring.parts import (
    database,
    emptied_fault,
    make_known,
    notifier_checks,
    refuse_emptied,
    source,
    start_logging,
    sync,
    utc_now,
)
from bridge.wiring.rules import Rules, load_rules
from bridge.wiring.web import served, warn_of_open_door, web_app
from bridge.wiring.worker import Worker, poll_all, take_over

__all__ = [
    "Rules",
    "Worker",
    "database",
    "emptied_fault",
    "load_rules",
    "make_known",
    "notifier_checks",
    "poll_all",
    "refuse_emptied",
    "served",
    "source",
    "start_logging",
    "sync",
    "take_over",
    "utc_now",
    "warn_of_open_door",
    "web_app",
]
