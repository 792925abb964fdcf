"""tds2el_refined.par: the conf_file with the values that a fit has refined, ready for the next harvest."""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping
from pathlib import Path

from tds2el import __version__
from tds2el.fit.result import CorrectionTable
from tds2el.options import BY_NAME
from tds2el.output import now, replaced

REFINED = "tds2el_refined.par"


def write_refined(path: Path, conf_file: Path, corrections: CorrectionTable) -> list[str]:
    """Write the conf_file again with refined values.

    Values are replaced where they stand, so that comments and helpers stay; what the conf_file does not assign comes at
    its end. A_variables becomes None, for its corrections are in the values now; relative paths become absolute where
    the new file lies in another folder.

    Parameters
    ----------
    path : Path
        Replaced when the new file is whole.
    conf_file : Path
    corrections : CorrectionTable

    Returns
    -------
    list of str
        The refined options that the conf_file did not assign.

    Raises
    ------
    InputError
        If the file cannot be written; one of that name is then untouched.
    """
    values = {name: repr(float(v)) for name, v in zip(corrections.names, corrections.value, strict=True)}
    return rewrite_conf(path, conf_file, values, "refined", {"A_variables": "None"})


def rewrite_conf(
    path: Path, conf_file: Path, values: Mapping[str, str], verb: str, where_assigned: Mapping[str, str]
) -> list[str]:
    """Write a par-file again with other values.

    Parameters
    ----------
    path : Path
        Replaced when the new file is whole.
    conf_file : Path
    values : mapping of str to str
        Option to its new value, as a par-file has it.
    verb : str
        What was done to them, for the comments.
    where_assigned : mapping of str to str
        Values that only replace what the file assigns.

    Returns
    -------
    list of str
        Options of `values` that the file did not assign.

    Raises
    ------
    InputError
        If the file cannot be written; one of that name is then untouched.
    """
    text = conf_file.read_text(encoding="utf-8-sig")
    new, assigned = _replaced(text, {**values, **where_assigned}, conf_file.parent, path.parent)
    missing = [name for name in values if name not in assigned]
    lines = [f"# {conf_file.name} with what tds2el {__version__} {verb} on {now()}", new.rstrip("\n")]
    if missing:
        lines += [
            "",
            f"# {verb.capitalize()}, and not assigned above",
            *(f"{name} = {values[name]}" for name in missing),
        ]
    with replaced(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return missing


def _replaced(text: str, values: dict[str, str], old: Path, new: Path) -> tuple[str, set[str]]:
    """The text with other values, from the last to the first so that places stay right; and what was replaced."""
    lines = text.encode().splitlines(keepends=True)  # ast counts columns in bytes
    assigned: set[str] = set()
    edits: dict[tuple[int, int], tuple[ast.AST, str]] = {}
    for statement in ast.walk(ast.parse(text)):
        if not isinstance(statement, ast.Assign):
            continue
        targets = [ast.unparse(target) for target in statement.targets]
        options = [BY_NAME[name].name if name in BY_NAME else "" for name in targets]
        if any(name in values for name in options):
            # a = b = 1 becomes a = 2; b = 3: each name has its own value now.
            own = [values.get(o, ast.unparse(statement.value)) for o in options]
            parts = (f"{name} = {value}" for name, value in zip(targets, own, strict=True))
            place: ast.AST = statement.value if len(targets) == 1 else statement
            edits[_start(place)] = (place, own[0] if len(targets) == 1 else "; ".join(parts))
            assigned |= {name for name in options if name in values}
        elif old != new and any(name and BY_NAME[name].kind.path for name in options):
            for part in ast.walk(statement.value):
                # Of a path put together from several strings only the first begins it.
                if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value:
                    edits[_start(part)] = (part, repr(os.path.join(old, os.path.expanduser(part.value))))
                    if not _is_list(statement.value):
                        break
    for (line, column), (node, value) in sorted(edits.items(), reverse=True):
        last = (getattr(node, "end_lineno", None) or line) - 1
        before, after = lines[line - 1][:column], lines[last][getattr(node, "end_col_offset", column) :]
        lines[line - 1 : last + 1] = [before + value.encode() + after]
    return b"".join(lines).decode(), assigned


def _start(node: ast.AST) -> tuple[int, int]:
    return getattr(node, "lineno", 0), getattr(node, "col_offset", 0)


def _is_list(node: ast.AST) -> bool:
    return isinstance(node, ast.List | ast.Tuple)
