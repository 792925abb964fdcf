"""Options and the kinds of their values: what a user may write, and what the program then works with."""

from __future__ import annotations

import math
import os
import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tds2el.corrections import corrections_from_value
from tds2el.errors import InputError
from tds2el.layer import layer_from_name
from tds2el.parfile import Variable


@dataclass(frozen=True)
class Kind:
    """One kind of value.

    Attributes
    ----------
    text
        The kind in words, as it completes "must be …".
    convert
        Returns the value in the form the program uses; raises `ValueError` if it is not of this kind, with a
        reason where `text` does not say enough.
    path
        "file": a path, made absolute against the folder of the file that names it. "files": several. "prefix": the same
        for the beginning of paths, which stays a string. "masks": names of files as the third of each entry. "": no
        path.
    """

    text: str
    convert: Callable[[object], object]
    path: Literal["", "file", "files", "prefix", "masks"] = ""


Run = Literal["harvest", "volume", "fitSpots", "every run", "extract-maxima", "align", "normalise", "export-geometry"]
"""What can need an option: a harvest, a volume, a fit, every run of `tds2el input.par`, another command."""


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes
    ----------
    name, kind, default, help, unit
        As the documentation shows them.
    needed
        The runs that cannot do without it.
    spellings
        Other names under which the option is accepted.
    """

    name: str
    kind: Kind
    default: object
    help: str
    unit: str = ""
    needed: tuple[Run, ...] = ()
    spellings: tuple[str, ...] = ()

    def resolve(self, value: object, where: str, folder: Path) -> object:
        """The value as the program uses it.

        Parameters
        ----------
        value
            As evaluated from the user's text.
        where
            The place that gave it, for messages.
        folder
            The folder against which relative paths are taken.

        Raises
        ------
        InputError
            If the value is not of the option's kind.
        """
        try:
            converted = self.kind.convert(value)
        except ValueError as error:
            reason = str(error) or f"must be {self.kind.text}"
            raise InputError(f"{where}: {self.name} = {short(value)}: {reason}") from None
        if self.kind.path == "masks" and isinstance(converted, tuple):
            return tuple((first, last, Path(_absolute(name, folder))) for first, last, name in converted)
        if self.kind.path == "files" and isinstance(converted, tuple):
            return tuple(Path(_absolute(name, folder)) for name in converted)
        if self.kind.path and isinstance(converted, str):
            # A prefix is not normalised: the slash at the end of "frames/" matters.
            if self.kind.path == "prefix":
                return os.path.join(os.path.abspath(folder), os.path.expanduser(converted))
            return Path(_absolute(converted, folder))
        return converted


def _absolute(name: str, folder: Path) -> str:
    return os.path.abspath(os.path.join(os.path.abspath(folder), os.path.expanduser(name)))


def short(value: object) -> str:
    """A value as messages show it: on one line, and not long."""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = 80
    return shortener.repr(value)


class _NotThisKind(ValueError):
    """Raised without a reason: the kind's own text says what was expected."""


def is_number(value: object) -> bool:
    """Whether it is a finite number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(text: str, accept: Callable[[float], bool] = lambda x: True) -> Kind:
    """A finite number that `accept` accepts."""

    def convert(value: object) -> float:
        if not is_number(value):
            raise _NotThisKind
        assert isinstance(value, int | float)
        if not accept(float(value)):
            raise _NotThisKind
        return float(value)

    return Kind(text, convert)


def integer(text: str, low: int, high: float = math.inf) -> Kind:
    """A whole number from `low` to `high`; 3.0 is one."""

    def convert(value: object) -> int:
        if not is_number(value):
            raise _NotThisKind
        assert isinstance(value, int | float)
        if value != int(value) or not low <= value <= high:
            raise _NotThisKind
        return int(value)

    return Kind(text, convert)


def odd(low: int, high: float = math.inf) -> Kind:
    """An odd whole number from `low` to `high`, which are odd too."""
    whole = integer("", low, high)

    def convert(value: object) -> object:
        converted = whole.convert(value)
        if not isinstance(converted, int) or converted % 2 == 0:
            raise _NotThisKind
        return converted

    range_ = f"of at least {low}" if high == math.inf else f"from {low} to {high}"
    return Kind(f"an odd whole number {range_}", convert)


def choice(*names: str | None) -> Kind:
    """One of some strings, or None where that is among them."""
    quoted = ["None" if n is None else f'"{n}"' for n in names]

    def convert(value: object) -> object:
        if not (value is None or isinstance(value, str)) or value not in names:
            raise _NotThisKind
        return value

    return Kind(", ".join(quoted[:-1]) + " or " + quoted[-1], convert)


def optional(kind: Kind) -> Kind:
    """The kind, or None."""
    return Kind(f"{kind.text}, or None", lambda x: None if x is None else kind.convert(x), kind.path)


LARGEST_INDEX = 10_000
"""Of reflections: beyond what any cell and wavelength make possible."""

LARGEST_VOLUME = 10**11
"""Voxels; they take 20 bytes each in the file."""

LARGEST_CONSTANT = 1e5
"""GPa; diamond's are about 1000."""

