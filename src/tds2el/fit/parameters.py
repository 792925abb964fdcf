"""The constants of a fit: start values, bounds, what is frozen, and where their common scale comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from tds2el.crystal.elasticity import TensorStructure
from tds2el.crystal.moduli import eigenvalues, isotropic_start
from tds2el.errors import InputError
from tds2el.fit.known import Known

Array = npt.NDArray[np.float64]

Guess = Mapping[str, tuple[float, float, float]]


class Scale(StrEnum):
    """Where the common scale of the constants comes from.

    At high temperature it is degenerate with the spot factors: only ratios of constants are measured.
    """

    KNOWN = "known"
    """A constant that is not zero is frozen by the user."""
    HELD = "held"
    """The first free constant keeps its start value."""
    FREE = "free"
    """Fitted: the quantum terms determine it."""
    DATUM = "datum"
    """Fitted: known constants or moduli, or Bragg intensities, determine it."""


@dataclass(frozen=True)
class Constants:
    """Start values and bounds of the free constants of a crystal.

    Attributes
    ----------
    structure : TensorStructure
    start, lower, upper : ndarray, shape (k,)
        GPa; lower == upper means frozen.
    known : Known, optional
        What is known of them from elsewhere.
    """

    structure: TensorStructure
    start: Array
    lower: Array
    upper: Array
    known: Known | None = None

    @property
    def names(self) -> list[str]:
        """Names of the free constants, A11 and so on."""
        return self.structure.names

    @property
    def frozen(self) -> npt.NDArray[np.bool_]:
        """Which constants the user froze."""
        return np.equal(self.lower, self.upper)

    @property
    def reference(self) -> int:
        """Index of the constant that keeps its start value while the scale is held: the first not frozen."""
        return int(np.flatnonzero(~self.frozen & (self.start != 0))[0])

    def initial_scale(self, option: str) -> Scale:
        """What the option `scale` and the frozen constants say before the data are looked at."""
        if np.any(self.frozen & (self.start != 0)) or np.all(self.frozen):
            return Scale.KNOWN
        if self.known is not None:
            return Scale.DATUM
        return Scale.FREE if option == "free" else Scale.HELD


def constants_from_guess(guess: Guess | str, structure: TensorStructure) -> Constants:
    """The constants of CGUESS.

    Parameters
    ----------
    guess : mapping or "auto"
        name → (start, min, max) in GPa. "auto": an isotropic start without bounds.
    structure : TensorStructure

    Raises
    ------
    InputError
        Names that are not the free constants of the crystal; a start outside its bounds, or mechanically unstable.
    """
    names = structure.names
    if isinstance(guess, str):
        start = isotropic_start(structure)
        lower, upper = np.full(len(names), -np.inf), np.full(len(names), np.inf)
    else:
        missing = [name for name in names if name not in guess]
        extra = [name for name in guess if name not in names]
        if missing or extra:
            complaints = [
                f"{label} {', '.join(found)}" for label, found in (("lacks", missing), ("has", extra)) if found
            ]
            raise InputError(
                f"CGUESS {' and '.join(complaints)}: the free constants of this crystal are {', '.join(names)}"
            )
        start, lower, upper = np.array([guess[name] for name in names], dtype=float).T
        outside = [name for name in names if not guess[name][1] <= guess[name][0] <= guess[name][2]]
        if outside:
            raise InputError(
                f"CGUESS starts {', '.join(outside)} outside its bounds: give [start, min, max] with "
                f"min <= start <= max for each of {', '.join(names)}"
            )
    lowest = float(eigenvalues(structure.tensor(start)).min())
    if lowest <= 0:
        raise InputError(
            f"CGUESS gives a mechanically unstable tensor (lowest eigenvalue {lowest:.4g} GPa): change the start values"
        )
    return Constants(structure, start, lower, upper)


def guess_skeleton(structure: TensorStructure) -> str:
    """A CGUESS to paste into input.par: the free constants with an isotropic start and wide bounds."""
    lines = [
        f'    "{name}": [{value:.1f}, {0.0 if name[1] == name[2] else -500.0:.1f}, 1000.0],'
        for name, value in zip(structure.names, isotropic_start(structure), strict=True)
    ]
    return "\n".join(["CGUESS = {", *lines, "}"])
