"""Values at scattered points → values on the nodes of a cube round a spot."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tds2el._core import CubeSolver

# Updates of a node between two looks at signals: less than a tenth of a second on one core.
BLOCK = 10_000_000


class CubeInterpolator:
    """Regularised trilinear interpolation of several quantities known at the same points.

    Minimises ½‖Interp(x) − y‖² + β‖∇x‖² over cubes x of n³ nodes at −half_width + 2·half_width·i/(n − 1) along each
    axis, with trilinear Interp and with ∇ by forward differences in units of the grid, none across the faces. FISTA
    (Beck & Teboulle, SIAM J. Imaging Sci. 2, 183 (2009)) from x = 0 with step 1/L, L the Gershgorin bound of
    InterpᵀInterp + 2β∇ᵀ∇. An iteration that raises the objective is taken back and the momentum starts again from zero
    (O'Donoghue & Candès, Found. Comput. Math. 15, 715 (2015)), so the objective never rises.

    The points are needed for the construction only. Results do not depend on the number of threads.

    Parameters
    ----------
    q : (m, 3) float64
        Positions relative to the centre of the cube, Å⁻¹.
    values : (m, k) float
        k quantities, such as measured and simulated intensity; used in single precision.
    half_width : float
        Half the edge of the cube, Å⁻¹.
    n : int
        Nodes per edge, at least 2.
    beta : float
        Weight of the smoothness, 0 or more.
    threads : int, optional
        Default: as many as the process may use cores.

    Attributes
    ----------
    axis : (n,) float64
        Coordinates of the nodes along each axis, Å⁻¹.
    outside, not_finite : int
        Points left out because they lie beyond the faces, and because a coordinate or any of the values is not finite.

    Raises
    ------
    ValueError
        A shape or a parameter is out of range.
    """

    def __init__(
        self,
        q: npt.ArrayLike,
        values: npt.ArrayLike,
        half_width: float,
        n: int,
        beta: float,
        threads: int | None = None,
    ) -> None:
        threads = threads or len(os.sched_getaffinity(0))
        self._solver = CubeSolver(q=q, values=values, half_width=half_width, n=n, beta=beta, threads=threads)
        self.axis: npt.NDArray[np.float64] = np.linspace(-half_width, half_width, n)
        self.outside = self._solver.outside
        self.not_finite = self._solver.not_finite

    def points_per_voxel(self) -> npt.NDArray[np.int32]:
        """Number of points whose nearest node is [i, j, k], shape (n, n, n)."""
        return self._solver.points_per_node()

    def solve(self, iterations: int, progress: Callable[[int], object] | None = None) -> npt.NDArray[np.float32]:
        """Interpolate every quantity; without points the cubes are zero.

        Parameters
        ----------
        iterations : int
            For each quantity, those that were taken back included.
        progress : callable, optional
            Called now and then with the number of iterations since the last call, k·iterations in all. An exception
            from it, as from Ctrl-C between two calls, ends the work.

        Returns
        -------
        (k, n, n, n) float32
            [c, i, j, l] belongs to quantity c at qx = axis[i], qy = axis[j], qz = axis[l].
        """
        n = len(self.axis)
        cubes = np.empty((self._solver.columns, n, n, n), np.float32)
        block = max(1, BLOCK // n**3)
        for column, cube in enumerate(cubes):
            self._solver.start(column)
            for done in range(0, iterations, block):
                count = min(block, iterations - done)
                self._solver.iterate(count)
                if progress is not None:
                    progress(count)
            cube[...] = self._solver.cube()
        return cubes