LARGEST_EXPANSION = 0.01
"""1/K; that of plastic crystals is below 0.001."""

_ENTRIES = tuple(f"A{i}{j}" for i in range(1, 7) for j in range(i, 7))
QUANTITIES = (
    *_ENTRIES,
    *("K_Voigt", "K_Reuss", "K_Hill", "G_Voigt", "G_Reuss", "G_Hill", "E_Hill"),
    *("beta_a", "beta_b", "beta_c"),
)
"""What the option `known` may name: constants and moduli in GPa, linear compressibilities along the axes in 1/GPa."""


def _flag(value: object) -> bool:
    if not isinstance(value, bool | int) or value not in (0, 1):
        raise _NotThisKind
    return bool(value)


def _automatic(value: object) -> bool | str:
    return value if value == "auto" and isinstance(value, str) else _flag(value)


def _mosaicity(value: object) -> float | str:
    if value == "estimate" and isinstance(value, str):
        return value
    return float(number(_MOSAICITY, lambda x: 0 <= x <= 5).convert(value))  # type: ignore[arg-type]


_MOSAICITY = 'a number from 0 to 5, or "estimate"'


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise _NotThisKind
    return value


def _text_or_empty(value: object) -> str:
    return "" if value == "" else _text(value)


def _direction(value: object) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(map(is_number, value)):
        raise _NotThisKind
    if not 1e-6 <= max(abs(x) for x in value) <= 1e6:
        raise _NotThisKind
    return tuple(float(x) for x in value)


def _reflections(value: object) -> tuple[tuple[int, ...], ...]:
    if not isinstance(value, list | tuple) or not value:
        raise _NotThisKind
    triples = []
    for position, hkl in enumerate(value, 1):
        if not isinstance(hkl, list | tuple) or len(hkl) != 3 or not all(is_number(x) and x == int(x) for x in hkl):
            raise ValueError(f"entry {position} must be three whole numbers [h, k, l]")
        if any(abs(x) > LARGEST_INDEX for x in hkl):
            raise ValueError(f"entry {position} has an index above {LARGEST_INDEX}")
        if not any(hkl):
            raise ValueError(f"entry {position} is 0 0 0, the direct beam, which is no reflection")
        triples.append(tuple(int(x) for x in hkl))
    return tuple(triples)


def _bound(value: object, unlimited: float) -> float:
    if value is None:
        return unlimited
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise ValueError
    return float(value)


def _start_values(value: object) -> object:
    if value is None or value == "auto":
        return value
    if not isinstance(value, dict):
        raise _NotThisKind
    constants: dict[str, tuple[float, float, float]] = {}
    for name, entry in value.items():
        if not isinstance(name, str) or not re.fullmatch("A[1-6][1-6]", name) or name[1] > name[2]:
            raise ValueError(f"{name!r} is no elastic constant; names are A11 to A66, the smaller index first")
        expected = f'{name} must be [start, min, max] with min <= start <= max, or None for "no bound"'
        if not isinstance(entry, list | tuple) or len(entry) != 3 or not is_number(entry[0]):
            raise ValueError(expected)
        try:
            start, low, high = float(entry[0]), _bound(entry[1], -math.inf), _bound(entry[2], math.inf)
        except ValueError:
            raise ValueError(expected) from None
        if low > high:
            raise ValueError(expected)
        if abs(start) > LARGEST_CONSTANT:
            raise ValueError(f"{name} starts beyond {LARGEST_CONSTANT:g} GPa")
        constants[name] = (start, low, high)
    return constants


