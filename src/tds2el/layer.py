"""Layers of reciprocal space by their names: hk0, h0l, hk0.5, -1kl."""

from __future__ import annotations

import re
from dataclasses import dataclass

INDICES = "hkl"
_NUMBER = r"-?\d+\.?\d*"
_NAME = re.compile(rf"(h|{_NUMBER})(k|{_NUMBER})(l|{_NUMBER})")


@dataclass(frozen=True)
class Layer:
    """All Q of which one index has one value, such as l = 0.5.

    Attributes
    ----------
    name : str
        hk0.5, with which the user has named it.
    index : 0, 1 or 2
        Of h, k, l, the one that is fixed.
    value : float
        Its value.
    """

    name: str
    index: int
    value: float

    @property
    def free(self) -> tuple[int, int]:
        """The other two."""
        first, second = (i for i in range(3) if i != self.index)
        return first, second


def layer_from_name(name: str) -> Layer:
    """The layer of a name.

    Raises
    ------
    ValueError
        If it is none; says what a name is like.
    """
    found = _NAME.fullmatch(name)
    fixed = [] if found is None else [i for i in range(3) if found[i + 1] != INDICES[i]]
    if found is None or len(fixed) != 1:
        raise ValueError(
            f"{name!r} is no layer: write h, k, l and a number in place of one of them, as in hk0 or h0.5l"
        )
    return Layer(name, fixed[0], float(found[fixed[0] + 1]))
