"""The HTTP side: health, metrics, the API and the dashboard. It receives values and reads no environment."""

from bridge.admin.app import create_app
from bridge.admin.parts import Reloading

__all__ = ["Reloading", "create_app"]
