"""A sweep in the lab frame of any program, and its geometry in our parameters, exactly, both ways.

Other programs put the lab's axes where they like and give vectors. Ours follow from the experiment: e3 is the axis that
turns, and e1 lies in the plane of it and the beam, towards the source. In this frame every flat detector, every single
rotation and every orientation has its angles, and the goniometer's other circles can rest at 0: what they do to the
crystal is in its orientation at angle 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tds2el.crystal.cell import CELL_OPTIONS, Cell, cell_from_metric
from tds2el.errors import InputError
from tds2el.experiment.geometry import ORIENTATION_MATRICES, Geometry, rotation
from tds2el.settings import Experiment

Array = npt.NDArray[np.float64]

# Text files give vectors to 6 digits; farther from a right angle is no rounding.
_SKEW = 1e-4
# sin of the angle between beam and rotation axis, below which they are taken as parallel.
_PARALLEL = 1e-3
# Of options: below what matters of any detector or crystal, and above what arithmetic adds.
_DIGITS = 12


@dataclass(frozen=True)
class Detector:
    """A flat detector.

    Attributes
    ----------
    origin : ndarray, shape (3,)
        From the sample to the middle of the pixel in row 0 and column 0, mm.
    slow, fast : ndarray, shape (3,)
        Unit vectors along growing row and column.
    pixel_size : float
        mm.
    shape : (rows, columns), optional
    sensor_thickness, sensor_mu : float
        For the parallax, in mm and mm⁻¹; 0: none.
    """

    origin: Array
    slow: Array
    fast: Array
    pixel_size: float
    shape: tuple[int, int] | None = None
    sensor_thickness: float = 0.0
    sensor_mu: float = 0.0


@dataclass(frozen=True)
class Sweep:
    """What a program says about one sweep, in its own lab frame.

    Attributes
    ----------
    detector : Detector
    source : ndarray, shape (3,)
        Unit vector from the sample to the source.
    wavelength : float
        Å.
    axis : ndarray, shape (3,)
        Unit vector about which the crystal turns, right-handed, with growing angle.
    start, width : float, optional
        Angle at the beginning of the first frame, and from frame to frame, degrees.
    UB : ndarray, shape (3, 3), optional
        Columns a*, b*, c* in the lab at angle 0, Å⁻¹.
    normal, polarisation : ndarray of shape (3,) and float, optional
        Normal to the plane of polarisation, and the fraction that is polarised in it.
    prefix, postfix : str
        Beginning and end of the names of the frames; "": not known.
    first_number : int, optional
        Number in the name of the first frame.
    n_frames : int, optional
    remarks : tuple of str
        What the user should know, for the comments of a conf_file.
    """

    detector: Detector
    source: Array
    wavelength: float
    axis: Array
    start: float | None = None
    width: float | None = None
    UB: Array | None = None
    normal: Array | None = None
    polarisation: float | None = None
    prefix: str = ""
    postfix: str = ""
    first_number: int | None = None
    n_frames: int | None = None
    remarks: tuple[str, ...] = ()

    def later(self, frames: int) -> Sweep:
        """The sweep without its first so many frames."""
        if self.start is None or self.width is None:
            return self
        left = None if self.n_frames is None else self.n_frames - frames
        number = None if self.first_number is None else self.first_number + frames
        return replace(self, start=self.start + frames * self.width, n_frames=left, first_number=number)


def unit(vector: npt.ArrayLike) -> Array:
    """The vector (3,) at length 1."""
    v = np.asarray(vector, dtype=float)
    return np.asarray(v / np.linalg.norm(v))


def split_template(template: str) -> tuple[str, str]:
    """Beginning and end of the names of frames, from one with # in place of the digits of its number."""
    if "#" not in template:
        return template, ""
    return template[: template.index("#")], template[template.rindex("#") + 1 :]


def turn(axis: Array, degrees: float) -> Array:
    """Active, right-handed rotation (3, 3) about a unit vector (Rodrigues)."""
    angle = np.deg2rad(degrees)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def values_of(sweep: Sweep) -> dict[str, object]:
    """The options of a conf_file that a sweep settles.

    Parameters
    ----------
    sweep : Sweep
        Angles and orientation are left out where it has none.

    Returns
    -------
    dict
        Option to value, of the groups experiment and crystal, in the order of their table.

    Raises
    ------
    InputError
        If our geometry cannot express it: the axis along the beam, a skew detector or one with the sample in its
        plane, a left-handed cell.
    """
    frame = _our_frame(sweep)
    source = frame @ sweep.source
    values = _detector_values(sweep.detector, frame)
    # Our tilt is about e2, which is at right angles to both.
    values |= {"lmbda": sweep.wavelength, "beam_tilt_angle": _degrees(np.arctan2(source[2], source[0]))}
    if sweep.start is not None and sweep.width is not None:
        # Our rotations are passive: a right-handed turn of the crystal has a negative angle.
        values |= {"phi": -(sweep.start + sweep.width / 2), "angular_step": -sweep.width}
    if sweep.UB is not None:
        values |= _crystal_values(sweep.UB, frame)
    if sweep.normal is not None and sweep.polarisation is not None:
        values |= {"pol_degree": sweep.polarisation, "normal_to_pol": (frame @ sweep.normal).tolist()}
    return {name: _rounded(value) for name, value in values.items()}


