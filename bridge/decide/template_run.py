"""Renders a template within bounds: so many steps, so many characters made, whatever it says and whatever the job.

Nothing of Python is reachable from here: a dot is a key of the job, and functions are those of template_words.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from jinja2 import nodes

from bridge.decide.template_budget import Budget
from bridge.decide.template_times import TIME_FILTERS, Names
from bridge.decide.template_words import (
    FILTERS,
    METHODS,
    MOST_PARTS,
    TAKE_MISSING,
    TESTS,
    Missing,
    TemplateFault,
    items,
    kind,
    number,
    sized,
    text_of,
)

ALONE = object()  # what a name that stands alone is asked of
Say = Callable[[str, object], str]  # why a name is not there: its name, and what it was asked of

_RECKON: dict[type[nodes.BinExpr], Callable[[Any, Any], Any]] = {
    nodes.Add: operator.add,
    nodes.Sub: operator.sub,
    nodes.Mul: operator.mul,
    nodes.Div: operator.truediv,
    nodes.FloorDiv: operator.floordiv,
    nodes.Mod: operator.mod,
}
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lteq": operator.le,
    "gt": operator.gt,
    "gteq": operator.ge,
}


class Run:
    """One rendering. In a `strict` one, what is not there is a fault; else it reads as nothing."""

    def __init__(self, names: Names, budget: Budget, *, keyed: tuple[type, ...], strict: bool, missing: Say) -> None:
        # What is set inside of a loop is forgotten with its round, as in Jinja: the last of these.
        self._scopes: list[dict[str, object]] = [dict(names)]
        self._when = names.when
        self._budget = budget
        self._keyed = keyed
        self._strict = strict
        self._missing = missing

    def pieces(self, body: Iterable[nodes.Node]) -> Iterator[str]:
        """Yield the text of the blocks, piece by piece."""
        for node in body:
            self._budget.step()
            match node:
                case nodes.Output():
                    for part in node.nodes:
                        yield part.data if isinstance(part, nodes.TemplateData) else text_of(self.value(part))
                case nodes.If():
                    yield from self.pieces(self._branch(node))
                case nodes.For():
                    yield from self._loop(node)
                case nodes.Assign(target=nodes.Name(name=name)):
                    self._scopes[-1][name] = self.value(node.node)

    def spend(self, *values: object) -> None:
        """Count the characters of texts, and of lists of them."""
        for value in values:
            if isinstance(value, list | tuple):
                self._budget.spend(len(value))
                self.spend(*value)
            elif isinstance(value, str):
                self._budget.spend(len(value))

    def _branch(self, node: nodes.If) -> Sequence[nodes.Node]:
        for one in (node, *node.elif_):
            if self.value(one.test):
                return one.body
        return node.else_

    def _loop(self, node: nodes.For) -> Iterator[str]:
        found = items(self.value(node.iter))[:MOST_PARTS]
        name = node.target.name  # type: ignore[attr-defined]  # the language allows no other
        if node.test is not None:
            found = [one for one in found if self._value_with({name: one}, node.test)]
        for at, one in enumerate(found):
            self._budget.step()  # a round that says nothing takes time too
            self._scopes.append({name: one, "loop": Round(at, len(found))})
            yield from self.pieces(node.body)
            self._scopes.pop()
        if not found:
            yield from self.pieces(node.else_)

    def _value_with(self, scope: dict[str, object], node: nodes.Node) -> Any:
        self._scopes.append(scope)
        found = self.value(node)
        self._scopes.pop()
        return found

    def value(self, node: nodes.Node) -> Any:
        """Return the value of an expression; of what is not there, nothing."""
        found = self._found(node)
        if not isinstance(found, Missing):
            return found
        self._check(found)
        return None

    def _check(self, found: Missing) -> None:
        if self._strict and found.why:
            raise TemplateFault(found.why())

    def _found(self, node: nodes.Node) -> Any:
        """Return the value of an expression, or Missing."""
        self._budget.step()
        match node:
            case nodes.Const():
                return node.value
            case nodes.Name():
                return self._named(node.name)
            case nodes.Getattr():
                return self._member(self._owner(node.node), node.attr)
            case nodes.Getitem(arg=nodes.Slice() as cut):
                found: Any = items(self.value(node.node))
                return self._made(found[self._slice(cut)])
            case nodes.Getitem():
                return self._member(self._owner(node.node), self.value(node.arg))
            case nodes.CondExpr():
                return self._conditional(node)
            case nodes.Not():
                return not self.value(node.node)
            case nodes.And():
                return self.value(node.left) and self.value(node.right)
            case nodes.Or():
                return self.value(node.left) or self.value(node.right)
            case nodes.Compare():
                return self._compare(node)
            case nodes.Neg():
                return -number(self.value(node.node))
            case nodes.Pos():
                return number(self.value(node.node))
            case nodes.Concat():
                return self._joined([self._made(text_of(self.value(one))) for one in node.nodes])
            case nodes.List() | nodes.Tuple():
                return self._list(node)
        return self._computed(node)

    def _computed(self, node: nodes.Node) -> Any:
        match node:
            case nodes.BinExpr():
                return self._reckon(node)
            case nodes.Filter(node=nodes.Expr() as of):
                return self._call(self._filter(node.name), self._input(node.name, of), node)
            case nodes.Test(node=nodes.Expr() as of):
                return self._call(TESTS[node.name], self._input(node.name, of), node)
            case nodes.Call(node=nodes.Getattr() as method):
                return self._method(method, node)
        raise TemplateFault(f"{type(node).__name__.lower()} is not known here")  # what the language let through

    def _filter(self, name: str) -> Callable[..., Any]:
        return partial(TIME_FILTERS[name], self._when) if name in TIME_FILTERS else FILTERS[name]

    def _owner(self, node: nodes.Node) -> Any:
        """Return what a dot is asked of: of what is not there, everything is missing too."""
        found = self._found(node)
        if isinstance(found, Missing):
            self._check(found)
        return found

    def _named(self, name: str) -> Any:
        for scope in reversed(self._scopes):
            if name in scope:
                return scope[name]
        return self._absent(name, ALONE)

    def _input(self, function: str, node: nodes.Node) -> Any:
        return self._found(node) if function in TAKE_MISSING else self.value(node)

    def _conditional(self, node: nodes.CondExpr) -> Any:
        if self.value(node.test):
            return self.value(node.expr1)
        return self.value(node.expr2) if node.expr2 is not None else None

    def _member(self, owner: Any, key: Any) -> Any:
        if isinstance(owner, Missing):
            return owner
        counted = isinstance(owner, list | str) and type(key) is int
        try:
            if counted or isinstance(owner, self._keyed):
                return owner[key]
        except LookupError:
            pass
        return Missing() if counted else self._absent(str(key)[:100], owner)

    def _absent(self, name: str, owner: Any) -> Missing:
        # Looking for a near word takes its time, and most often nobody asks.
        return Missing(lambda: self._missing(name, owner))

    def _slice(self, node: nodes.Slice) -> slice:
        ends = (node.start, node.stop, node.step)
        return slice(*(None if end is None else int(number(self.value(end))) for end in ends))

    def _list(self, node: nodes.List | nodes.Tuple) -> list[Any]:
        found = [self.value(one) for one in node.items]
        if any(isinstance(one, list) for one in found):
            raise TemplateFault("a list holds no lists here")  # those could double without end
        return found

    def _compare(self, node: nodes.Compare) -> bool:
        left = self.value(node.expr)
        for operand in node.ops:
            right = self.value(operand.expr)
            if not self._holds(left, operand.op, right):
                return False
            left = right
        return True

    def _holds(self, left: Any, op: str, right: Any) -> bool:
        left, right = _plain(left), _plain(right)
        self.spend(left, right)
        if op in ("in", "notin"):
            if not isinstance(right, list | str):
                raise TemplateFault(f"{kind(right)} holds nothing; in is for texts and lists")
            inside = (text_of(left) if isinstance(right, str) else left) in right
            return inside == (op == "in")
        try:
            return _ORDER[op](left, right)
        except TypeError as error:
            raise TemplateFault(f"{kind(left)} and {kind(right)} do not compare") from error

    def _reckon(self, node: nodes.BinExpr) -> Any:
        left, right = _plain(self.value(node.left)), _plain(self.value(node.right))
        if isinstance(node, nodes.Add) and isinstance(left, str) and isinstance(right, str):
            return self._joined([left, right])
        if not (isinstance(left, int | float) and isinstance(right, int | float)):
            sides = f"{kind(left)} and {kind(right)}"
            raise TemplateFault(f"{node.operator} is for numbers, not for {sides}; ~ puts texts together")
        return number(_RECKON[type(node)](number(left), number(right)))

    def _joined(self, texts: list[str]) -> str:
        sized(sum(map(len, texts)))
        return str(self._made("".join(texts)))

    def _method(self, method: nodes.Getattr, node: nodes.Call) -> Any:
        found = self._owner(method.node)
        if isinstance(found, Missing):
            return found
        of = _plain(found)
        if not isinstance(of, str):
            name = type(of).__name__ if of is not None else "None"
            raise TemplateFault(f"'{name}' has no attribute '{method.attr}'")
        return self._call(METHODS[method.attr], of, node)

    def _call(self, function: Callable[..., Any], of: Any, node: nodes.Filter | nodes.Test | nodes.Call) -> Any:
        args = [_plain(self.value(one)) for one in node.args]
        named = {str(pair.key): _plain(self.value(pair.value)) for pair in node.kwargs}
        self.spend(of if isinstance(of, list) else text_of(of) if isinstance(of, str) else "")
        return self._made(function(of, *args, **named))

    def _made(self, value: Any) -> Any:
        self.spend(value)
        if isinstance(value, str):
            sized(len(value))
        return value


def _plain(value: Any) -> Any:
    """Return the text of what is one with keys (user data), and anything else as it is."""
    return value if isinstance(value, _PLAIN) else str(value)


_PLAIN = (str, int, float, list, dict, datetime, type(None))


class Round(dict[str, object]):
    """What `loop` is in one round."""

    def __init__(self, at: int, of: int) -> None:
        super().__init__(index=at + 1, index0=at, first=at == 0, last=at == of - 1, length=of)
