"""Reads `.env`: variables for programs that are started in its folder."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

from dotenv.parser import Binding, parse_stream

FILE = ".env"


class EnvFileRefused(Exception):
    """The file is broken; the text has one line for each fault, and no value, which may be a secret."""


def load(environ: MutableMapping[str, str], path: Path) -> str | None:
    """Add the variables of a file that the environment does not have; return what was done, None if there is no file.

    A value is taken as it is: $NAME in it is no other variable. Raises EnvFileRefused.
    """
    if not path.is_file():  # a folder of this name may be a virtual environment
        return None
    try:
        with path.open(encoding="utf-8-sig") as file:
            bindings = list(parse_stream(file))
    except UnicodeDecodeError:
        raise EnvFileRefused(f"{path}: is not UTF-8") from None
    except OSError as error:
        raise EnvFileRefused(f"{path}: cannot be read: {error.strerror}") from None
    if faults := [f"{path}:{_line(one)}: {why}" for one in bindings if (why := _fault(one))]:
        raise EnvFileRefused("\n".join(faults))
    found = {one.key: one.value for one in bindings if one.key and one.value is not None}
    new = {name: value for name, value in found.items() if name not in environ}
    environ.update(new)
    kept = f" ({len(found) - len(new)} more are set in the environment, which wins)" if len(new) < len(found) else ""
    return f"{path}: read {len(new)} variable{'' if len(new) == 1 else 's'}{kept}"


def _line(binding: Binding) -> int:
    text = binding.original.string  # with the blank lines before it
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")


def _fault(binding: Binding) -> str | None:
    if binding.error:
        return "is not NAME=VALUE; a quote that is opened must be closed"
    if binding.key and binding.value is None:
        return f"{binding.key[:100]!r} has no value; write NAME=VALUE"
    if "\0" in f"{binding.key}{binding.value}":
        return "has a NUL character"
    return None