def sweep_of(experiment: Experiment, cell: Cell | None) -> Sweep:
    """A sweep with the geometry of an experiment, in the lab frame of DIALS: x along the axis, z to the source.

    Where angular_step is positive the axis is turned round, so that the width of a frame is positive.
    """
    geometry = Geometry(experiment)
    tilted = geometry.goniometer(0.0) @ rotation(2, experiment.beta)  # before the crystal turns about e3
    sense = -1.0 if experiment.angular_step > 0 else 1.0
    axis = sense * tilted[:, 2]
    across = geometry.beam - (geometry.beam @ axis) * axis
    if np.linalg.norm(across) < _PARALLEL:
        raise InputError(
            "the crystal turns about the beam itself, which other programs do not describe; see alpha, kappa"
        )
    z = unit(across)
    frame = np.array([axis, np.cross(z, axis), z])
    m, normal = geometry.pixel_to_lab, geometry.polarisation_axes[1]
    width = abs(experiment.angular_step)
    return Sweep(
        Detector(
            origin=frame @ m[:, 2],
            slow=frame @ unit(m[:, 0]),
            fast=frame @ unit(m[:, 1]),
            pixel_size=experiment.pixel_size,
            sensor_thickness=experiment.sensor_thickness,
            sensor_mu=experiment.sensor_mu,
        ),
        source=frame @ geometry.beam,
        wavelength=experiment.lmbda,
        axis=frame @ axis,
        start=-sense * experiment.phi - width / 2,
        width=width,
        UB=None if cell is None else frame @ geometry.goniometer(0.0) @ geometry.orientation @ cell.B,
        normal=frame @ normal,
        polarisation=experiment.pol_degree,
    )


def rotation_angles(matrix: Array) -> tuple[float, float, float]:
    """Angles x1, x2, x3 in degrees with matrix = R3(x3) R2(x2) R1(x1), of a proper rotation (3, 3)."""
    across = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    x2 = _degrees(np.arctan2(matrix[2, 0], across))
    # With its first axis along e3 only a sum of x1 and x3 is defined.
    x3 = _degrees(np.arctan2(-matrix[1, 0], matrix[0, 0])) if across > 1e-12 else 0.0
    rest = (rotation(3, x3) @ rotation(2, x2)).T @ matrix
    return _degrees(np.arctan2(rest[1, 2], rest[1, 1])), x2, x3


def _our_frame(sweep: Sweep) -> Array:
    """Rows e1, e2, e3 in the sweep's lab."""
    e3 = unit(sweep.axis)
    across = sweep.source - (sweep.source @ e3) * e3
    if np.linalg.norm(across) < _PARALLEL:
        raise InputError("the rotation axis lies along the beam; such a scan cannot be described")
    e1 = unit(across)
    return np.array([e1, np.cross(e3, e1), e3])


def _detector_values(detector: Detector, frame: Array) -> dict[str, object]:
    slow, fast, origin = frame @ detector.slow, frame @ detector.fast, frame @ detector.origin
    if abs(slow @ fast) > _SKEW or abs(np.linalg.norm(slow) - 1) > _SKEW or abs(np.linalg.norm(fast) - 1) > _SKEW:
        raise InputError("the detector's axes are no unit vectors at right angles; correct them")
    # The nearest ones that are: the polar factor.
    left, _, right = np.linalg.svd(np.column_stack([slow, fast]), full_matrices=False)
    axes = left @ right
    normal = np.cross(axes[:, 0], axes[:, 1])
    dist = float(origin @ normal)
    if dist < 0:
        normal, dist = -normal, -dist
    if dist < 1e-3:
        raise InputError("the detector's plane goes through the sample; check its distance")
    foot = (dist * normal - origin) @ axes / detector.pixel_size
    # Four codes suit either hand; the one that turns the detector least about its normal is the natural one.
    right_handed = float(np.linalg.det(np.column_stack([-normal, axes]))) > 0
    suitable = [n for n, m in enumerate(ORIENTATION_MATRICES) if (np.linalg.det(m) > 0) == right_handed]
    angles = {n: rotation_angles(np.column_stack([-normal, axes @ ORIENTATION_MATRICES[n].T])) for n in suitable}
    code = min(suitable, key=lambda n: round(abs(angles[n][0]), 6))
    d1, d2, theta = angles[code]
    return {
        "pixel_size": detector.pixel_size,
        "dist": dist,
        "det_origin_X": float(foot[0]),
        "det_origin_Y": float(foot[1]),
        "d1": d1,
        "d2": d2,
        "theta": theta,
        "orientation_codes": code,
        "sensor_thickness": detector.sensor_thickness,
        "sensor_mu": detector.sensor_mu,
    }


def _crystal_values(UB: Array, frame: Array) -> dict[str, object]:
    if np.linalg.det(UB) <= 0:
        raise InputError("a*, b*, c* are no right-handed axes of a cell; index with a right-handed one")
    axes = np.linalg.inv(UB)
    cell = cell_from_metric(axes @ axes.T)
    left, _, right = np.linalg.svd(frame @ UB @ cell.A)
    r1, r2, r3 = rotation_angles(left @ right)
    return {"r1": r1, "r2": r2, "r3": r3, **dict(zip(CELL_OPTIONS, cell.parameters, strict=True))}


def _degrees(radians: float) -> float:
    return float(np.rad2deg(radians))


def _rounded(value: object) -> object:
    """As it is written: without the last digits, and without −0."""
    if isinstance(value, float):
        return round(value, _DIGITS) + 0.0
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value
