"""Par-files: text to names and values, with file and line for every error.

A par-file is written in a small subset of Python and is never executed. The subset: comments, assignments
(also ``a = b = 3``), ``if`` blocks, ``pass``; numbers, strings, True, False, None, lists, tuples, dicts,
names given before; arithmetic, comparisons, ``and``, ``or``, ``not``, concatenation and repetition of lists; list
and dict comprehensions over ``range()``; calls of range, len, abs, min, max, float, int, minimiser.Variable.
"""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tds2el.errors import InputError
from tds2el.expression import FUNCTIONS, MISSING_PLUS, Evaluator, Variable

__all__ = ["Assignment", "ParFile", "Variable", "evaluate", "evaluate_expression", "read_parfile"]

MAX_BYTES = 4_000_000  # anything larger is some other file, named by mistake
_RESERVED = {name.partition(".")[0] for name in FUNCTIONS}


@dataclass(frozen=True)
class Assignment:
    """One assignment of a par-file; a name assigned again makes a further one."""

    name: str
    value: object
    file: str
    line: int

    @property
    def where(self) -> str:
        """The place as messages give it, ``file:line``."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class ParFile:
    """What a par-file says.

    Attributes
    ----------
    file
        Name of the file as messages give it.
    assignments
        In the order in which they were made; branches of ``if`` blocks that are not taken make none.
    last_read
        The last line on which each name is read, in branches taken or not: users switch with ``if False:``.
    """

    file: str
    assignments: tuple[Assignment, ...]
    last_read: dict[str, int]

    def is_helper(self, name: str) -> bool:
        """Whether the name is read after it was first assigned."""
        first = next(a.line for a in self.assignments if a.name == name)
        return self.last_read.get(name, 0) >= first


def read_parfile(path: Path, file: str | None = None) -> ParFile:
    """Read and evaluate the par-file `path`, which messages call `file` (by default its path).

    Raises
    ------
    InputError
        If it cannot be read or evaluated; see `evaluate`.
    """
    file = file or str(path)
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); check the path") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"{file}: larger than {MAX_BYTES // 1_000_000} MB, so not a par-file; check the path")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{file}:{line}: not UTF-8 text; is this a par-file?") from None
    return evaluate(text, file)


def evaluate(text: str, file: str) -> ParFile:
    """Evaluate the text of a par-file, which messages call `file`.

    Raises
    ------
    InputError
        One line ``file:line: …`` for anything outside the subset, mistakes in values and excessive work.
    """
    tree = _parse(text, file, "exec")
    assert isinstance(tree, ast.Module)
    evaluator = Evaluator(file)
    assignments: list[Assignment] = []
    _run(tree.body, evaluator, assignments)
    return ParFile(file, tuple(assignments), _last_reads(tree))


def evaluate_expression(text: str, source: str) -> object:
    """Evaluate one expression of the subset, without any names; its errors begin with `source`."""
    tree = _parse(text.strip(), source, "eval")
    assert isinstance(tree, ast.Expression)
    return Evaluator(source).value(tree.body)


def _run(body: Sequence[ast.stmt], evaluator: Evaluator, assignments: list[Assignment]) -> None:
    for statement in body:
        match statement:
            case ast.Assign(targets=targets, value=expression):
                value = evaluator.value(expression)
                for target in targets:
                    if not isinstance(target, ast.Name):
                        raise evaluator.error(target, "only plain names can be assigned to: 'name = value'")
                    if target.id in _RESERVED:
                        raise evaluator.error(target, f"'{target.id}' is a function here; choose another name")
                    evaluator.names[target.id] = value
                    assignments.append(Assignment(target.id, value, evaluator.file, statement.lineno))
            case ast.If(test=test, body=taken, orelse=other):
                _run(taken if evaluator.value(test) else other, evaluator, assignments)
            case ast.Pass():
                pass
            case _:
                raise evaluator.error(statement, "only 'name = value' and 'if' blocks may stand in a par-file")


def _parse(text: str, file: str, mode: str) -> ast.AST:
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{file}:{line}: a null byte; is this a par-file?")
    try:
        with warnings.catch_warnings():  # a "\d" in a path is not worth Python's warning
            warnings.simplefilter("ignore")
            return ast.parse(text, file, mode)
    except SyntaxError as error:
        plus = _missing_plus(text)
        line, message = (error.lineno or 1, error.msg) if plus is None else (plus, MISSING_PLUS)
        raise InputError(f"{file}:{line}: {message}") from None
    except (RecursionError, MemoryError):
        # Python does not say where; what overflows its parser is long.
        lines = text.split("\n")
        line = lines.index(max(lines, key=len)) + 1
        raise InputError(f"{file}:{line}: an expression is nested too deeply") from None


def _missing_plus(text: str) -> int | None:
    """Line of the first ``]`` that ``[`` follows inside parentheses, if there is one."""
    depth, before = 0, ("", 1)
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in (tokenize.NL, tokenize.COMMENT):
                continue
            if depth > 0 and before[0] == "]" and token.string == "[":
                return before[1]
            depth += (token.string == "(") - (token.string == ")")
            before = (token.string, token.start[0])
    except (tokenize.TokenError, SyntaxError):
        pass
    return None


def _last_reads(tree: ast.Module) -> dict[str, int]:
    own: set[int] = set()  # a comprehension reads its own variable, not the file's name
    for node in ast.walk(tree):
        if isinstance(node, ast.ListComp | ast.DictComp):
            names = {loop.target.id for loop in node.generators if isinstance(loop.target, ast.Name)}
            own |= {id(n) for n in ast.walk(node) if isinstance(n, ast.Name) and n.id in names}
    reads: dict[str, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and id(node) not in own:
            reads[node.id] = max(node.lineno, reads.get(node.id, 0))
    return reads
