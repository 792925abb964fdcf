"""The evaluator of par-files: what it accepts equals Python, and it accepts nothing else."""

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tds2el.errors import InputError
from tds2el.parfile import Variable, evaluate, evaluate_expression, read_parfile


def names(text: str) -> dict[str, Any]:
    return {a.name: a.value for a in evaluate(text, "input.par").assignments}


def error(text: str) -> str:
    with pytest.raises(InputError) as caught:
        evaluate(text, "input.par")
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_assignments_of_every_kind() -> None:
    text = """
# a comment
a = b = 3
x = -1.5e-3 + 2**3 // 3 % 2  # another
name = "frames/" + 'run_1'
flag, = [True], None
"""
    with pytest.raises(InputError, match=r"input\.par:6: "):  # tuple targets are outside the subset
        evaluate(text, "input.par")
    assert names(text.replace("flag, = [True], None", "flag = [True, None, (1, 2), {'A11': [1, 2]}]")) == {
        "a": 3,
        "b": 3,
        "x": -1.5e-3 + 2**3 // 3 % 2,
        "name": "frames/run_1",
        "flag": [True, None, (1, 2), {"A11": [1, 2]}],
    }


def test_lists_comprehensions_and_calls() -> None:
    text = """
n = 3
spots = [[h, 0, 1] for h in range(-n, n + 1) if h != 0] + [[1, k, l] for k in range(2) for l in range(k + 1)]
limits = {"A11": [max(1, 2), min(3, 4, 5), abs(-6)], "A12": [len([1, 2]), float("1e3"), int(7.9)]}
rows = [[r * c for c in range(2)] for r in range(2)]
table = {i: i * i for i in range(3)}
"""
    scope: dict[str, Any] = {}
    exec(text, scope)  # the original's way, as the independent truth
    assert names(text) == {key: scope[key] for key in ("n", "spots", "limits", "rows", "table")}


def test_if_blocks() -> None:
    text = """
test = 2
if False:
    a = undefined
elif 1 < test <= 2 and not test == 1:
    a = 1
    if None is None or 1 / 0:
        b = 2
else:
    import os
    a = 3
if 0:
    pass
"""
    assert names(text) == {"test": 2, "a": 1, "b": 2}


def test_reassignments_and_reads_are_recorded() -> None:
    parfile = evaluate("w = 1\nx = w\nif False:\n    y = [x for z in range(2)]\nx = 2\nz = 1\n", "input.par")
    assert [(a.name, a.value, a.where) for a in parfile.assignments] == [
        ("w", 1, "input.par:1"),
        ("x", 1, "input.par:2"),
        ("x", 2, "input.par:5"),
        ("z", 1, "input.par:6"),
    ]
    assert parfile.is_helper("w")
    assert parfile.is_helper("x"), "a read in a branch not taken counts: users switch with if False"
    assert not parfile.is_helper("z")


def test_a_comprehension_reads_its_own_variable_not_the_files() -> None:
    assert not evaluate("h = 1\nx = [h for h in range(3)]\n", "input.par").is_helper("h")


def test_minimiser_variable() -> None:
    text = "tx = 0.5\nA_variables = [minimiser.Variable(0.0, -tx, tx), -1] + [minimiser.Variable(0, 0, 0)] * 2"
    assert names(text)["A_variables"] == [Variable(0.0, -0.5, 0.5), -1, Variable(0, 0, 0), Variable(0, 0, 0)]


def test_missing_plus_of_the_documentation() -> None:
    text = """A_variables = (
    [minimiser.Variable(0, 0, 0), minimiser.Variable(0, 0, 0)]
    [minimiser.Variable(0, -1, 1), -1]
)
"""
    assert error(text).startswith("input.par:2: a '+' is missing between ']' and '['")
    empty = "x = 1\ny = (\n  [1]  # comment\n\n  []\n)\n"  # Python itself calls this one a syntax error
    assert error(empty).startswith("input.par:3: a '+' is missing")
    assert names(text.replace("]\n    [", "]\n    + ["))["A_variables"][3] == -1


