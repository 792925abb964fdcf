"""Symmetry operations from what the user writes: Cartesian generators, or the name of a point group."""

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError

_HALF_ROOT3 = np.sqrt(0.75)

# Active right-handed rotations in the crystal frame (a* ∥ x, c ∥ z).
_ROTATIONS: dict[str, list[list[float]]] = {
    "1": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "2(x)": [[1, 0, 0], [0, -1, 0], [0, 0, -1]],
    "2(y)": [[-1, 0, 0], [0, 1, 0], [0, 0, -1]],
    "2(z)": [[-1, 0, 0], [0, -1, 0], [0, 0, 1]],
    "2(110)": [[0, 1, 0], [1, 0, 0], [0, 0, -1]],
    "3(z)": [[-0.5, -_HALF_ROOT3, 0], [_HALF_ROOT3, -0.5, 0], [0, 0, 1]],
    "3(111)": [[0, 1, 0], [0, 0, 1], [1, 0, 0]],
    "4(z)": [[0, -1, 0], [1, 0, 0], [0, 0, 1]],
    "6(z)": [[0.5, -_HALF_ROOT3, 0], [_HALF_ROOT3, 0.5, 0], [0, 0, 1]],
}
_MIRRORS: dict[str, list[list[float]]] = {
    "m(x)": [[-1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "m(y)": [[1, 0, 0], [0, -1, 0], [0, 0, 1]],
    "m(z)": [[1, 0, 0], [0, 1, 0], [0, 0, -1]],
}
_TOKENS = "1 1~ 2(x) 2(y) 2(z) 2(110) 3(z) 3(111) 4(z) 4(z)~ 6(z) m(x) m(y) m(z)"

# Names that leave open how the axes across the three-fold one lie: (with the two-fold axis or the normal of
# the mirror along b, i.e. y; along a*, i.e. x).
_OPEN_NAMES = {"32": ("321", "312"), "3m": ("3m1", "31m"), "-3m": ("-3m1", "-31m")}

#: Full names of the monoclinic groups, by the short name, for the unique axes a, b and c.
MONOCLINIC_NAMES = {
    "2": ("211", "121", "112"),
    "m": ("m11", "1m1", "11m"),
    "2/m": ("2/m11", "12/m1", "112/m"),
}


def is_generators(text: str) -> bool:
    """Whether `text` is a list of generators such as "1~,3(z),2(y)" rather than the name of a point group."""
    return any(mark in text for mark in "(~,") or text.strip() == "1"


def cartesian_generators(text: str) -> npt.NDArray[np.float64]:
    """The matrices of a list of generators such as "1~,3(z),2(y)".

    Parameters
    ----------
    text : str
        Tokens between commas; white space does not matter. A "~" after a rotation multiplies it by the
        inversion, so that "4(z)~" is −4(z) as a matrix.

    Returns
    -------
    float array (n, 3, 3), Cartesian, in the crystal frame

    Raises
    ------
    InputError
        If a token is unknown; the message lists those that there are.
    """
    matrices = []
    for token in "".join(text.split()).split(","):
        rotation, inverted = token.removesuffix("~"), token.endswith("~")
        if rotation in _ROTATIONS:
            matrices.append(np.array(_ROTATIONS[rotation]) * (-1.0 if inverted else 1.0))
        elif token in _MIRRORS:
            matrices.append(np.array(_MIRRORS[token]))
        else:
            raise InputError(
                f'ascii_generators = "{text}": unknown generator "{token}"; use {_TOKENS}, separated by commas'
            )
    return np.array(matrices, dtype=np.float64)


def named_operations(name: str, rhombohedral_lattice: bool) -> npt.NDArray[np.int64]:
    """Operations on hkl of a point group given by its Hermann-Mauguin name.

    Parameters
    ----------
    name : str
        For example "-3m1", "4/mmm", "m-3m". Short monoclinic names have the unique axis b; "112/m" and the
        like name another.
    rhombohedral_lattice : bool
        Centring R, whose two-fold axes lie along a and b: it settles "32", "3m" and "-3m".

    Returns
    -------
    int array (n, 3, 3): hkl' = W hkl for columns hkl

    Raises
    ------
    InputError
        If there is no such point group, or if the name does not fix the orientation.
    """
    import gemmi

    symbol = "".join(name.split())
    if symbol in _OPEN_NAMES:
        along_y, along_x = _OPEN_NAMES[symbol]
        if not rhombohedral_lattice:
            raise InputError(
                f'ascii_generators = "{name}" does not fix the orientation: write "{along_y}" (two-fold axis '
                f'or normal of the mirror along y ∥ b) or "{along_x}" (along x ∥ a*), or give centring = '
                f'"R", which means "{along_y}"'
            )
        symbol = along_y
    # A point group is the symmorphic space group of that name on a primitive lattice; "P31" has a screw axis.
    group = gemmi.find_spacegroup_by_name("P" + symbol) if symbol else None
    if group is None or not group.is_symmorphic():
        raise InputError(
            f'ascii_generators = "{name}" is neither a point group such as "-3m1", "4/mmm", "m-3m" '
            f"nor a list of generators; these are {_TOKENS}, separated by commas"
        )
    rotations = np.array([operation.rot for operation in group.operations()], dtype=np.float64) / gemmi.Op.DEN
    # Positions turn as x' = M x; planes, being h·x = const, as h' = M⁻ᵀ h.
    return np.asarray(np.rint(np.linalg.inv(rotations).transpose(0, 2, 1)), dtype=np.int64)
