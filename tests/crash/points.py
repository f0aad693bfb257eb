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
    "stay uncommitted": "level rules have fired and their deliveries are written, not committed",
    "stay committed": "they are committed, nobody is told",
    "digest uncommitted": "a digest is ended and its delivery written, not committed",
    "digest committed": "it is committed, nobody is told",
}
# A worker may live long without coming there again: connections are kept, and polls and digests have their times.
SELDOM = ("connecting", "stay uncommitted", "stay committed", "digest uncommitted", "digest committed")
REQUEST_LEFT = "request left"  # the receiver has all of it, and has not answered: the laboratory kills then
AT_RANDOM = "at random"
ALL = (*WITHIN, REQUEST_LEFT, AT_RANDOM)