def test_undefined_name_of_the_documentation() -> None:
    text = "A_variables = [minimiser.Variable(0, -activ1, activ1), minimiser.Variable(0, -activ2, activ2)]"
    assert error("a = 1\n" + text).startswith("input.par:2: the name 'activ1' is not defined")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("import os", "only 'name = value'"),
        ("__import__('os').system('true')", "only 'name = value'"),
        ("a = __import__('os')", "cannot be called"),
        ("a = open('x')", "cannot be called"),
        ("a = (lambda: 1)()", "cannot be called"),
        ("a = minimiser.Other(1, 2, 3)", "cannot be called"),
        ("a = minimiser", "not defined"),
        ("a = ''.join", "not possible"),
        ("a = ().__class__", "not possible"),
        ("a = lambda: 1", "not possible"),
        ("a = f'{1}'", "not possible"),
        ("a = b'x'", "not possible"),
        ("a = 1j", "not possible"),
        ("a = {1, 2}", "not possible"),
        ("a = (i for i in range(3))", "not possible"),
        ("a = (b := 3)", "not possible"),
        ("a = 1 if True else 2", "not possible"),
        ("a = [*range(3)]", "not possible"),
        ("a = {**{}}", "not possible"),
        ("a = 1 << 2", "not possible"),
        ("a = 1 in [1]", "not possible"),
        ("a = 1 is 1", "not possible"),
        ("a = '%d' % 3", "computes with a str"),
        ("a = [1, 2][0]", "nothing can be indexed"),
        ("a = [i for i in [1, 2]]", r"run over range\(\) only"),
        ("a = [i for i, j in range(3)]", "with one name"),
        ("a = max([1], key=len)", "takes no named arguments"),
        ("a = max(*[1, 2])", "not possible"),
        ("a += 1", "only 'name = value'"),
        ("a: int = 1", "only 'name = value'"),
        ("a.b = 1", "only plain names"),
        ("range = 3", "is a function here"),
        ("minimiser = 3", "is a function here"),
        ("for i in range(3): a = i", "only 'name = value'"),
        ("while True: pass", "only 'name = value'"),
        ("def f(): pass", "only 'name = value'"),
        ("del a", "only 'name = value'"),
        ("a = 1 / 0", "division by zero"),
        ("a = 'x' + 1", "concatenate"),
        ("a = minimiser.Variable(1, 2)", "Variable"),
        ("a = minimiser.Variable('x', 1, 2)", "three numbers"),
        ("a = (-1) ** 0.5", "complex"),
        ("a = {[1]: 2}", "unhashable"),
        ("a = float('x')", "could not convert"),
        ("a = [1, 2", "never closed"),
        ("a = = 1", "invalid syntax"),
        ("lambda = 0.7", "invalid syntax"),
        ("  a = 1", "unexpected indent"),
        ("a = 'x\0'", "null"),
    ],
)
def test_nothing_else(line: str, says: str) -> None:
    with pytest.raises(InputError, match=rf"^input\.par:2: .*{says}"):
        evaluate("# first line\n" + line + "\n", "input.par")


@pytest.mark.parametrize(
    "text",
    [
        "a = 10 ** 10 ** 10",
        "a = 2.0 ** 1e9",
        "a = (10 ** 300) ** 300",
        "a = " + "9" * 5000,
        "a = " + "*".join(["(10 ** 300)"] * 9),
        "a = 'a' * 10 ** 9",
        "a = 10 ** 9 * [0]",
        "a = [0] * 10 ** 30",
        "a = [1] * 1000000\nb = a + a + a + a + a + a",
        "a = ['x' * 100000 for i in range(1000)]",
        "a = range(10 ** 12)",
        "a = range(0, -10 ** 40, -1)",
        "a = max(range(10 ** 12))",
        "a = [max(range(1000000)) for i in range(100)]",
        "a = [i for i in range(1000000) for j in range(1000000) if False]",
        "a = [1]\n" + "".join("a = [a, a]\n" for _ in range(100)),
        "a = [0] * 1000000\nb = [a == a for i in range(1000)]",
        "a = " + "[" * 150 + "]" * 150,
        "a = " + "(" * 5000 + ")" * 5000,
        "a = " + "-" * 100_000 + "1",
        "a = 1" + "+1" * 100_000,
        "a = b" + ".b" * 100_000,
        "a = 1" + " + 1" * 500,
    ],
)
def test_excessive_work_is_an_error_and_soon(text: str) -> None:
    start = time.perf_counter()
    message = error(text)
    assert message.startswith("input.par:")
    assert len(message) < 400
    assert time.perf_counter() - start < 20  # a few seconds of budget, where the work asked for would take years


