"""The dashboard: pages a person opens, rendered here; the API is for programs."""

from __future__ import annotations

from bridge.admin.pages.dashboard import Dashboard

__all__ = ["Dashboard"]
