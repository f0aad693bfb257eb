"""One line an event: logfmt on stderr, secrets masked."""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Iterable, MutableMapping
from types import TracebackType
from typing import Any

import structlog
from structlog.typing import Processor

from bridge.display import visible
from bridge.send.mask import Mask

_UNFIT_FOR_KEYS = re.compile(r'[\s="]')
_LONGEST_LINE = 8_000  # log routers cut or drop longer ones


def configure(level: str, secrets: Iterable[str]) -> None:
    """Send every log record of the process through one formatter; `secrets` are replaced wherever they stand."""
    mask = Mask(secrets)
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
            lambda _logger, _method, event: _plain(event, mask),
            structlog.processors.LogfmtRenderer(key_order=keys, drop_missing=True, bool_as_flag=False),
            # The last one: whatever came before, a known secret does not get out. What was escaped on the way
            # here was masked before that.
            lambda _logger, _method, line: _cut(mask(str(line))),
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
    sys.excepthook = _log_crash
    threading.excepthook = lambda crash: _log_crash(crash.exc_type, crash.exc_value, crash.exc_traceback)


def _log_crash(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """Log what nobody has caught; Python itself would print it, secrets and all."""
    if error is None or issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    logging.getLogger(__name__).critical("crashed", exc_info=(kind, error, trace))


def _cut(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else line[:_LONGEST_LINE] + "…"


def _plain(event: MutableMapping[str, Any], mask: Mask) -> MutableMapping[str, Any]:
    # Logfmt has no room for spaces and signs of its own in keys.
    return {
        _UNFIT_FOR_KEYS.sub("_", visible(key)): value
        if isinstance(value, int | float)
        else visible(mask(str(value)), lines=True).replace("\t", "\\t")
        for key, value in event.items()
    }