def test_what_overflows_the_parser_has_its_line() -> None:
    assert error("a = 1\nb = " + "-" * 100_000 + "1\nc = 1\n").startswith("input.par:2: an expression is nested")


def test_deeply_nested_values_are_harmless() -> None:
    value = names("a = []\n" + "a = [a]\n" * 1500 + "c = 1\n")["c"]
    assert value == 1
    assert "input.par:1503: " in error("a = []\n" + "a = [a]\n" * 1500 + "\nb = a == [a]\n")


numbers = st.one_of(
    st.integers(0, 50).map(str),
    st.floats(0, 100, allow_nan=False).map(repr),
    st.sampled_from(["True", "False"]),
)
arithmetic = st.recursive(
    numbers,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner).map(lambda t: f"({' '.join(t)})"),
        st.tuples(inner, st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "and", "or"]), inner).map(
            lambda t: f"({' '.join(t)})"
        ),
        st.tuples(st.sampled_from(["-", "+", "not ", "abs", "float", "int"]), inner).map(lambda t: f"({t[0]}({t[1]}))"),
        st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(lambda t: f"{t[0]}({t[1]}, {t[2]})"),
    ),
    max_leaves=12,
)
lists = st.recursive(
    st.lists(arithmetic, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(" + ".join).map("({})".format),
        st.tuples(inner, st.integers(-1, 3)).map(lambda t: f"({t[0]} * {t[1]})"),
        st.tuples(inner, st.integers(0, 4)).map(lambda t: f"[{t[0]} + [i] for i in range({t[1]}) if i % 2]"),
        inner.map("len({})".format).map("[{}]".format),
    ),
    max_leaves=5,
)


@given(st.one_of(arithmetic, lists))
@example("-2 ** 2 + 7 // -2 * (-7 % 3)")
@example("[[h, k] for h in range(3) if h for k in range(h)]")
def test_agrees_with_python(text: str) -> None:
    try:
        expected = eval(text, {"__builtins__": {f.__name__: f for f in (abs, float, int, min, max, len, range)}})
    except ArithmeticError:
        with pytest.raises(InputError, match=r"^--set:1: "):
            evaluate_expression(text, "--set")
        return
    result = evaluate_expression(text, "--set")
    assert type(result) is type(expected)
    assert result == expected or repr(result) == repr(expected)  # NaN


@given(st.text(max_size=60))
@example("a = [0][")
@example("\ta")
def test_any_text_is_evaluated_or_refused_in_one_line(text: str) -> None:
    message = "input.par:"
    try:
        evaluate(text, "input.par")
    except InputError as refusal:
        message = str(refusal)
    assert message.startswith("input.par:")
    assert "\n" not in message


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "input.par"
    path.write_bytes("\ufeffa = 'Ångström'\r\nb = 1\r\n".encode())
    assert [a.value for a in read_parfile(path).assignments] == ["Ångström", 1]
    path.write_bytes(b"a = 1\nb = '\xe9'\n")
    with pytest.raises(InputError, match=r"input\.par:2: not UTF-8 text"):
        read_parfile(path)
    path.write_bytes(b"#" * 4_000_001)
    with pytest.raises(InputError, match="larger than 4 MB"):
        read_parfile(path)
    with pytest.raises(InputError, match=r"none\.par: cannot be read \(No such file"):
        read_parfile(tmp_path / "none.par")
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory"):
        read_parfile(tmp_path)
