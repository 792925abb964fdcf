"""What the halo of each spot is smeared by: frame, mosaic spread, pixel and wavelengths, as a `Smearing`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tds2el.experiment.geometry import Geometry
from tds2el.model.smearing import Axis, Smearing, cubature, too_coarse

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

MATTERS = 0.05
"""Change of a halo at the inner radius from which on "auto" averages: the constants are then some 0.5 % off without."""


@dataclass(frozen=True)
class Resolution:
    """The smearing of spots.

    Attributes
    ----------
    smearing : Smearing or None
        None where nothing needs it.
    effect : ndarray, shape (n_blobs,)
        Relative change of a halo at the inner radius, for S ∝ 1/q² along the worst direction, to second order.
    coarse : ndarray of bool, shape (n_blobs,)
        Spots that are smeared over their pole within the shell; nothing is averaged there.
    """

    smearing: Smearing | None
    effect: Array
    coarse: Mask


def resolution(axes: Sequence[list[Axis]], radius: float) -> Resolution:
    """The shortest averages that smear each spot right from a radius on.

    Parameters
    ----------
    axes : sequence of list of Axis
        Of each spot, from `smeared_axes`.
    radius : float
        Inner radius of the shells, Å⁻¹.
    """
    # The mean of 1/(q + x)² is (1 + 3⟨x²⟩/q²)/q².
    effect = np.array([3 * max((axis.variance for axis in own), default=0.0) / radius**2 for own in axes])
    coarse = np.array([too_coarse(own, radius) for own in axes])
    rules = [cubature([] if bad else own, radius) for own, bad in zip(axes, coarse, strict=True)]
    most = max(len(weight) for weight, _, _ in rules)
    if most == 1:
        return Resolution(None, effect, coarse)
    weight, shift, turn = np.zeros((len(rules), most)), np.zeros((len(rules), most, 3)), np.zeros((len(rules), most, 3))
    for blob, (w, s, t) in enumerate(rules):
        weight[blob, : len(w)], shift[blob, : len(w)], turn[blob, : len(w)] = w, s, t
    return Resolution(Smearing(weight, shift, turn), effect, coarse)


def smeared_axes(
    node: Array, angle: float, geometry: Geometry, mosaicity: float, bandwidth: float, pixel: float = 1.0
) -> list[Axis]:
    """The independent directions in which a spot's halo is smeared.

    A frame turns Q uniformly about the axis of phi. Blocks of the crystal turn it by a Gaussian angle about any axis,
    wavelengths stretch it, and a pixel takes in a square of the detector, whose second moments stand for it.

    Parameters
    ----------
    node : ndarray, shape (3,)
        G, Å⁻¹.
    angle : float
        Goniometer angle at which the node is seen, degrees.
    geometry : Geometry
    mosaicity : float
        Standard deviation about any axis, degrees.
    bandwidth : float
        Standard deviation of λ, relative.
    pixel : float
        Edge of the square that a pixel averages over, in pixels.
    """
    length2 = float(node @ node)
    along = np.outer(node, node)
    covariance = np.deg2rad(mosaicity) ** 2 * (length2 * np.eye(3) - along) + bandwidth**2 * along
    covariance += pixel**2 * _pixel_covariance(node, angle, geometry)
    axes = []
    turn = geometry.phi_axis
    swept = np.cross(turn, node)
    size = float(np.linalg.norm(swept))
    if size > 1e-9:
        # The most of the Gaussian that goes along the frame's sweep, so that one rule does for both.
        unit = swept / size
        regular = covariance + (1e-9 * np.trace(covariance) + 1e-24) * np.eye(3)
        shared = 1 / float(unit @ np.linalg.solve(regular, unit))
        covariance = covariance - shared * np.outer(unit, unit)
        half = np.deg2rad(abs(geometry.experiment.angular_step)) / 2
        axes.append(Axis(swept, turn, float(half), np.sqrt(shared) / size))
    variances, directions = np.linalg.eigh(covariance)
    for variance, direction in zip(variances, directions.T, strict=True):
        if variance > 1e-20:
            axes.append(Axis(direction, np.cross(node, direction) / length2, 0.0, float(np.sqrt(variance))))
    return axes


def _pixel_covariance(node: Array, angle: float, geometry: Geometry) -> Array:
    """Covariance of Q within the pixel that sees a node, Å⁻²; 0 where the node's ray misses the detector's plane."""
    to_crystal = geometry.lab_to_crystal(angle)
    ray = geometry.experiment.lmbda * (to_crystal.T @ node) - geometry.beam
    row, column = geometry.pixel_of(ray)
    if not np.isfinite(row + column):
        return np.zeros((3, 3))
    rows, columns = row + np.array([0.5, -0.5, 0, 0]), column + np.array([0, 0, 0.5, -0.5])
    corners = geometry.q_crystal(rows, columns, np.full(4, angle))
    edges = np.stack([corners[0] - corners[1], corners[2] - corners[3]])
    return np.asarray(edges.T @ edges / 12)
