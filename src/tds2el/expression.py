"""Evaluate expressions of par-files: a small, safe subset of Python, walked node by node and never executed.

Work and memory are bounded by a budget of steps per file, so that a hostile or mistyped expression ends in an
error instead of a machine that hangs.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tds2el.errors import InputError

MAX_STEPS = 3_000_000  # nodes evaluated, plus elements and characters made or compared
MAX_RANGE = 1_000_000
MAX_DEPTH = 100
MAX_INTEGER_BITS = 1024  # the range of a double
MISSING_PLUS = "a '+' is missing between ']' and '[': lists are joined by '+' (and nothing can be indexed)"


@dataclass(frozen=True)
class Variable:
    """``minimiser.Variable(value, min, max)``: a start value and its bounds; ``min < max`` frees it."""

    value: float
    min: float
    max: float

    def __post_init__(self) -> None:
        if not all(isinstance(x, int | float) for x in (self.value, self.min, self.max)):
            raise TypeError("minimiser.Variable takes three numbers: value, min, max")


def _range(*arguments: int) -> range:
    result = range(*arguments)
    if abs(result.stop - result.start) // abs(result.step) > MAX_RANGE:  # len() may overflow
        raise ValueError(f"range() of more than {MAX_RANGE} numbers")
    return result


def _power(base: float, exponent: float) -> object:
    # Refused before it is computed: the time and memory of an exact integer power are those of its digits.
    if isinstance(base, int) and isinstance(exponent, int) and exponent * abs(base).bit_length() > 2 * MAX_INTEGER_BITS:
        raise OverflowError("the number is too large")
    return base**exponent


_ARITHMETIC: dict[type[ast.operator], Callable[..., object]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}
_UNARY: dict[type[ast.unaryop], Callable[..., object]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[..., object]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
FUNCTIONS: dict[str, Callable[..., object]] = {
    "range": _range,
    "len": len,
    "abs": abs,
    "min": min,
    "max": max,
    "float": float,
    "int": int,
    "minimiser.Variable": Variable,
}


class Evaluator:
    """Evaluates the expressions of one file, which share its names and its budget of steps.

    Parameters
    ----------
    file
        Name of the file (or other source) as error messages give it, followed by the line.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.names: dict[str, object] = {}
        self._loop_names: dict[str, object] = {}  # variables of the comprehensions being evaluated
        self._steps = 0
        self._depth = 0

    def error(self, node: ast.AST, message: str) -> InputError:
        """The error to raise for `node`, on one line that begins with its place."""
        return InputError(f"{self.file}:{getattr(node, 'lineno', 1)}: {' '.join(message.split())[:300]}")

    def value(self, node: ast.expr) -> object:
        """The value of an expression; `InputError` if it is outside the subset, wrong or excessive."""
        self._spend(node, 1)
        if self._depth >= MAX_DEPTH:
            raise self.error(node, "an expression is nested too deeply")
        self._depth += 1
        try:
            return self._dispatch(node)
        finally:
            self._depth -= 1

    def _dispatch(self, node: ast.expr) -> object:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() | None as constant):
                return self._checked(node, constant)
            case ast.Name(id=name):
                return self._name(node, name)
            case ast.List(elts=elements):
                return self._checked(node, [self.value(e) for e in elements])
            case ast.Tuple(elts=elements):
                return self._checked(node, tuple([self.value(e) for e in elements]))
            case ast.Dict(keys=keys, values=values) if None not in keys:
                pairs = [(self.value(k), self.value(v)) for k, v in zip(keys, values, strict=True) if k]
                return self._apply(node, dict, pairs)
            case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _UNARY:
                return self._apply(node, _UNARY[type(sign)], self.value(operand))
            case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _ARITHMETIC:
                return self._arithmetic(node, sign, self.value(left), self.value(right))
            case ast.BoolOp(op=ast.And(), values=operands):
                return self._logic(operands, stop_at=False)
            case ast.BoolOp(values=operands):
                return self._logic(operands, stop_at=True)
            case ast.Compare():
                return self._compare(node)
            case ast.ListComp(elt=element, generators=loops):
                return self._checked(node, [self.value(element) for _ in self._loop(loops)])
            case ast.DictComp(key=key, value=element, generators=loops):
                pairs = [(self.value(key), self.value(element)) for _ in self._loop(loops)]
                return self._apply(node, dict, pairs)
            case ast.Call():
                return self._call(node)
            case ast.Subscript(value=ast.List() | ast.ListComp() | ast.Subscript() as before):
                raise InputError(f"{self.file}:{before.end_lineno}: {MISSING_PLUS}")
        raise self.error(node, f"'{_source(node)}' is not possible in a par-file")

    def _name(self, node: ast.expr, name: str) -> object:
        for names in (self._loop_names, self.names):
            if name in names:
                return names[name]
        raise self.error(node, f"the name '{name}' is not defined; assign it on an earlier line")

    def _arithmetic(self, node: ast.expr, sign: ast.operator, left: object, right: object) -> object:
        sequences = [x for x in (left, right) if isinstance(x, str | list | tuple)]
        if sequences and not isinstance(sign, ast.Add | ast.Mult):  # '%' would format strings
            raise self.error(node, f"'{_source(node)}' computes with a {type(sequences[0]).__name__}")
        if sequences and isinstance(sign, ast.Mult):
            factors = [x for x in (left, right) if isinstance(x, int)]
            self._spend(node, max([0, *factors]) * max(_size(s) for s in sequences))
        return self._apply(node, _ARITHMETIC[type(sign)], left, right)

    def _logic(self, operands: Sequence[ast.expr], stop_at: bool) -> object:
        result: object = None
        for operand in operands:
            result = self.value(operand)
            if bool(result) is stop_at:
                break
        return result

    def _compare(self, node: ast.Compare) -> object:
        left = self.value(node.left)
        result: object = True
        for sign, comparator in zip(node.ops, node.comparators, strict=True):
            right = self.value(comparator)
            if type(sign) not in _COMPARISONS or (isinstance(sign, ast.Is | ast.IsNot) and right is not None):
                raise self.error(node, f"'{_source(node)}' is not possible in a par-file")
            self._spend(node, min(_size(left), _size(right)))
            result = self._apply(node, _COMPARISONS[type(sign)], left, right)
            if not result:
                break
            left = right
        return result

    def _loop(self, loops: Sequence[ast.comprehension]) -> Iterator[None]:
        """Run through the rounds of a comprehension, with its variables set."""
        if not loops:
            yield
            return
        loop, target = loops[0], loops[0].target
        values = self.value(loop.iter)
        if not isinstance(target, ast.Name) or not isinstance(values, range):
            raise self.error(loop.iter, "comprehensions run over range() only, with one name")
        outer = self._loop_names
        try:
            for value in values:
                self._spend(loop.iter, 1)
                self._loop_names = {**outer, target.id: value}
                if all(self.value(condition) for condition in loop.ifs):
                    yield from self._loop(loops[1:])
        finally:
            self._loop_names = outer

    def _call(self, node: ast.Call) -> object:
        name = _source(node.func)
        if name not in FUNCTIONS:
            raise self.error(node, f"'{name}' cannot be called; par-files know {', '.join(FUNCTIONS)}")
        if node.keywords:
            raise self.error(node, f"{name}() takes no named arguments here")
        arguments = [self.value(argument) for argument in node.args]
        if name in ("min", "max"):
            self._spend(node, sum(len(a) if isinstance(a, range) else _size(a) for a in arguments))
        return self._apply(node, FUNCTIONS[name], *arguments)

    def _apply(self, node: ast.expr, function: Callable[..., object], *arguments: object) -> object:
        try:
            result = function(*arguments)
        except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise self.error(node, f"'{_source(node)}': {error}") from None
        return self._checked(node, result)

    def _checked(self, node: ast.expr, result: object) -> object:
        if isinstance(result, complex):
            raise self.error(node, f"'{_source(node)}' is a complex number")
        if isinstance(result, int) and result.bit_length() > MAX_INTEGER_BITS:
            raise self.error(node, "the number is too large")
        self._spend(node, _size(result))
        return result

    def _spend(self, node: ast.expr, steps: int) -> None:
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise self.error(node, "too much to compute or too long a list for a par-file")


def _size(value: object) -> int:
    """Elements at every level, and characters: what copying or comparing the value costs."""
    size, stack = 0, [value]
    while stack and size <= MAX_STEPS:
        item = stack.pop()
        if isinstance(item, str):
            size += len(item)
        elif isinstance(item, list | tuple):
            size += len(item)
            stack.extend(item)
        elif isinstance(item, dict):
            size += len(item)
            stack.extend(item.keys())
            stack.extend(item.values())
    return size


def _source(node: ast.AST) -> str:
    """The expression as it would be written, cut to a length that suits a message."""
    try:
        text = ast.unparse(node)
    except RecursionError:
        return "…"
    return text if len(text) <= 60 else text[:57] + "…"
