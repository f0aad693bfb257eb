"""Templates, compiled and rendered by Jinja's sandbox; what is not listed here is refused with its line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from traceback import walk_tb
from typing import Any

import jinja2
from jinja2 import TemplateError, TemplateSyntaxError, Undefined, UndefinedError, nodes, pass_context
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from bridge.decide.templates import functions
from bridge.decide.templates.functions import (
    FIELDS,
    FILTERS,
    LARGEST_NUMBER,
    NAMES,
    TESTS,
    TIME_FILTERS,
    Names,
    TemplateFault,
    UserData,
    text_of,
)
from bridge.decide.text.times import iso
from bridge.decide.text.values import instead
from bridge.language import ENGLISH

# --- what a template may say ----------------------------------------------------------------------------------------

LONGEST_SOURCE = 10_000  # characters
_DEEPEST = 40  # expressions and blocks inside of one another
_MOST_ROUNDS = (100, 20)  # of a loop, and of a loop inside of it
_KEYS = {"job": FIELDS, "loop": ("index", "index0", "first", "last", "length")}
_FILTERS: Mapping[str, Callable[..., object]] = {  # with the arguments that can be written
    **FILTERS,
    **dict.fromkeys(TIME_FILTERS, lambda moment: moment),
    "link": lambda url, label: (url, label),
}

_ALLOWED = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign,
    nodes.Const, nodes.Name, nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.List, nodes.Tuple,
    nodes.CondExpr, nodes.And, nodes.Or, nodes.Not, nodes.Compare, nodes.Operand, nodes.Concat,
    nodes.Add, nodes.Sub, nodes.Div, nodes.FloorDiv, nodes.Neg, nodes.Pos,
    nodes.Filter, nodes.Test, nodes.Call, nodes.Keyword,
)  # fmt: skip
_INSTEAD: Mapping[type[nodes.Node], str] = {
    nodes.Mul: "* is not supported; divide instead: a / 0.001 for a * 1000",
    nodes.Mod: "% is not supported; write is even or is odd, or ~ to concatenate",
    nodes.FilterBlock: "write {{ text | filter }} instead of a filter block",
    nodes.AssignBlock: "write {% set name = value %} on one line",
    nodes.With: "write {% set name = value %} instead of with",
}
_TOO_DEEP = f"this nests too deeply; the limit is {_DEEPEST} levels; {{% set name = ... %}} can split it"


def parsed(environment: jinja2.Environment, source: str) -> nodes.Template:
    """Return the tree of a template that is allowed, for `environment` to compile. Raises TemplateFault."""
    if len(source) > LONGEST_SOURCE:
        raise TemplateFault(f"is too long; the limit is {LONGEST_SOURCE:,} characters")
    try:
        tree = environment.parse(source)
    except TemplateSyntaxError as error:
        raise _fault(error.message or "this is not a template", error.lineno) from error
    except RecursionError as error:
        raise TemplateFault(_TOO_DEEP) from error
    except ValueError as error:  # a number of thousands of digits
        raise TemplateFault(str(error)) from error
    _Checker().visit(tree)
    tree.set_environment(environment)
    return tree


def _fault(text: str, line: int) -> TemplateFault:
    return TemplateFault(f"{text[:400]} (line {line} of the text)")


class _Checker(NodeTransformer):
    """Visiting a node returns what is compiled in its place. Raises TemplateFault for what is not allowed."""

    _depth = 0
    _loops = 0
    _names = frozenset(NAMES)  # that can be used here

    def visit(self, node: nodes.Node, *_: object, **__: object) -> nodes.Node:
        if self._depth > _DEEPEST:
            raise _fault(_TOO_DEEP, node.lineno)
        if not isinstance(node, _ALLOWED):
            unknown = f'"{type(node).__name__.lower()}" is not supported; if, for, set, and filters can be used'
            raise _fault(_INSTEAD.get(type(node), unknown), node.lineno)
        self._depth += 1
        checked = self._checked(node)
        self._depth -= 1
        return checked

    def _checked(self, node: nodes.Node) -> nodes.Node:
        match node:
            case nodes.Assign(target=nodes.Tuple()) | nodes.For(target=nodes.Tuple()) | nodes.For(recursive=True):
                raise _fault("write {% set name = value %}, and {% for name in job.outputs %}", node.lineno)
            case nodes.Assign() if self._loops:
                raise _fault("set stands outside of loops; inside, write the value where it is used", node.lineno)
            case nodes.For():
                return self._loop(node)
            case nodes.Name(ctx="store", name=name) if name in (*NAMES, "loop"):
                raise _fault(f'"{name}" is reserved; use another name', node.lineno)
            case nodes.Name(ctx="store", name=name):
                self._names |= {name}
            case nodes.Name(name=name) if name not in self._names:
                raise _fault(f'there is no "{name}"{instead(name, sorted(self._names))}', node.lineno)
            case nodes.Name(name="job" | "loop"):
                raise _fault("this is a table, not a string; name one of its keys, as in job.id", node.lineno)
            case nodes.Getattr(node=owner, attr=key) | nodes.Getitem(node=owner, arg=nodes.Const(value=str(key))):
                self._check_key(owner, key, node.lineno)
                return nodes.Getattr(owner, key, "load", lineno=node.lineno)
            case nodes.Const(value=int() | float() as number) if not abs(number) <= LARGEST_NUMBER:
                raise _fault(f"a number beyond {LARGEST_NUMBER:.0e} is too large here", node.lineno)
            case nodes.Compare(ops=[_, _, *_]):
                raise _fault("one comparison at a time: write a < b and b < c", node.lineno)
            case nodes.Call(node=nodes.Getattr(attr=name)) if name in _FILTERS and name not in FILTERS:
                raise _fault(f"{name} is a filter only: write | {name} behind the value", node.lineno)
            case nodes.Call(node=nodes.Getattr(node=text, attr=name)):
                method = nodes.Filter(text, name, node.args, node.kwargs, node.dyn_args, node.dyn_kwargs)
                self.visit(method.set_lineno(node.lineno))
                method.name = f".{name}"
                return method
            case nodes.Call():
                raise _fault("this cannot be called; only filters and string methods can be used", node.lineno)
            case nodes.Filter():
                _check_function("filter", _FILTERS, node)
            case nodes.Test():
                _check_function("test", TESTS, node)
        return _as_function(self.generic_visit(node))

    def _check_key(self, owner: nodes.Node, key: str, line: int) -> None:
        match owner:
            case nodes.Name(name="job" | "loop" as name) if name in self._names:
                if key not in _KEYS[name]:
                    called = "a job" if name == "job" else name
                    raise _fault(f'{called} has no "{key}"{instead(key, _KEYS[name])}', line)
            case nodes.Getattr(node=nodes.Name(name="job"), attr="user_data"):
                pass
            case nodes.Name(name=name) if name in self._names and name not in NAMES:
                pass  # it may be set to job.user_data
            case _:
                self.visit(owner)
                raise _fault(f'there is no key "{key}" here; job, job.user_data and loop have keys', line)

    def _loop(self, node: nodes.For) -> nodes.Node:
        if self._loops == len(_MOST_ROUNDS):
            raise _fault(f"loops may stand {len(_MOST_ROUNDS)} deep", node.lineno)
        outside = self._names
        self._names |= {"loop"}
        self._loops += 1
        self.generic_visit(node)
        self._loops -= 1
        self._names = outside
        if not _is_list_of_the_job(node.iter):
            raise _fault("a loop goes through job.outputs, or what split gives", node.lineno)
        node.iter = _function("cut", node.iter, [nodes.Const(0), nodes.Const(_MOST_ROUNDS[self._loops])], node)
        return node


def _is_list_of_the_job(node: nodes.Node | None) -> bool:
    match node:
        case nodes.Filter(name="cut"):
            return _is_list_of_the_job(node.node)
        case nodes.Filter(name="split" | ".split") | nodes.Getattr(node=nodes.Name(name="job"), attr="outputs"):
            return True
    return False


def _check_function(kind: str, known: Mapping[str, Callable[..., object]], node: nodes.Filter | nodes.Test) -> None:
    if node.name not in known:
        raise _fault(f'there is no {kind} "{node.name}"{instead(node.name, known)}', node.lineno)
    keys = [str(pair.key) for pair in node.kwargs]
    if node.dyn_args or node.dyn_kwargs or len(set(keys)) < len(keys):
        raise _fault(f'{kind} "{node.name}" takes no * or **, and no argument twice', node.lineno)
    try:
        inspect.signature(known[node.name]).bind(None, *node.args, **dict.fromkeys(keys))
    except TypeError as error:
        raise _fault(f'{kind} "{node.name}": {error}', node.lineno) from error


def _as_function(node: nodes.Node) -> nodes.Node:
    """Return a call of a function for what Python would do: it has no bounds, and fails for what is not there."""
    match node:
        case nodes.Concat(nodes=parts):
            return _function("join", nodes.List([_function("string", part, [], node) for part in parts]), [], node)
        case nodes.Getitem(arg=nodes.Slice(start=start, stop=stop, step=step)):
            return _function("cut", node.node, [end or nodes.Const(None) for end in (start, stop, step)], node)
        case nodes.Compare(expr=left, ops=[nodes.Operand(op=sign, expr=right)]):
            return _function("operate", left, [nodes.Const(sign), right], node)
        case nodes.Add() | nodes.Sub() | nodes.Div() | nodes.FloorDiv():
            return _function("operate", node.left, [nodes.Const(node.operator), node.right], node)
        case nodes.Neg() | nodes.Pos():
            return _function("operate", nodes.Const(0), [nodes.Const(node.operator), node.node], node)
    return node


def _function(name: str, value: nodes.Node, args: list[nodes.Expr], of: nodes.Node) -> nodes.Filter:
    return nodes.Filter(value, name, args, [], None, None, lineno=of.lineno)


# --- rendering ------------------------------------------------------------------------------------------------------

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
            return given if abs(given) <= LARGEST_NUMBER else None
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
            raise TemplateFault("nested lists are not supported")  # they could double without end
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
        if name in TIME_FILTERS:
            moment = functions.time(given)
            if moment:
                return function(moment, context)
        if name == "human" or name in TIME_FILTERS:
            return functions.span(given, context.get(functions.LANGUAGE, ENGLISH))
        if name == "link":
            return function(given, *args, *map(_plain, named.values()), context)
        result = function(given, *args, **{key: _plain(arg) for key, arg in named.items()})
        return str(result)[: functions.LONGEST_TEXT] if isinstance(result, str) else result

    return call


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with the filters, tests and keys of templates only."""

    def __init__(self) -> None:
        super().__init__(autoescape=False, finalize=lambda given: text_of(_plain(given)))
        self.globals.clear()
        methods = {f".{name}": function for name, function in FILTERS.items()}
        filters: dict[str, Any] = {**FILTERS, **TIME_FILTERS, **methods}
        filters |= {"operate": functions.operate, "cut": functions.cut, "link": functions.link}
        self.filters = {name: _callable(name, function) for name, function in filters.items()}
        self.tests = {name: _callable(name, function) for name, function in TESTS.items()}

    def getattr(self, obj: Any, attribute: str) -> Any:
        return getattr(obj, attribute) if isinstance(obj, LoopContext) else self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        try:
            return (obj.keys if isinstance(obj, UserData) and isinstance(argument, str) else obj)[argument]
        except (LookupError, TypeError, UndefinedError):
            return self.undefined(name=str(argument))


_ENVIRONMENT = _Environment()
