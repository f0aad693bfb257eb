"""Addresses of this bridge's pages, and of CI's console, as messages link to them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlencode

# The CI console's buckets, to which Tencent's documentation of CI links (its page "Regions and Domains", read
# 2026-11-30). Bucket and region are not documented, but people share such addresses; if the console ignored them, it
# would show the list of buckets.
_CONSOLE = "https://console.cloud.tencent.com/ci/bucket"


@dataclass(frozen=True, slots=True)
class Links:
    """The pages below `base`, such as "https://bridge.example.com"; without it there are none."""

    base: str | None = None

    def overview(self) -> str | None:
        return self._page("/")

    def job(self, job_id: str) -> str | None:
        return self._page(f"/jobs/{quote(job_id)}")

    def watches(self) -> str | None:
        return self._page("/watches")

    def incident(self, incident_id: str) -> str | None:
        return self._page(f"/incidents/{quote(incident_id)}")

    def delivery(self, delivery_id: str) -> str | None:
        return self._page(f"/deliveries/{quote(delivery_id)}")

    def digest(self, delivery_id: str) -> str | None:
        """Return the list of the deliveries that the digest with this delivery id sums up."""
        return self._page("/deliveries", digest=delivery_id)

    def dead_letters(self, notifier: str) -> str | None:
        """Return the list of what could not be sent to a notifier, where it can be resent."""
        return self._page("/deliveries", state="dead", notifier=notifier)

    def silence(self, rule: str) -> str | None:
        """Return the form that silences a rule."""
        return self._page("/silences/add", rule=rule)

    @staticmethod
    def console(*, bucket: str, region: str) -> str:
        """Return the page of a bucket in CI's console. There is no documented one of a job."""
        return f"{_CONSOLE}?{urlencode({'bucket': bucket, 'region': region})}"

    def _page(self, path: str, **query: str) -> str | None:
        if not self.base:
            return None
        return f"{self.base.rstrip('/')}{path}" + (f"?{urlencode(query)}" if query else "")


NO_LINKS = Links()
