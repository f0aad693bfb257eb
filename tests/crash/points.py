"""Where a worker can be killed."""

from __future__ import annotations

# Reached inside of the worker: victim.py listens for them.
WITHIN = {
    "poll answered": "CI's answer was read, nothing of it is stored",
    "page uncommitted": "transitions and deliveries are written, not committed",
    "page committed": "they are committed, nobody is told",
    "claimed": "deliveries are claimed, none is begun",
    "connecting": "a socket to a receiver is being opened",
    "answered": "an answer was read, nothing of it is recorded",
    "finish uncommitted": "the outcome is written, not committed",
    "finish committed": "it is committed",
    "alarm uncommitted": "level rules have fired and their deliveries are written, not committed",
    "alarm committed": "they are committed, nobody is told",
    "incident uncommitted": "incidents have opened or closed and their deliveries are written, not committed",
    "incident committed": "they are committed, nobody is told",
    "escalation uncommitted": "incidents have escalated and their deliveries are written, not committed",
    "escalation committed": "they are committed, nobody is told",
    "digest uncommitted": "a digest is ended and its delivery written, not committed",
    "digest committed": "it is committed, nobody is told",
    "rules uncommitted": "a new rules text is accepted, not committed",
    "rules committed": "it is committed, nothing is judged by it",
    "list goes on": "a poll goes on with a list that the one before has left",
}
NEW_RULES = ("rules uncommitted", "rules committed")  # to reach these rules.toml has to change
LONG_LIST = "list goes on"  # to reach this a list has to take longer than a watch's `every`
ALARMS = ("alarm uncommitted", "alarm committed")  # to reach these jobs have to remain in their states
# A worker may live long without coming there again: connections are kept, polls and digests have their times, and
# rules are accepted at the start.
_SELDOM = ("alarm", "incident", "escalation", "digest")
SELDOM = ("connecting", *(f"{what} {when}" for what in _SELDOM for when in ("uncommitted", "committed")), *NEW_RULES)
REQUEST_LEFT = "request left"  # the receiver has all of it, and has not answered: the laboratory kills then
AT_RANDOM = "at random"
ALL = (*WITHIN, REQUEST_LEFT, AT_RANDOM)
