"""One-phonon intensities of a spring lattice as tables, for frames with more pixels than can be diagonalised.

A table holds I/(|F|² S) round one node, the exact intensity beside its elastic limit. Where I is too steep for a table,
this ratio is smooth along every line through the node, and 1 there; but it depends on the direction of the line. So the
coordinates are a direction and the signed distance along it: q = r (1, u, v)/√(1 + u² + v²) for lines nearest to x, and
with x, y, z in turn for those nearest to y and z.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tds2el import _core
from tds2el.simulate.lattice.scattering import Scatterer

Array = npt.NDArray[np.float64]

SIZE = 32
"""Places of a table along u, v and r, even, so that none is the node itself."""
SPARE = 4
"""Places beyond the ranges |u|, |v| ≤ 1 and |r| ≤ radius on either side: how a spline ends does not reach inside."""
# Explicit terms of S, which only has to be the same here and where it multiplies the table.
_TERMS = 20


def table_points(radius: float) -> Array:
    """q of the places of a table that serves |q| ≤ radius, (3, SIZE, SIZE, SIZE, 3) with axes face, u, v, r; Å⁻¹."""
    axis = (2 * np.arange(SIZE) - SIZE + 1) / (SIZE - 1 - 2 * SPARE)
    u, v, r = np.meshgrid(axis, axis, radius * axis, indexing="ij")
    line = np.stack([np.ones_like(u), u, v], axis=-1)
    line *= (r / np.linalg.norm(line, axis=-1))[..., None]
    return np.stack([np.roll(line, face, axis=-1) for face in range(3)])


def halo_tables(
    scatterer: Scatterer, nodes: Array, structure: Array, thermal: float, radius: float
) -> npt.NDArray[np.float32]:
    """Coefficients of cubic B-splines for the ratio round each node.

    Parameters
    ----------
    scatterer : Scatterer
    nodes : ndarray, shape (n, 3)
        G in Å⁻¹.
    structure : ndarray, shape (n,)
        What stands for |F|², electrons².
    thermal : float
        a = ρ(kT/ħ)² in GPa Å⁻².
    radius : float
        Largest |q|, Å⁻¹.

    Returns
    -------
    ndarray of float32, shape (n, 3, SIZE, SIZE, SIZE)
    """
    from scipy.ndimage import spline_filter1d

    places = table_points(radius)
    q = places.reshape(-1, 3)
    exact = scatterer.one_phonon_round(nodes, q)
    tables = np.empty((len(nodes), *places.shape[:-1]), dtype=np.float32)
    for table, node, intensity, F2 in zip(tables, nodes, exact, structure, strict=True):
        S = _core.halo_strength(node + q, q, scatterer.lattice.tensor, thermal, _TERMS)
        ratio = (intensity / (F2 * S)).reshape(table.shape)
        for axis in (1, 2, 3):
            ratio = spline_filter1d(ratio, axis=axis, mode="mirror")
        table[...] = ratio
    return tables
