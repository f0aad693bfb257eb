"""One line an event: logfmt on stderr, secrets masked."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, MutableMapping
from typing import Any

import structlog
from structlog.typing import Processor

_LONGEST_LINE = 8_000  # log routers cut or drop longer ones
_MASK = "[secret]"


def configure(level: str, secrets: Iterable[str]) -> None:
    """Send every log record of the process through one formatter; `secrets` are replaced wherever they stand."""
    mask = _Mask(secrets)
    before: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    keys = ["timestamp", "level", "event"]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=before,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _plain,
            structlog.processors.LogfmtRenderer(key_order=keys, drop_missing=True, bool_as_flag=False),
            mask,
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("urllib3", "slack_sdk", "alembic", "waitress"):
        logging.getLogger(noisy).setLevel(logging.ERROR)  # what they warn of, we say ourselves
    structlog.configure(
        processors=[*before, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


class _Mask:
    """The last processor: whatever came before, a known secret does not get out."""

    def __init__(self, secrets: Iterable[str]) -> None:
        # Longest first, so that a secret inside another leaves nothing of it; a very short one would mask words.
        self._secrets = sorted({s for s in secrets if len(s) >= 6}, key=len, reverse=True)

    def __call__(self, _logger: object, _method: str, line: Any) -> str:
        text = str(line)
        for secret in self._secrets:
            text = text.replace(secret, _MASK)
        return text if len(text) <= _LONGEST_LINE else text[:_LONGEST_LINE] + "…"


def _plain(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    # Logfmt has no room for line breaks and spaces in keys.
    return {
        key.replace(" ", "_"): value if isinstance(value, int | float) else str(value) for key, value in event.items()
    }