def _device(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        for name in ("GPU", "CPU", "numpy"):
            if value.casefold() == name.casefold():
                return name
        platform, colon, device = value.partition(":")
        if platform.strip() and colon and device.strip():
            return value
    raise _NotThisKind


def _variations(value: object) -> object:
    """Bounds [min, max] of what is added; also in the forms of A_variables. {} refines nothing."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _NotThisKind
    entries: dict[object, object] = {}
    for name, bounds in value.items():
        entries[name] = bounds
        if isinstance(bounds, list | tuple):
            if len(bounds) != 2 or not all(map(is_number, bounds)) or not bounds[0] <= 0 <= bounds[1]:
                raise ValueError(f"{name} must be [min, max] of what is added to the start value: min <= 0 <= max")
            entries[name] = Variable(0.0, float(bounds[0]), float(bounds[1]))
    return corrections_from_value(entries) or ()


SPOT_LIMITS = {
    "min_points": (0, math.inf),
    "min_coverage": (0, 1),
    "min_signal": (0, math.inf),
    "max_chi2": (0, math.inf),
    "max_offset": (0, math.inf),
    "max_lost_frames": (0, 1),
}
"""What spot_filter knows, with the range of each limit."""


def _spot_limits(value: object) -> dict[str, float] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _NotThisKind
    for name, limit in value.items():
        if name not in SPOT_LIMITS:
            raise ValueError(f"{name!r} is no limit; what there is: {', '.join(SPOT_LIMITS)}")
        low, high = SPOT_LIMITS[name]
        if not is_number(limit) or not low <= limit <= high:
            raise ValueError(f"{name} must be a number not below 0" + (f" and not above {high}" if high == 1 else ""))
    return {str(name): float(limit) for name, limit in value.items()}


def _masks_of_frames(value: object) -> tuple[tuple[int, int, str], ...] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple):
        raise _NotThisKind
    masks = []
    for position, entry in enumerate(value, 1):
        if not isinstance(entry, list | tuple) or len(entry) != 3:
            raise ValueError(f"entry {position} must be [first frame, last frame, name of a mask]")
        first, last, name = entry
        if not all(is_number(x) and x == int(x) for x in (first, last)) or not 0 <= first <= last:
            raise ValueError(f"entry {position} must have whole numbers 0 <= first <= last")
        masks.append((int(first), int(last), _text(name)))
    return tuple(masks)


def _region(value: object) -> object:
    """A rectangle, both ends included, or the name of a mask."""
    if value is None or isinstance(value, str):
        return None if value is None else _text(value)
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise _NotThisKind
    for name, pair in zip(("rows", "columns"), value, strict=True):
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(is_number(x) and x == int(x) for x in pair):
            raise ValueError(f"{name} must be two whole numbers [first, last]")
        if not 0 <= pair[0] <= pair[1]:
            raise ValueError(f"{name} must be 0 <= first <= last")
    return tuple((int(first), int(last)) for first, last in value)


def _files(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not value:
        raise _NotThisKind
    names = tuple(_text(name) for name in value)
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ValueError(f"{repeated[0]!r} is named twice")
    return names


def _names(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not value:
        raise _NotThisKind
    return tuple(dict.fromkeys(_text(name) for name in value))


def _spots(value: object) -> object:
    return value if value == "auto" else _reflections(value)


def _vector(value: object) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(map(is_number, value)):
        raise _NotThisKind
    return tuple(float(x) for x in value)


def _vectors(value: object) -> tuple[tuple[float, ...], ...]:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise _NotThisKind
    for position, vector in enumerate(value, 1):
        if not isinstance(vector, list | tuple) or len(vector) != 3 or not all(map(is_number, vector)):
            raise ValueError(f"entry {position} must be three numbers")
        if not any(vector):
            raise ValueError(f"entry {position} is 0 0 0, which has no direction")
    return tuple(_vector(vector) for vector in value)


def _limits(value: object) -> tuple[tuple[float, float], ...]:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise _NotThisKind
    for position, pair in enumerate(value, 1):
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(map(is_number, pair)) or pair[0] >= pair[1]:
            raise ValueError(f"entry {position} must be [min, max] with min < max")
    return tuple((float(low), float(high)) for low, high in value)


def _nodes(value: object) -> tuple[int, ...]:
    values = list(value) if isinstance(value, list | tuple) else [value] * 3
    if len(values) != 3:
        raise _NotThisKind
    numbers = []
    for n in values:
        if not is_number(n):
            raise _NotThisKind
        assert isinstance(n, int | float)
        if n != int(n) or n < 1:
            raise _NotThisKind
        numbers.append(int(n))
    if math.prod(numbers) > LARGEST_VOLUME:
        raise ValueError(f"more than {LARGEST_VOLUME:.0e} voxels; take fewer nodes")
    return tuple(numbers)


def _layers(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise _NotThisKind
    return tuple(dict.fromkeys(layer_from_name(name).name for name in value))


def _known(value: object) -> dict[str, tuple[float, float, str]] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not value:
        raise _NotThisKind
    found: dict[str, tuple[float, float, str]] = {}
    for name, entry in value.items():
        if name not in QUANTITIES:
            raise ValueError(f"{name!r} is not among what can be known: A11 to A66, {', '.join(QUANTITIES[21:])}")
        right = f'{name} must be [value, sigma, "isothermal"] or [value, sigma, "adiabatic"], with sigma above 0'
        if not isinstance(entry, list | tuple) or len(entry) != 3 or not is_number(entry[0]) or not is_number(entry[1]):
            raise ValueError(right)
        if entry[1] <= 0 or entry[2] not in ("isothermal", "adiabatic"):
            raise ValueError(right)
        if entry[0] <= 0 and name[0] != "A" and name[:4] != "beta":
            raise ValueError(f"{name} must be positive")
        found[name] = (float(entry[0]), float(entry[1]), str(entry[2]))
    return found


def _profiles(value: object) -> bool | tuple[str, ...]:
    if not isinstance(value, list | tuple):
        return _flag(value)
    if not value or not all(isinstance(name, str) and name in _ENTRIES for name in value):
        raise _NotThisKind
    return tuple(dict.fromkeys(str(name) for name in value))


def _attenuation(value: object) -> tuple[float, float]:
    given = value if isinstance(value, list | tuple) else (value, 0.0)
    numbers = [float(x) for x in given if is_number(x)]
    if len(numbers) != 2 or len(given) != 2 or numbers[0] < 1 or numbers[1] < 0:
        raise _NotThisKind
    return numbers[0], numbers[1]


def _expansion(value: object) -> tuple[float, ...] | None:
    if value is None:
        return None
    given = value if isinstance(value, list | tuple) else (value,)
    values = tuple(float(x) for x in given if is_number(x))
    if len(values) not in (1, 3, 6) or len(values) < len(given):
        raise _NotThisKind
    if max(map(abs, values)) > LARGEST_EXPANSION:
        raise ValueError(f"is beyond {LARGEST_EXPANSION:g} 1/K, where some 1e-5 are common")
    return values


ANY = number("a finite number")
POSITIVE = number("a positive number", lambda x: x > 0)
DENSITY = number("a number from 0.01 to 100", lambda x: 0.01 <= x <= 100)
NOT_NEGATIVE = number("a number not below 0", lambda x: x >= 0)
NOT_ZERO = number("a finite number other than 0", lambda x: x != 0)
TOLERANCE = number("a number above 0 and not above 0.5", lambda x: 0 < x <= 0.5)
FRACTION = number("a number from 0 to 1", lambda x: 0 <= x <= 1)
CELL_LENGTH = number("a length from 0.1 to 10000", lambda x: 0.1 <= x <= 10_000)
CELL_ANGLE = number("an angle between 0 and 180", lambda x: 0 < x < 180)
COUNT = integer("a whole number of at least 1", 1)
ONE_IN = integer("a whole number from 1 to 1000000", 1, 1_000_000)
FLAG = Kind("0 or 1, False or True", _flag)
AUTOMATIC = Kind('"auto", 0 or 1, False or True', _automatic)
MOSAICITY = Kind(_MOSAICITY, _mosaicity)
TEXT = Kind("a string that is not empty", _text)
FILE = Kind("the name of a file or folder", _text, "file")
PREFIX = Kind("a string that is not empty", _text, "prefix")
TEXT_OR_EMPTY = Kind("a string", _text_or_empty)
DIRECTION = Kind("three numbers, not all 0", _direction)
REFLECTIONS = Kind("a list of reflections [h, k, l]", _reflections)
START_VALUES = Kind('{"A11": [start, min, max], …}, "auto" or None', _start_values)
DEVICE = Kind('None, "GPU", "CPU", "numpy" or "platform:device"', _device)
CORRECTIONS = Kind("14 times minimiser.Variable(value, min, max) or −n, or a dict by name", corrections_from_value)
VARIATIONS = Kind('{"r1": [min, max], …}, {} or None', _variations)
SPOT_FILTER = Kind('{"min_points": 1000, …}, or None', _spot_limits)
REGION = Kind("[[first row, last row], [first column, last column]], the name of a mask, or None", _region, "file")
SPOTS = Kind('a list of reflections [h, k, l], or "auto"', _spots)
MASKS = Kind("a list of [first frame, last frame, name of a mask], or None", _masks_of_frames, "masks")
VECTOR = Kind("three numbers", _vector)
VECTORS = Kind("three vectors of three numbers, not 0", _vectors)
LIMITS = Kind("three pairs [min, max]", _limits)
NODES = Kind("three whole numbers of at least 1, or one for all", _nodes)
LAYERS = Kind('a list of names of layers, such as ["hk0", "hk0.5"], or []', _layers)
FILES = Kind("a list of names of files, or None", _files, "files")
PROFILES = Kind('True, False or a list of constants, such as ["A11"]', _profiles)
ATTENUATION = Kind("a number of at least 1, or [number, sigma]", _attenuation)
KNOWN = Kind('{"K_Reuss": [value, sigma, "isothermal" or "adiabatic"], …}, or None', _known)
EXPANSION = Kind("one, three or six numbers, or None", _expansion)
NAMES = Kind("a list of names, or None", _names)
