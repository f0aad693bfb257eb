"""Templates, compiled and rendered by Jinja's sandbox."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from traceback import walk_tb
from typing import Any

import jinja2
from jinja2 import TemplateError, Undefined, UndefinedError, nodes, pass_context
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bridge.decide.templates import functions
from bridge.decide.templates.functions import Names, TemplateFault, UserData, text_of
from bridge.decide.templates.language import parsed
from bridge.decide.text.times import human, iso

LONGEST_RESULT = 12_000  # characters; about what Slack takes in one message
_LONE = "value"  # what the value of a lone expression is assigned to


@dataclass(frozen=True, slots=True)
class Template:
    """A template that is allowed, compiled."""

    code: jinja2.Template | None = None
    lone: bool = False  # it is one `{{ ... }}` and nothing else
    constant: str | None = None  # the text of one without code


def compiled(source: str) -> Template:
    """Return the template. Raises TemplateFault for what a template may not say, with its line."""
    tree = parsed(_ENVIRONMENT, source)
    match tree.body:
        case [nodes.Output(nodes=[nodes.TemplateData(data=text)])]:
            return Template(constant=text)
        case [nodes.Output(nodes=[expression])]:  # printed, it would be a text whatever it is
            tree.body = [nodes.Assign(nodes.Name(_LONE, "store"), expression, lineno=expression.lineno)]
            return Template(_ENVIRONMENT.from_string(tree), lone=True)
    return Template(_ENVIRONMENT.from_string(tree))


def rendered(template: Template, names: Names) -> str:
    """Return the text, cut at LONGEST_RESULT. Raises TemplateFault."""
    return _storable(text_of(_value(template, names))[:LONGEST_RESULT]).strip()


def value(template: Template, names: Names) -> Any:
    """Return what a text in a body stands for: a lone expression keeps its JSON type, anything else is a text.

    It is not cut: what is too long is a TemplateFault. Numbers that JSON does not have, or few readers, are null.
    """
    found = _value(template, names)
    if len(text_of(found)) > LONGEST_RESULT:
        raise TemplateFault(f"its text has more than {LONGEST_RESULT:,} characters")
    return _json(found)


def _json(given: Any) -> Any:
    match given:
        case None | UserData(""):
            return None  # as in the event
        case int() | float():
            return given if abs(given) <= functions.LARGEST_NUMBER else None
        case datetime():
            return iso(given)
        case list():
            return [_json(item) for item in given]
    return _storable(str(given))


def _storable(text: str) -> str:
    # '\0' and half of a surrogate pair can be spelled in a template and in user data; no database takes them.
    return text.replace("\0", "").encode(errors="replace").decode()


def _value(template: Template, names: Names) -> object:
    """Return the text, or as much of it as is more than LONGEST_RESULT; of a lone expression its value."""
    code, text = template.code, ""
    if code is None:
        return template.constant
    context = code.new_context(dict(names))
    try:
        for piece in code.root_render_func(context):
            text += piece
            if len(text) > LONGEST_RESULT:
                break
        return _plain(context.vars[_LONE]) if template.lone else text
    except (AssertionError, ArithmeticError, LookupError, TypeError, ValueError, TemplateError, TemplateFault) as error:
        lines = [line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == code.filename]
        line = code.get_corresponding_lineno(lines[-1] if lines else 1)
        kind = "" if isinstance(error, TemplateFault) else f"{type(error).__name__}: "
        raise TemplateFault(f"{kind}{error}"[:500] + f" (line {line} of the text)") from error


def _plain(given: Any) -> Any:
    """Return None for what is not there, also in a list."""
    if isinstance(given, list | tuple):
        if any(isinstance(item, list | tuple) for item in given):
            raise TemplateFault("a list holds no lists here")  # they could double without end
        return [_plain(item) for item in given]
    return None if isinstance(given, Undefined) else given


def _callable(name: str, function: Callable[..., object]) -> Callable[..., object]:
    """Return a function as Jinja calls it. As it takes the context, Jinja never calls it while it compiles."""

    @pass_context
    def call(context: Context, given: Any, *args: Any, **named: Any) -> object:
        if name.startswith(".") and _plain(given) is None:
            return given  # what is not there has no methods
        given, args = given if name in functions.TAKE_UNDEFINED else _plain(given), tuple(map(_plain, args))
        if name.lstrip(".") in functions.OF_TEXTS:
            given, args = text_of(given), tuple("" if arg is None else arg for arg in args)
        if name in functions.TIME_FILTERS:
            moment = functions.time(given)
            return function(moment, context) if moment else human(None)
        result = function(given, *args, **{key: _plain(arg) for key, arg in named.items()})
        return str(result)[: functions.LONGEST_TEXT] if isinstance(result, str) else result

    return call


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with the filters, tests and keys of templates only."""

    def __init__(self) -> None:
        super().__init__(autoescape=False, finalize=lambda given: text_of(_plain(given)))
        self.globals.clear()
        methods = {f".{name}": function for name, function in functions.FILTERS.items()}
        filters: dict[str, Any] = {**functions.FILTERS, **functions.TIME_FILTERS, **methods}
        filters |= {"operate": functions.operate, "cut": functions.cut}
        self.filters = {name: _callable(name, function) for name, function in filters.items()}
        self.tests = {name: _callable(name, function) for name, function in functions.TESTS.items()}

    def getattr(self, obj: Any, attribute: str) -> Any:
        return getattr(obj, attribute) if isinstance(obj, LoopContext) else self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        try:
            return (obj.keys if isinstance(obj, UserData) and isinstance(argument, str) else obj)[argument]
        except (LookupError, TypeError, UndefinedError):
            return self.undefined(name=str(argument))


_ENVIRONMENT = _Environment()
