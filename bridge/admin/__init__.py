"""The HTTP side: health, metrics and the API. It receives values and reads no environment."""

from bridge.admin.app import create_app
from bridge.admin.reloading import Reloading

__all__ = ["Reloading", "create_app"]
