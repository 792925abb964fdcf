"""Types of the compiled module, one section per topic."""

from typing import Any

import numpy as np
import numpy.typing as npt

# symmetry
def close_group(generators: npt.ArrayLike, tolerance: float = 1e-6) -> npt.NDArray[np.float64]: ...
def reduce_elastic_tensor(
    operations: npt.ArrayLike, tolerance: float = 1e-6
) -> tuple[list[tuple[int, int]], npt.NDArray[np.float64]]: ...

# halo
def halo_strength(
    Q: npt.ArrayLike, q: npt.ArrayLike, stiffness: npt.ArrayLike, thermal: float, terms: int
) -> npt.NDArray[np.float64]: ...
def scattering_image(
    q_lab: npt.ArrayLike,
    lab_to_crystal: npt.ArrayLike,
    blocks: npt.ArrayLike,
    block_weights: npt.ArrayLike,
    nodes: npt.ArrayLike,
    halo_factors: npt.ArrayLike,
    peak_heights: npt.ArrayLike,
    peak_precisions: npt.ArrayLike,
    peak_reach: float,
    stiffness: npt.ArrayLike,
    thermal: float,
    cut_radius: float,
    fade_radius: float,
    near_angle: float,
) -> npt.NDArray[np.float64]: ...

# points
def relative_points(
    Q: npt.NDArray[Any],  # (n, 3)
    node: npt.ArrayLike,
    counts: npt.NDArray[Any],
    correction: npt.NDArray[Any],
    out: npt.NDArray[np.float32],  # (5 or more, capacity): x, y, z, counts, correction
    at: int,
    threads: int,
) -> None: ...
def survey(
    counts: npt.NDArray[Any],
    correction: npt.NDArray[Any],
    Q: npt.NDArray[Any],
    background: npt.NDArray[Any] | None,
    first: int,
    offsets: npt.NDArray[np.int64],
    centres: npt.ArrayLike,
    bands: int,
    middle: float,
    nearest: float,
    threads: int,
) -> tuple[bool, npt.NDArray[np.bool_], npt.NDArray[np.float64]]: ...

# fista
class CubeSolver:
    def __init__(
        self,
        *,
        q: npt.ArrayLike,  # (points, 3)
        values: npt.ArrayLike,  # (points, columns)
        half_width: float,
        n: int,
        beta: float,
        threads: int,
    ) -> None: ...
    def start(self, column: int) -> None: ...
    def iterate(self, count: int) -> None: ...
    def objective(self) -> float: ...
    def cube(self) -> npt.NDArray[np.float32]: ...
    def points_per_node(self) -> npt.NDArray[np.int32]: ...
    @property
    def columns(self) -> int: ...
    @property
    def bound(self) -> float: ...  # of the largest eigenvalue
    @property
    def restarts(self) -> int: ...
    @property
    def outside(self) -> int: ...
    @property
    def not_finite(self) -> int: ...

# region
_Points = tuple[
    npt.NDArray[np.int64],  # number of each region
    npt.NDArray[np.int32],  # row
    npt.NDArray[np.int32],  # column
    npt.NDArray[np.float64],  # counts
    npt.NDArray[np.float32],  # correction
    npt.NDArray[np.float64],  # Q (n, 3), less the shift
]

class RegionGatherer:
    def __init__(
        self,
        *,
        mask: npt.NDArray[np.bool_],
        pixel_to_lab: npt.ArrayLike,
        beam: npt.ArrayLike,
        lmbda: float,
        in_plane: npt.ArrayLike,
        normal: npt.ArrayLike,
        pol_degree: float,
        dist: float,
        centres: npt.ArrayLike,
        shifts: npt.ArrayLike,
        neighbours: npt.ArrayLike,
        neighbour_offsets: npt.ArrayLike,
        delta_min: float,
        delta_max: float,
        threshold: float,
        saturation: float,
        border: int,
    ) -> None: ...
    def set_mask(self, mask: npt.NDArray[np.bool_]) -> None: ...
    def frame(
        self,
        image: npt.NDArray[np.generic],
        lab_to_crystal: npt.ArrayLike,
        blobs: npt.NDArray[np.int64],
        regions: npt.NDArray[np.int64],
        denominator: float,
    ) -> tuple[_Points, _Points, npt.NDArray[np.int64], npt.NDArray[np.uint8]]: ...
