"""Templates of rules.toml: an allow-listed part of Jinja, rendered by Jinja's sandbox."""

from bridge.decide.templates.functions import LARGEST_NUMBER, TemplateFault
from bridge.decide.templates.names import FIELDS, NAMES, Names, variables
from bridge.decide.templates.rendering import LONGEST_RESULT, Template, compiled, rendered, value

__all__ = [
    "FIELDS", "LARGEST_NUMBER", "LONGEST_RESULT", "NAMES", "Names", "Template", "TemplateFault", "compiled",
    "rendered", "value", "variables",
]  # fmt: skip
