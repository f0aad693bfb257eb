"""The flow: `Poller` turns answers of CI into transitions and deliveries, `Dispatcher` sends, `Pruner` forgets."""

from bridge.pipeline.dispatch import Dispatcher, Transport
from bridge.pipeline.poll import Halted, Poller, Source
from bridge.pipeline.poll_context import Poll
from bridge.pipeline.prune import Pruner

__all__ = ["Dispatcher", "Halted", "Poll", "Poller", "Pruner", "Source", "Transport"]
