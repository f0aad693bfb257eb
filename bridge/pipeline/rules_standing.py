"""What is to be said of which rules are in force, for everybody: it names nothing that is in them."""

from __future__ import annotations

from bridge.record.rulesets import Standing


def warnings(found: Standing) -> list[str]:
    """Say what is odd about the rules of live workers, for longer than a change takes."""
    alive, said = found.alive, []
    if alive and found.sha != found.last:
        said.append(f"no live worker has the rules accepted last ({found.last}): older ones ({found.sha}) are in force")
    if others := [one for one in alive if one.other and one.sha != found.sha]:
        shas = ", ".join(dict.fromkeys(str(one.sha) for one in others))
        older = ", unless they are of a version before this one" if any(one.older for one in others) else ""
        said.append(
            f"{len(others)} of {len(alive)} live workers have other rules ({shas}) than those in force ({found.sha}):"
            f" they only send, and neither poll nor judge{older}"
        )
    return [*said, *dict.fromkeys(one.note for one in alive if one.note)]
