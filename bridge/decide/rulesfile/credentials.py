"""The `credentials` of watches: which environment variables, or which file, have their keys."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.decide.rulesfile.errors import Path
from bridge.decide.rulesfile.tables import Tables
from bridge.decide.text.values import suggest
from bridge.environment import fault, lookup
from bridge.model import ROLE, KeySource

ID, KEY, TOKEN, FILE = "SECRET_ID", "SECRET_KEY", "SECURITY_TOKEN", "CREDENTIALS_FILE"


class CredentialsReader:
    """Reads what watches name; what is wrong is noted in `tables`, at the first watch that names it."""

    def __init__(self, tables: Tables, environ: Mapping[str, str]) -> None:
        self._tables, self._environ = tables, environ
        self.sources: dict[str, KeySource] = {}

    def read(self, name: str, path: Path) -> None:
        if name in self.sources:
            return
        self.sources[name] = source = KeySource(name=name)
        if name != ROLE:
            self.sources[name] = self._of_variables(source, path)

    def _of_variables(self, source: KeySource, path: Path) -> KeySource:
        prefix = source.prefix
        names = {part: f"{prefix}_{part}" for part in (ID, KEY, TOKEN, FILE)}
        values = {part: lookup(self._environ, name) for part, name in names.items()}
        for part, value in values.items():
            if value and (why := fault(value)):
                self._tables.note(path, f"the value of {names[part]} {why}")
        given = [names[part] for part in (ID, KEY, TOKEN) if values[part]]
        missing = [names[part] for part in (ID, KEY) if not values[part]]
        if values[FILE] and given:
            self._tables.note(path, f"both {names[FILE]} and {' and '.join(given)} are set: keep one of the two")
        elif given and missing:
            text = f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} set, but not {' and '.join(missing)}"
            self._tables.note(path, text)
        elif not values[FILE] and missing:
            near = suggest(source.name, self._set_names())
            text = f"neither {' and '.join(missing)} nor {names[FILE]} are set{near}"
            self._tables.note(path, text)
        return KeySource(
            name=source.name,
            secret_id=values[ID],
            secret_key=values[KEY],
            token=values[TOKEN],
            file=values[FILE],
        )

    def _set_names(self) -> list[str]:
        """Return the names for which the environment has keys."""
        ends = (f"_{ID}", f"_{FILE}")
        found = (variable.removesuffix(end) for variable in self._environ for end in ends if variable.endswith(end))
        return [ROLE, *sorted({prefix.lower() for prefix in found if prefix})]
