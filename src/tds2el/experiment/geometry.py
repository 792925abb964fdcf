"""From pixel and frame to Q, and the intensity corrections.

Conventions (kappa goniometer, passive rotations, |Q| = 2 sin θ / λ without 2π) are those of A. Bosak's note for 3DRSR,
after M. Meyer, thesis, Lausanne 1998. Lab axes: e1 points from the sample to the source, e3 is the omega axis and the
detector lies at −e1. Lengths in mm, angles in degrees, λ in Å, Q in Å⁻¹.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.experiment.parallax import entry_fraction, largest_pixel_fraction, pixel_fraction
from tds2el.settings import Experiment

Array = npt.NDArray[np.float64]

# (x, y) = pixel_size · MD[code] · (row − origin, column − origin)
ORIENTATION_MATRICES = np.array(
    [
        [[1, 0], [0, 1]],
        [[-1, 0], [0, 1]],
        [[1, 0], [0, -1]],
        [[-1, 0], [0, -1]],
        [[0, 1], [1, 0]],
        [[0, -1], [1, 0]],
        [[0, 1], [-1, 0]],
        [[0, -1], [-1, 0]],
    ],
    dtype=float,
)


def rotation(axis: int, degrees: npt.ArrayLike) -> Array:
    """Passive rotation matrices about lab axis 1, 2 or 3.

    Parameters
    ----------
    axis : {1, 2, 3}
    degrees : array_like, shape (...)

    Returns
    -------
    ndarray, shape (..., 3, 3)
        With i', i'' the cyclic followers of the axis: R[i', i''] = +sin, R[i'', i'] = −sin.
    """
    angle = np.deg2rad(np.asarray(degrees, dtype=float))
    first, second = axis % 3, (axis + 1) % 3
    matrix = np.zeros((*angle.shape, 3, 3))
    matrix[..., axis - 1, axis - 1] = 1.0
    matrix[..., first, first] = matrix[..., second, second] = np.cos(angle)
    matrix[..., first, second] = np.sin(angle)
    matrix[..., second, first] = -np.sin(angle)
    return matrix


@dataclass(frozen=True)
class Geometry:
    """The experiment of a conf_file, ready to turn pixels and frames into Q.

    Parameters
    ----------
    experiment : Experiment
        The validated geometry options.
    """

    experiment: Experiment

    @cached_property
    def detector(self) -> Array:
        """DET, (3, 3): the detector's rotation in the lab."""
        e = self.experiment
        return rotation(3, e.theta + e.theta_offset) @ rotation(2, e.d2) @ rotation(1, e.d1)

    @cached_property
    def beam(self) -> Array:
        """p0/dist, (3,): unit vector from the sample to the source."""
        return rotation(2, self.experiment.beam_tilt_angle)[:, 0]

    @cached_property
    def beam_in_crystal(self) -> Array:
        """`beam` in the crystal frame at phi = 0, 90 and 180 degrees, (3, 3): it follows at all others from these."""
        return np.asarray(self.lab_to_crystal([0.0, 90.0, 180.0]) @ self.beam)

    @cached_property
    def polarisation_axes(self) -> tuple[Array, Array]:
        """Unit vectors (3,) in the lab: along the polarisation, p0×n, and the normal n of its plane.

        Raises
        ------
        InputError
            If n lies along the beam.
        """
        normal = np.asarray(self.experiment.normal_to_pol, dtype=float)
        normal /= np.linalg.norm(normal)
        in_plane = np.cross(self.beam, normal)
        length = float(np.linalg.norm(in_plane))
        if length < 1e-6:
            raise InputError(
                f"normal_to_pol = {list(self.experiment.normal_to_pol)} lies along the beam, which no plane of "
                "polarisation has as its normal; correct it"
            )
        return np.asarray(in_plane / length), normal

    @cached_property
    def orientation(self) -> Array:
        """U, (3, 3)."""
        e = self.experiment
        return rotation(3, e.r3) @ rotation(2, e.r2) @ rotation(1, e.r1)

    @cached_property
    def phi_axis(self) -> Array:
        """Unit vector (3,) in the crystal frame, where it rests: Q of a pixel turns with phi as dQ/dφ = axis × Q."""
        return np.asarray(self.orientation.T @ rotation(2, self.experiment.beta)[:, 2])

    @cached_property
    def pixel_to_plane(self) -> Array:
        """(2, 2) in mm: (x, y) = pixel_to_plane · (row − det_origin_X, column − det_origin_Y)."""
        return np.asarray(self.experiment.pixel_size * ORIENTATION_MATRICES[self.experiment.orientation_codes])

    @cached_property
    def origin(self) -> Array:
        """(det_origin_X, det_origin_Y), the row and column of the detector frame's foot point."""
        return np.array([self.experiment.det_origin_X, self.experiment.det_origin_Y])

    @cached_property
    def pixel_to_lab(self) -> Array:
        """(3, 3) in mm: p = pixel_to_lab · (row, column, 1), the lab vector from the sample to the detector."""
        axes = self.detector[:, 1:] @ self.pixel_to_plane
        foot = -self.experiment.dist * self.detector[:, 0] - axes @ self.origin
        return np.column_stack([axes, foot])

    def entry(self, row: npt.ArrayLike, column: npt.ArrayLike) -> tuple[Array, Array]:
        """Where the rays that a pixel counts enter the sensor: row and column, shape (...), of whatever size.

        Without sensor_thickness and sensor_mu that is the pixel itself; else see `tds2el.experiment.parallax`.
        """
        row, column = np.broadcast_arrays(np.asarray(row, dtype=float), np.asarray(column, dtype=float))
        e = self.experiment
        if not e.sensor_thickness:
            return row, column
        offset = row - self.origin[0], column - self.origin[1]
        part = entry_fraction(e.pixel_size * np.hypot(*offset), e.dist, e.sensor_thickness, e.sensor_mu)
        return self.origin[0] + part * offset[0], self.origin[1] + part * offset[1]

    @property
    def largest_parallax(self) -> float:
        """At most so many times farther from the foot point than where it enters is a ray counted."""
        e = self.experiment
        return largest_pixel_fraction(e.dist, e.sensor_thickness)

    def phi(self, angle_index: npt.ArrayLike) -> Array:
        """Goniometer angle phi at the middle of frames, in degrees; index 0 is the first frame."""
        return self.experiment.phi + np.asarray(angle_index, dtype=float) * self.experiment.angular_step

    def goniometer(self, phi: npt.ArrayLike) -> Array:
        """R, (..., 3, 3), for phi in degrees: omega, alpha/kappa, beta/phi, from outside in."""
        e = self.experiment
        fixed = rotation(3, e.omega + e.omega_offset)
        fixed = fixed @ rotation(2, e.alpha) @ rotation(3, e.kappa) @ rotation(2, -e.alpha) @ rotation(2, e.beta)
        return fixed @ rotation(3, phi) @ rotation(2, -e.beta)

    def lab_to_crystal(self, phi: npt.ArrayLike) -> Array:
        """Uᵀ Rᵀ, (..., 3, 3), for phi in degrees: Q = lab_to_crystal · Q0."""
        return self.orientation.T @ np.swapaxes(self.goniometer(phi), -1, -2)

    def q_lab(self, row: npt.ArrayLike, column: npt.ArrayLike) -> Array:
        """Q0, the scattering vector in the lab.

        Parameters
        ----------
        row, column : array_like, shape (...)
            Pixel centres are integers.

        Returns
        -------
        ndarray, shape (..., 3)
            Å⁻¹.
        """
        p = self._pixel_vectors(row, column)
        direction = p / np.linalg.norm(p, axis=-1, keepdims=True)
        return np.asarray((direction + self.beam) / self.experiment.lmbda)

    def q_crystal(self, row: npt.ArrayLike, column: npt.ArrayLike, phi: npt.ArrayLike) -> Array:
        """Q in the crystal frame, shape (..., 3) in Å⁻¹, of pixels at goniometer angles phi (degrees)."""
        return np.asarray(np.einsum("...ij,...j->...i", self.lab_to_crystal(phi), self.q_lab(row, column)))

    def polarisation(self, row: npt.ArrayLike, column: npt.ArrayLike) -> Array:
        """POL, shape (...): the polarisation factor of pixels."""
        p = self._pixel_vectors(row, column)
        direction = p / np.linalg.norm(p, axis=-1, keepdims=True)
        in_plane, normal = self.polarisation_axes
        degree = self.experiment.pol_degree
        return np.asarray(degree * (1 - (direction @ in_plane) ** 2) + (1 - degree) * (1 - (direction @ normal) ** 2))

    def solid_angle(self, row: npt.ArrayLike, column: npt.ArrayLike) -> Array:
        """C3 = dist³/(dist² + x² + y²)^{3/2}, shape (...): the solid angle relative to the foot point's.

        x and y are where the rays enter the sensor.
        """
        pixel = np.stack(self.entry(row, column), axis=-1) - self.origin
        plane = pixel @ self.pixel_to_plane.T
        dist = self.experiment.dist
        return np.asarray((1 + np.sum(plane**2, axis=-1) / dist**2) ** -1.5)

    def pixel_of(self, direction: npt.ArrayLike) -> Array:
        """Row and column, shape (..., 2), where rays along lab directions (..., 3) are counted.

        Rays that run away from the detector give NaN.
        """
        local = np.asarray(direction, dtype=float) @ self.detector
        forward = np.where(local[..., 0] < 0, local[..., 0], np.nan)
        e = self.experiment
        plane = -e.dist * local[..., 1:] / forward[..., None]
        if e.sensor_thickness:
            distance = np.hypot(plane[..., 0], plane[..., 1])
            plane = plane * pixel_fraction(distance, e.dist, e.sensor_thickness, e.sensor_mu)[..., None]
        return np.asarray(plane @ np.linalg.inv(self.pixel_to_plane).T + self.origin)

    def direct_beam(self) -> tuple[float, float]:
        """Row and column of the direct beam (NaN if it misses the detector plane)."""
        row, column = self.pixel_of(-self.beam)
        return float(row), float(column)

    def _pixel_vectors(self, row: npt.ArrayLike, column: npt.ArrayLike) -> Array:
        row, column = self.entry(row, column)
        return np.stack([row, column, np.ones_like(row)], axis=-1) @ self.pixel_to_lab.T
