"""The option A_variables: additive corrections to geometry and cell, which a fit may free."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tds2el.parfile import Variable

PLACES = (
    *("r1", "r2", "r3", "AA", "BB", "CC", "omega", "alpha", "beta", "kappa"),
    *("d1", "d2", "det_origin_X", "det_origin_Y"),
)
"""What the 14 places of the list correct, in their order."""
CORRECTABLE = (*PLACES, "dist", "beam_tilt_angle", "lmbda", "theta_offset", "omega_offset", "aAA", "aBB", "aCC")
"""Everything that the form by name can correct."""


@dataclass(frozen=True)
class Correction:
    """What is added to one parameter, in the parameter's own unit.

    Attributes
    ----------
    name : str
        The option that is corrected.
    value, lower, upper : float
        Start and bounds; lower == upper: `value` is added and stays.
    tied_to : str or None
        The option whose correction this one repeats; then value and bounds are that one's.
    """

    name: str
    value: float
    lower: float
    upper: float
    tied_to: str | None = None

    @property
    def free(self) -> bool:
        """Whether the fit varies it by itself."""
        return self.tied_to is None and self.lower < self.upper


def corrections_from_value(value: object) -> tuple[Correction, ...] | None:
    """The corrections that a par-file asks for, or None if none is free and all are zero.

    Parameters
    ----------
    value
        14 times minimiser.Variable(value, min, max) or −n (the same correction as n places before), or a dict of name
        to Variable or to the name of another correction that it repeats.

    Raises
    ------
    ValueError
        With what is wrong, for the caller to put the option's name before.
    """
    if value is None or (isinstance(value, bool | int | float) and value == 0):
        return None
    if isinstance(value, Mapping):
        entries = _by_name(value)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        entries = _by_place(value)
    else:
        raise ValueError("must be a list of 14 entries, or a dict of name to minimiser.Variable(value, min, max)")
    corrections = tuple(_resolved(name, entries) for name in entries)
    return corrections if any(c.free or c.value for c in corrections) else None


def _by_place(entries: Sequence[object]) -> dict[str, Variable | str]:
    if len(entries) != len(PLACES):
        raise ValueError(f"must have {len(PLACES)} entries ({', '.join(PLACES)}), not {len(entries)}")
    found: dict[str, Variable | str] = {}
    for place, (name, entry) in enumerate(zip(PLACES, entries, strict=True)):
        if isinstance(entry, int) and not isinstance(entry, bool) and entry < 0:
            if place + entry < 0:
                raise ValueError(f"entry {place + 1} ({name}) is {entry}, but there are only {place} places before it")
            found[name] = PLACES[place + entry]
        else:
            found[name] = _variable(name, entry, "or −n to repeat the entry n places before")
    return found


def _by_name(entries: Mapping[object, object]) -> dict[str, Variable | str]:
    found: dict[str, Variable | str] = {}
    for name, entry in entries.items():
        if not isinstance(name, str) or name not in CORRECTABLE:
            raise ValueError(f"{name!r} cannot be corrected; what can is {', '.join(CORRECTABLE)}")
        if isinstance(entry, str):
            if entry not in entries:
                raise ValueError(f"{name} repeats {entry!r}, which is not among the corrections")
            found[name] = entry
        else:
            found[name] = _variable(name, entry, "or the name of another correction to repeat")
    return found


def _variable(name: str, entry: object, otherwise: str) -> Variable:
    if not isinstance(entry, Variable):
        raise ValueError(f"{name} must be minimiser.Variable(value, min, max), {otherwise}")
    if not all(map(math.isfinite, (entry.value, entry.min, entry.max))) or entry.min > entry.max:
        raise ValueError(f"{name} needs finite numbers with min <= max")
    if entry.min < entry.max and not entry.min <= entry.value <= entry.max:
        raise ValueError(f"{name} starts at {entry.value:g}, outside its bounds {entry.min:g} to {entry.max:g}")
    return entry


def _resolved(name: str, entries: Mapping[str, Variable | str]) -> Correction:
    """The correction with the chain of ties followed to its end."""
    root, seen = name, {name}
    while isinstance(entry := entries[root], str):
        root = entry
        if root in seen:
            raise ValueError(f"{name} is tied in a circle")
        seen.add(root)
    return Correction(name, float(entry.value), float(entry.min), float(entry.max), None if root == name else root)
