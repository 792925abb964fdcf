"""How Q of harvested pixels moves when the geometry changes, in a form that a device evaluates pixel by pixel.

Q = M(φ) Q0 with M = Uᵀ Rᵀ = M₀ + M₁ cos φ + M₂ sin φ, since only one factor of R turns with φ; Q0 = (p/|p| + b)/λ with
p = P·(row, column, 1) and the unit vector b to the source. Changes are kept apart from values, so that the change of Q
is accurate in single precision too.

Row and column are where rays enter the sensor (`Geometry.entry`). By how much that differs from the pixel is taken from
the harvest: a new dist or origin changes the parallax by less than the fraction t/dist of what it changes itself, which
the next harvest takes into account.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tds2el.experiment.geometry import Geometry, rotation
from tds2el.settings import Experiment

Array = npt.NDArray[np.float64]

TURNS = ("r1", "r2", "r3", "omega", "omega_offset", "alpha", "beta", "kappa")
PLANES = ("d1", "d2", "theta_offset", "det_origin_X", "det_origin_Y", "dist")
BEAMS = ("beam_tilt_angle",)
_DEGREE = np.pi / 180


@dataclass(frozen=True)
class Motion:
    """The current geometry, its change since the harvest, and derivatives of Q with respect to its parameters.

    Attributes
    ----------
    turn, turn_change : ndarray, shape (3, 3, 3)
        M₀, M₁, M₂ now, and now minus at the harvest.
    plane, plane_change : ndarray, shape (3, 3)
        P in mm.
    beam, beam_change : ndarray, shape (3,)
        b.
    wave_number, wave_number_change : float
        1/λ in Å⁻¹.
    turns : ndarray, shape (a, 3, 3)
        For each parameter that turns the crystal: w₀, w₁, w₂ with ∂Q/∂p = (w₀ + w₁ cos φ + w₂ sin φ) × Q, per degree.
    planes : ndarray, shape (b, 3, 3)
        For each parameter that moves the detector: ∂P/∂p, per unit of the parameter.
    beams : ndarray, shape (c, 3)
        For each parameter that turns the beam: ∂b/∂p, per degree.
    lmbda : bool
        Whether λ is a parameter: ∂Q/∂λ = −Q/λ.
    names : tuple of str
        The parameters in the order turns, planes, beams, lmbda.
    """

    turn: Array
    turn_change: Array
    plane: Array
    plane_change: Array
    beam: Array
    beam_change: Array
    wave_number: float
    wave_number_change: float
    turns: Array
    planes: Array
    beams: Array
    lmbda: bool
    names: tuple[str, ...]


def motion(harvested: Experiment, now: Experiment, free: Iterable[str] = ()) -> Motion:
    """The motion from one geometry to another.

    Parameters
    ----------
    harvested, now : Experiment
        The geometry that the harvest's Q were computed with, and the current one.
    free : iterable of str
        Options whose derivatives are wanted; those that are no parameters of Q at a fixed node are passed over.
    """
    wanted = set(free)
    turns, planes, beams = (tuple(n for n in group if n in wanted) for group in (TURNS, PLANES, BEAMS))
    lmbda = "lmbda" in wanted
    before, after = Geometry(harvested), Geometry(now)
    turn, plane = _harmonics(after.lab_to_crystal), after.pixel_to_lab
    return Motion(
        turn=turn,
        turn_change=turn - _harmonics(before.lab_to_crystal),
        plane=plane,
        plane_change=plane - before.pixel_to_lab,
        beam=after.beam,
        beam_change=after.beam - before.beam,
        wave_number=1 / now.lmbda,
        wave_number_change=1 / now.lmbda - 1 / harvested.lmbda,
        turns=np.array([_turn(now, name) for name in turns]).reshape(-1, 3, 3),
        planes=np.array([_plane(after, name) for name in planes]).reshape(-1, 3, 3),
        beams=np.array([_DEGREE * np.cross(after.beam, [0.0, 1.0, 0.0]) for _ in beams]).reshape(-1, 3),
        lmbda=lmbda,
        names=(*turns, *planes, *beams, *(["lmbda"] if lmbda else [])),
    )


def change_of_q(found: Motion, row: Array, column: Array, phi: Array) -> Array:
    """Q now minus Q at the harvest, (n, 3) in Å⁻¹, of rays on frames at phi (degrees), without cancellation."""
    turn_change, turn = (_at(m, phi) for m in (found.turn_change, found.turn))
    direction, direction_change = _direction(found, row, column)
    lab = (direction + found.beam) * found.wave_number
    # At the harvest: lab − lab_change.
    lab_change = (direction_change + found.beam_change) * (found.wave_number - found.wave_number_change)
    lab_change += (direction + found.beam) * found.wave_number_change
    before = lab - lab_change
    return np.asarray(np.einsum("nij,nj->ni", turn_change, before) + np.einsum("nij,nj->ni", turn, lab_change))


def derivatives_of_q(found: Motion, row: Array, column: Array, phi: Array) -> Array:
    """∂Q/∂p of `found.names`, shape (n, parameters, 3)."""
    turn, pixel = _at(found.turn, phi), _pixel(row, column)
    p = pixel @ found.plane.T
    length = np.linalg.norm(p, axis=1)
    direction = p / length[:, None]
    q = np.einsum("nij,nj->ni", turn, (direction + found.beam) * found.wave_number)
    columns = [np.cross(_at(w, phi), q) for w in found.turns]
    for derivative in found.planes:
        moved = pixel @ derivative.T
        across = (moved - direction * np.sum(direction * moved, axis=1)[:, None]) / length[:, None]
        columns.append(np.einsum("nij,nj->ni", turn, across * found.wave_number))
    columns += [turn @ b * found.wave_number for b in found.beams]
    if found.lmbda:
        columns.append(-q * found.wave_number)
    return np.stack(columns, axis=1) if columns else np.zeros((len(row), 0, 3))


def _at(harmonics: Array, phi: Array) -> Array:
    """h₀ + h₁ cos φ + h₂ sin φ, (n, ...)."""
    angle = np.deg2rad(phi)
    waves = np.stack([np.ones_like(angle), np.cos(angle), np.sin(angle)], axis=1)
    return np.asarray(np.tensordot(waves, harmonics, axes=1))


def _harmonics(function: Callable[[float], Array]) -> Array:
    """h₀, h₁, h₂ of a function h₀ + h₁ cos φ + h₂ sin φ of φ in degrees."""
    at_0, at_90, at_180 = (function(angle) for angle in (0.0, 90.0, 180.0))
    mean = (at_0 + at_180) / 2
    return np.stack([mean, (at_0 - at_180) / 2, at_90 - mean])


def _pixel(row: Array, column: Array) -> Array:
    return np.column_stack([row, column, np.ones_like(row, dtype=float)])


def _direction(found: Motion, row: Array, column: Array) -> tuple[Array, Array]:
    """Unit vectors to the pixels now, and their change since the harvest."""
    pixel = _pixel(row, column)
    p, change = pixel @ found.plane.T, pixel @ found.plane_change.T
    before = p - change
    length, length_before = np.linalg.norm(p, axis=1), np.linalg.norm(before, axis=1)
    longer = np.sum((p + before) * change, axis=1) / (length + length_before)
    direction = p / length[:, None]
    return direction, (change - direction * longer[:, None]) / length_before[:, None]


def _turn(e: Experiment, name: str) -> Array:
    """w₀, w₁, w₂ of one angle: ∂M/∂p = w × M, per degree.

    M is a product of active rotations about lab axes, (axis, sign, angle, name) from the left: turning one of
    them turns M about its axis as seen after those to its left.
    """

    def axis_of(phi: float) -> Array:
        factors = (
            (1, 1, e.r1, "r1"), (2, 1, e.r2, "r2"), (3, 1, e.r3, "r3"), (2, -1, e.beta, "beta"), (3, 1, phi, ""),
            (2, 1, e.beta, "beta"), (2, -1, e.alpha, "alpha"), (3, 1, e.kappa, "kappa"), (2, 1, e.alpha, "alpha"),
            (3, 1, e.omega + e.omega_offset, "omega"),
        )  # fmt: skip
        total, left = np.zeros(3), np.eye(3)
        for axis, sign, angle, parameter in factors:
            if parameter == name.removesuffix("_offset"):
                total += sign * left[:, axis - 1]
            left = left @ rotation(axis, sign * angle).T
        return _DEGREE * total

    return _harmonics(axis_of)


def _plane(geometry: Geometry, name: str) -> Array:
    """∂P/∂p per degree, pixel or mm."""
    e = geometry.experiment
    if name in ("det_origin_X", "det_origin_Y", "dist"):
        column = {"det_origin_X": 0, "det_origin_Y": 1}.get(name)
        foot = -geometry.detector[:, 0] if column is None else -geometry.pixel_to_lab[:, column]
        return np.column_stack([np.zeros((3, 2)), foot])
    # DET = R3 R2 R1 of passive rotations, dR_i = −[e_i]× R_i.
    if name == "d1":
        axis = geometry.detector[:, 0]
    elif name == "d2":
        axis = rotation(3, e.theta + e.theta_offset)[:, 1]
    else:
        axis = np.array([0.0, 0.0, 1.0])
    return np.asarray(-_DEGREE * np.cross(axis, geometry.pixel_to_lab.T).T)
