"""The flow: `Poller` turns CI's answers into transitions and deliveries, `Courier` delivers them, `Pruner` forgets."""

from bridge.pipeline.dispatch import Courier, Transport
from bridge.pipeline.poll import Halted, Poller, Source
from bridge.pipeline.poll_context import Poll
from bridge.pipeline.prune import Pruner

__all__ = ["Courier", "Halted", "Poll", "Poller", "Pruner", "Source", "Transport"]
