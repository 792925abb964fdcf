"""tds2el_refined.par: the conf_file with the values that a fit has refined, ready for the next harvest."""

from __future__ import annotations

import ast
import os
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
    text = conf_file.read_text(encoding="utf-8-sig")
    values = {name: repr(float(v)) for name, v in zip(corrections.names, corrections.value, strict=True)}
    new, assigned = _replaced(text, values | {"A_variables": "None"}, conf_file.parent, path.parent)
    missing = [name for name in values if name not in assigned]
    lines = [f"# {conf_file.name} with what tds2el {__version__} refined on {now()}", new.rstrip("\n")]
    if missing:
        lines += ["", "# Refined, and not assigned above", *(f"{name} = {values[name]}" for name in missing)]
    with replaced(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return missing


def _replaced(text: str, values: dict[str, str], old: Path, new: Path) -> tuple[str, set[str]]:
    """The text with other values, from the last to the first so that places stay right; and what was replaced."""
    lines = text.encode().splitlines(keepends=True)  # ast counts columns in bytes
    assigned: set[str] = set()
    edits: list[tuple[ast.expr, str]] = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Assign):
            continue
        names = [BY_NAME[t.id].name for t in node.targets if isinstance(t, ast.Name) and t.id in BY_NAME]
        for name in names:
            if name in values:
                edits.append((node.value, values[name]))
                assigned.add(name)
            elif BY_NAME[name].kind.path in ("file", "prefix") and old != new and isinstance(node.value, ast.Constant):
                given = node.value.value
                if isinstance(given, str) and given:
                    edits.append((node.value, repr(os.path.join(old, os.path.expanduser(given)))))
    for node, value in sorted(edits, key=lambda edit: (edit[0].lineno, edit[0].col_offset), reverse=True):
        first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
        before, after = lines[first][: node.col_offset], lines[last][node.end_col_offset :]
        lines[first : last + 1] = [before + value.encode() + after]
    return b"".join(lines).decode(), assigned
