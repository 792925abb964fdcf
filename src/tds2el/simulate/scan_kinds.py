"""Kinds of values that only options of a simulated scan have."""

from __future__ import annotations

import difflib
from typing import NamedTuple

from tds2el import kinds
from tds2el.crystal.cell import CELL_OPTIONS
from tds2el.kinds import Kind
from tds2el.options import TABLE

# Options of an experiment that are not numbers that an error can be added to.
_NO_ERROR = ("orientation_codes", "normal_to_pol")
GEOMETRY_OPTIONS = (*(option.name for option in TABLE["Experiment: beam, goniometer and detector"]), *CELL_OPTIONS)


class SecondLattice(NamedTuple):
    """A foreign crystal: its intensity relative to the first one's, and how it is turned against it, in degrees."""

    fraction: float
    r1: float
    r2: float
    r3: float


class Shadow(NamedTuple):
    """A disk on the detector: centre in frame 0, radius and step of the centre per frame, in pixels."""

    row: float
    column: float
    radius: float
    drow: float
    dcolumn: float
    transmission: float


def _numbers(value: object, length: int) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or len(value) != length or not all(map(kinds.is_number, value)):
        raise ValueError(f"needs rows of {length} numbers")
    return tuple(float(x) for x in value)


def _constants(value: object) -> dict[str, float] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(k, str) and kinds.is_number(v) for k, v in value.items()):
        raise ValueError('must be {"A11": value, …} in GPa')
    return {str(name): float(number) for name, number in value.items()}


def _tensor(value: object) -> tuple[tuple[float, ...], ...] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) != 6:
        raise ValueError("must have 6 rows of 6 numbers")
    return tuple(_numbers(row, 6) for row in value)


def _shape(value: object) -> tuple[int, int]:
    rows, columns = (int(x) for x in _numbers(value, 2))
    if not (1 < rows <= 10000 and 1 < columns <= 10000):
        raise ValueError("must be two whole numbers from 2 to 10000")
    return rows, columns


def _intervals(value: object) -> tuple[tuple[int, int], ...]:
    if not isinstance(value, list | tuple):
        raise ValueError("must be a list of [first, last]")
    pairs = tuple(tuple(int(x) for x in _numbers(pair, 2)) for pair in value)
    if not all(0 <= first <= last for first, last in pairs):
        raise ValueError("every entry must be [first, last] with 0 <= first <= last")
    return tuple((first, last) for first, last in pairs)


def _spots(value: object) -> object:
    return value if value == "auto" else kinds.REFLECTIONS.convert(value)


def _second_lattice(value: object) -> SecondLattice | None:
    if value is None:
        return None
    try:
        second = SecondLattice(*_numbers(value, 4))
    except ValueError:
        raise ValueError("must be [fraction, r1, r2, r3]") from None
    if not 0 <= second.fraction <= 1:
        raise ValueError("the fraction must be a number from 0 to 1")
    return second


def _shadow(value: object) -> Shadow | None:
    if value is None:
        return None
    try:
        shadow = Shadow(*_numbers(value, 6))
    except ValueError:
        raise ValueError("must be [row, column, radius, drow, dcolumn, transmission]") from None
    if shadow.radius <= 0:
        raise ValueError("the radius must be a positive number")
    if not 0 <= shadow.transmission <= 1:
        raise ValueError("the transmission must be a number from 0 to 1")
    return shadow


def _geometry_error(value: object) -> dict[str, float] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(k, str) and kinds.is_number(v) for k, v in value.items()):
        raise ValueError('must be {"r1": number, …}, numbers to add')
    possible = [name for name in GEOMETRY_OPTIONS if name not in _NO_ERROR]
    for name in value:
        if name not in possible:
            nearest = difflib.get_close_matches(name, possible, n=1)
            hint = f"did you mean '{nearest[0]}'?" if nearest else f"possible are {', '.join(possible)}"
            raise ValueError(f"'{name}' is no number of the geometry or the cell; {hint}")
    return {str(name): float(number) for name, number in value.items()}


CONSTANTS = Kind('{"A11": value, …}', _constants)
TENSOR = Kind("6 rows of 6 numbers", _tensor)
SHAPE = Kind("[rows, columns]", _shape)
INTERVALS = Kind("a list of [first, last]", _intervals)
SPOTS = Kind('"auto" or a list of reflections [h, k, l]', _spots)
ODD = kinds.odd(5)
SECOND_LATTICE = Kind("[fraction, r1, r2, r3], or None", _second_lattice)
SHADOW = Kind("[row, column, radius, drow, dcolumn, transmission], or None", _shadow)
GEOMETRY_ERROR = Kind('{"r1": number, …}, or None', _geometry_error)
