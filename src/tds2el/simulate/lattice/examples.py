"""Spring lattices to try models on: fcc, rock salt, and corundum, whose sublattices move under strain."""

from __future__ import annotations

from collections.abc import Callable

from tds2el.crystal.cell import Cell
from tds2el.simulate.lattice.springs import Site, Spring, SpringLattice


def fcc() -> SpringLattice:
    """Copper's cell with three shells of springs."""
    a = 3.615
    shells = ((0.5**0.5, 28.0), (1.0, 6.0), (1.5**0.5, -1.5))
    return SpringLattice(
        "fcc",
        Cell(a, a, a, 90, 90, 90),
        "F m -3 m",
        "m-3m",
        (Site("Cu", (0.0, 0.0, 0.0)),),
        tuple(Spring(("Cu", "Cu"), 0.99 * r * a, 1.01 * r * a, k) for r, k in shells),
    )


def rock_salt() -> SpringLattice:
    """The cell of MgO; every atom is a centre of inversion, so that strain moves no sublattice."""
    a = 4.212
    shells = (
        ("Mg", "O", 0.5, 30.0),
        ("Mg", "Mg", 0.5**0.5, 5.0),
        ("O", "O", 0.5**0.5, 10.0),
        ("Mg", "O", 0.75**0.5, 15.0),
        ("O", "O", 1.0, 3.0),
    )
    return SpringLattice(
        "rock salt",
        Cell(a, a, a, 90, 90, 90),
        "F m -3 m",
        "m-3m",
        (Site("Mg", (0.0, 0.0, 0.0)), Site("O", (0.5, 0.5, 0.5))),
        tuple(Spring((x, y), 0.99 * r * a, 1.01 * r * a, k) for x, y, r, k in shells),
    )


def corundum() -> SpringLattice:
    """The cell and the places of Al₂O₃: no atom is a centre of inversion, and a strain moves both sublattices.

    Constants are near those measured: 525 437 161 163 153 −13 GPa instead of 497 501 147 167 116 −22, A15 the last.
    Optic modes begin at 9 THz.
    """
    return SpringLattice(
        "corundum",
        Cell(4.759, 4.759, 12.991, 90, 90, 120),
        "R -3 c:H",
        "1~,3(z),2(y)",
        (Site("Al", (0.0, 0.0, 0.35216)), Site("O", (0.30624, 0.0, 0.25))),
        (
            Spring(("Al", "O"), 1.8, 1.9, 60.0),
            Spring(("Al", "O"), 1.9, 2.05, 134.0),
            Spring(("Al", "O"), 3.1, 3.6, 9.0),
            Spring(("O", "O"), 2.4, 2.95, 32.0),
            Spring(("Al", "Al"), 2.6, 2.85, 60.0),
        ),
    )


EXAMPLES: dict[str, Callable[[], SpringLattice]] = {"fcc": fcc, "rock salt": rock_salt, "corundum": corundum}
"""By name."""
