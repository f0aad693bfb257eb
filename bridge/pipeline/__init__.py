"""The flow: `Poller` turns CI's answers into transitions and deliveries, `Courier` delivers them, `Pruner` forgets."""

from bridge.pipeline.deliver import Courier, Transport
from bridge.pipeline.poll import Halted, Poller, Source
from bridge.pipeline.prune import Pruner
from bridge.pipeline.round import Poll

__all__ = ["Courier", "Halted", "Poll", "Poller", "Pruner", "Source", "Transport"]
