"""What a template may say. It is parsed by Jinja, and whatever is not listed here is refused with its line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial

from jinja2 import Environment, TemplateSyntaxError, nodes

from bridge.decide.template_times import TIME_FILTERS, When
from bridge.decide.template_words import FILTERS, METHODS, TESTS, TemplateFault
from bridge.decide.words import instead

LONGEST_SOURCE = 10_000  # characters
_DEEPEST = 40  # expressions and blocks inside of one another
_MOST_LOOPS = 2  # inside of one another

_PARSER = Environment(autoescape=False)  # noqa: S701  (it only parses; what is made is plain text)

# As a template writes them: what they are handed besides is not its to give.
_ANY_TIME = When(datetime(2026, 11, 21, tzinfo=UTC), UTC)
_FILTERS: Mapping[str, Callable[..., object]] = {
    **FILTERS,
    **{name: partial(function, _ANY_TIME) for name, function in TIME_FILTERS.items()},
}

_ALLOWED = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign,
    nodes.Const, nodes.Name, nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.List, nodes.Tuple,
    nodes.CondExpr, nodes.And, nodes.Or, nodes.Not, nodes.Compare, nodes.Operand, nodes.Concat,
    nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Neg, nodes.Pos,
    nodes.Filter, nodes.Test, nodes.Call, nodes.Keyword,
)  # fmt: skip
_CAN = "if, for, set, and filters can be used"
_REFUSED: dict[type[nodes.Node], str] = {
    nodes.Pow: "** is not known here",
    nodes.Dict: "{...} makes no tables here",
    nodes.Macro: f"macros are not known here; {_CAN}",
    nodes.CallBlock: f"call blocks are not known here; {_CAN}",
    nodes.FilterBlock: "write {{ text | filter }} instead of a filter block",
    nodes.AssignBlock: "write {% set name = value %} on one line",
    nodes.With: "write {% set name = value %} instead of with",
    nodes.NSRef: "namespaces are not known here; write {% set name = value %}",
    nodes.Block: f"blocks are not known here; {_CAN}",
    nodes.Include: f"a template stands alone; {_CAN}",
    nodes.Import: f"a template stands alone; {_CAN}",
    nodes.FromImport: f"a template stands alone; {_CAN}",
    nodes.Extends: f"a template stands alone; {_CAN}",
}


def parsed(source: str) -> nodes.Template:
    """Return the tree of a template that is allowed. Raises TemplateFault with the line."""
    if len(source) > LONGEST_SOURCE:
        raise TemplateFault(f"is too long: {LONGEST_SOURCE:,} characters are the most")
    try:
        tree = _PARSER.parse(source)
    except TemplateSyntaxError as error:
        raise _fault(error.message or "this is not a template", error.lineno) from error
    except RecursionError as error:
        raise TemplateFault(_TOO_DEEP) from error
    except ValueError as error:  # a number of thousands of digits
        raise TemplateFault(str(error)) from error
    _allow(tree, 0, 0)
    return tree


_TOO_DEEP = f"this nests too deeply: {_DEEPEST} levels are the most; {{% set name = ... %}} can take it apart"


def _fault(text: str, line: int) -> TemplateFault:
    return TemplateFault(f"{text[:400]} (line {line} of the text)")


def _allow(node: nodes.Node, depth: int, loops: int) -> None:
    """Refuse what is not allowed in `node` or below it. Raises TemplateFault."""
    if depth > _DEEPEST:
        raise _fault(_TOO_DEEP, node.lineno)
    if not isinstance(node, _ALLOWED):
        name = type(node).__name__.lower()
        raise _fault(_REFUSED.get(type(node), f'"{name}" is not known here; {_CAN}'), node.lineno)
    if isinstance(node, nodes.For):
        loops += 1
        _allow_loop(node, loops)
    elif isinstance(node, nodes.Assign) and not isinstance(node.target, nodes.Name):
        raise _fault("set takes one name", node.lineno)
    elif isinstance(node, nodes.Filter):
        _allow_function("filter", _FILTERS, node)
    elif isinstance(node, nodes.Test):
        _allow_function("test", TESTS, node)
    elif isinstance(node, nodes.Call):
        _allow_call(node)
    for child in node.iter_child_nodes():
        _allow(child, depth + 1, loops)


def _allow_function(what: str, known: Mapping[str, Callable[..., object]], node: nodes.Filter | nodes.Test) -> None:
    if node.name not in known:
        raise _fault(f'there is no {what} "{node.name}"{instead(node.name, known)}', node.lineno)
    _allow_arguments(f'{what} "{node.name}"', known[node.name], node)


def _allow_call(node: nodes.Call) -> None:
    if not isinstance(node.node, nodes.Getattr):
        name = f"{node.node.name}()" if isinstance(node.node, nodes.Name) else "this"
        raise _fault(f"{name} cannot be called; only filters, and methods of texts, can be used", node.lineno)
    name = node.node.attr
    if name not in METHODS:
        raise _fault(f'there is no method ".{name}()"{instead(name, METHODS)}', node.lineno)
    _allow_arguments(f".{name}()", METHODS[name], node)


def _allow_arguments(what: str, function: Callable[..., object], node: nodes.Filter | nodes.Test | nodes.Call) -> None:
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        raise _fault(f"{what} takes no * or **", node.lineno)
    try:
        inspect.signature(function).bind(None, *node.args, **{str(pair.key): pair.value for pair in node.kwargs})
    except TypeError as error:
        raise _fault(f"{what}: {error}", node.lineno) from error


def _allow_loop(node: nodes.For, loops: int) -> None:
    if loops > _MOST_LOOPS:
        raise _fault(f"loops may stand {_MOST_LOOPS} deep", node.lineno)
    if node.recursive or not isinstance(node.target, nodes.Name):
        raise _fault("a loop takes one name, as in {% for name in job.outputs %}", node.lineno)
    if not _is_list(node.iter):
        raise _fault("a loop goes through job.outputs, or what split gives", node.lineno)


def _is_list(node: nodes.Node) -> bool:
    match node:
        case nodes.Getitem(arg=nodes.Slice()):
            return _is_list(node.node)
        case nodes.Getattr(node=nodes.Name(name="job"), attr="outputs"):
            return True
        case nodes.Call(node=nodes.Getattr(attr="split")) | nodes.Filter(name="split"):
            return True
    return False
