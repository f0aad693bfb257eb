"""The flow: `Poller` turns CI's answers into transitions and deliveries, `Courier` delivers them."""

from bridge.pipeline.deliver import Courier, Transport
from bridge.pipeline.poll import Halted, Poll, Poller, Source

__all__ = ["Courier", "Halted", "Poll", "Poller", "Source", "Transport"]
