"""Which frames and detector regions see which Bragg node: from geometry alone, before any frame is read.

A frame cuts the ball |Q − G| ≤ Δ if the Ewald sphere at its mid angle does. With the unit vectors p̂0 (towards
the source) and p̂ (a scattered ray), Q = (p̂ + p̂0)/λ in the lab; so the ball holds the directions within λΔ of
c = λG − p̂0, and it is cut if ||c| − 1| ≤ λΔ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tds2el.experiment.geometry import Geometry

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Passages of one node are told apart by a gap of more than this many degrees, and more than one frame.
PASSAGE_GAP = 0.5
# Regions are widened by this many pixels against rounding.
MARGIN = 1


@dataclass(frozen=True)
class Passage:
    """One traversal of the Ewald sphere by the ball round a node.

    Attributes
    ----------
    frames : ndarray of int
        Existing frames that cut the ball, ascending.
    angle : float
        phi of closest approach, degrees: where the node itself lies on the sphere (the first such angle of
        the scan if it does twice); else, within the passage widened by half a frame, where it comes nearest.
    """

    frames: IntArray
    angle: float


@dataclass(frozen=True)
class Plan:
    """Blobs (a node and one passage) and their visits (a frame and the part of the detector to look at).

    Attributes
    ----------
    node : ndarray, shape (blobs,)
        Index of each blob's node in the list the plan was made for.
    angle : ndarray, shape (blobs,)
        phi of closest approach in degrees; that of the node itself, however the ball is shifted.
    shift : ndarray, shape (blobs, 3)
        From the node to the middle of the ball, Å⁻¹.
    frame, blob : ndarray, shape (visits,)
        Sorted by frame, then blob.
    region : ndarray, shape (visits, 4)
        First row, end row, first column, end column (ends exclusive).
    """

    node: IntArray
    angle: Array
    shift: Array
    frame: IntArray
    blob: IntArray
    region: IntArray


def make_plan(geometry: Geometry, nodes: Array, angle_index: Array, delta: float, shape: tuple[int, int]) -> Plan:
    """Plan the visits of balls round nodes; passages that miss the detector are left out.

    Parameters
    ----------
    geometry : Geometry
    nodes : ndarray, shape (n, 3)
        G in the crystal frame, Å⁻¹.
    angle_index : ndarray, shape (frames,)
        phi = geometry.phi(angle_index) in the middle of each frame.
    delta : float
        Radius of the balls, Å⁻¹.
    shape : (int, int)
        Rows and columns of a frame.
    """
    scan = _Scan(geometry, angle_index)
    found = [(node, passage) for node, g in enumerate(nodes) for passage in _passages(geometry, g, scan, delta)]
    node = np.array([node for node, _ in found], dtype=np.int64)
    angle = np.array([passage.angle for _, passage in found], dtype=float)
    frames = [passage.frames for _, passage in found]
    return _plan(geometry, nodes, node, angle, np.zeros((len(found), 3)), frames, angle_index, delta, shape)


def shifted_plan(
    plan: Plan,
    shift: Array,
    geometry: Geometry,
    nodes: Array,
    angle_index: Array,
    delta: float,
    shape: tuple[int, int],
) -> Plan:
    """The plan with the ball of each blob moved, so that blobs keep their node and their angle.

    A moved ball may be cut where the ball round the node is not. A frame belongs to the passage of the node whose
    frames are nearest; so the blobs of a node share no frame.

    Parameters
    ----------
    plan : Plan
        As `make_plan` made it with the other parameters.
    shift : ndarray, shape (blobs, 3)
        Å⁻¹. Blobs that are not shifted stay as they are.

    Returns
    -------
    Plan
        Without the blobs whose ball the detector does not see any more.
    """
    frames = [plan.frame[plan.blob == blob] for blob in range(len(plan.node))]
    for node in np.unique(plan.node):
        blobs = np.flatnonzero(plan.node == node)
        if not shift[blobs].any():
            continue
        # Also those passages that miss the detector, since they own frames too.
        own = passages(geometry, nodes[node], angle_index, delta)
        distance = np.array([_distance(angle_index, passage.frames) for passage in own])
        nearest = distance.argmin(axis=0)
        angles = np.array([passage.angle for passage in own])
        for blob in blobs[shift[blobs].any(axis=1)]:
            curve = _SphereDistance(geometry, nodes[node] + shift[blob])
            cut = np.abs(curve.at(geometry.phi(angle_index))) <= geometry.experiment.lmbda * delta
            frames[blob] = np.flatnonzero(cut & (nearest == np.argmin(np.abs(angles - plan.angle[blob]))))
    return _plan(geometry, nodes, plan.node, plan.angle, shift, frames, angle_index, delta, shape)


def _plan(
    geometry: Geometry,
    nodes: Array,
    node: IntArray,
    angle: Array,
    shift: Array,
    frames: list[IntArray],
    angle_index: Array,
    delta: float,
    shape: tuple[int, int],
) -> Plan:
    """Blobs with their frames, as visits; what the detector does not see is left out."""
    frame = np.concatenate([_no_visits(), *frames])
    blob = np.repeat(np.arange(len(frames)), [part.size for part in frames])
    region = regions(geometry, nodes[node[blob]] + shift[blob], geometry.phi(angle_index[frame]), delta, shape)
    seen = (region[:, 0] < region[:, 1]) & (region[:, 2] < region[:, 3])
    frame, blob, region = frame[seen], blob[seen], region[seen]
    used, blob = np.unique(blob, return_inverse=True)
    order = np.lexsort((blob, frame))
    return Plan(node[used], angle[used], shift[used], frame[order], blob[order], region[order])


def _distance(angle_index: Array, frames: IntArray) -> Array:
    """How far frames are from a range of frames, in frames; 0 inside."""
    first, last = angle_index[frames].min(), angle_index[frames].max()
    return np.asarray(np.maximum(0.0, np.maximum(first - angle_index, angle_index - last)))


def passages(geometry: Geometry, node: Array, angle_index: Array, delta: float) -> list[Passage]:
    """The passages of one node in the order of the scan.

    Missing frames (in a scan whose angles come from names or headers) count as if they were there: a passage
    does not end where nothing was recorded.
    """
    return _passages(geometry, node, _Scan(geometry, angle_index), delta)


class _Scan:
    """What the passages of all nodes have in common."""

    def __init__(self, geometry: Geometry, angle_index: Array) -> None:
        self.index, self.frame = _with_missing_frames(angle_index)
        angle = np.deg2rad(geometry.phi(self.index))
        self.cosine, self.sine = np.cos(angle), np.sin(angle)


def _passages(geometry: Geometry, node: Array, scan: _Scan, delta: float) -> list[Passage]:
    curve, index, frame = _SphereDistance(geometry, node), scan.index, scan.frame
    cut = np.flatnonzero(np.abs(curve.of(scan.cosine, scan.sine)) <= geometry.experiment.lmbda * delta)
    if not cut.size:
        return []
    longest_gap = max(1.0, PASSAGE_GAP / abs(geometry.experiment.angular_step)) + 1e-6
    ends = np.flatnonzero(np.diff(index[cut]) - 1 > longest_gap) + 1
    result = []
    for part in np.split(cut, ends):
        frames = np.sort(frame[part][frame[part] >= 0])
        if frames.size:
            first, last = geometry.phi([index[part[0]] - 0.5, index[part[-1]] + 0.5])
            result.append(Passage(frames, curve.closest(float(first), float(last))))
    return result


def regions(geometry: Geometry, nodes: Array, phi: Array, delta: float, shape: tuple[int, int]) -> IntArray:
    """Boxes of pixels that hold the balls' images on the detector.

    The rays into a ball fill a cone of half angle α about ĉ, cos α = (|c|² + 1 − λ²Δ²)/(2|c|); its image on
    the flat detector is a conic, whose box follows from the planes that touch the cone and hold a detector
    axis.

    Parameters
    ----------
    nodes : ndarray, shape (n, 3)
        G in the crystal frame, Å⁻¹.
    phi : ndarray, shape (n,)
        Goniometer angles, degrees.
    delta : float
        Radius of the balls, Å⁻¹.

    Returns
    -------
    ndarray of int, shape (n, 4)
        First row, end row, first column, end column (ends exclusive), clipped to the detector; an empty box
        has its end not after its beginning. A cone that reaches the detector's horizon gets the whole
        detector, unless it misses the cone round the detector.
    """
    e = geometry.experiment
    g_lab = np.einsum("nji,nj->ni", geometry.lab_to_crystal(phi), nodes)
    centre = (e.lmbda * g_lab - geometry.beam) @ geometry.detector
    length = np.linalg.norm(centre, axis=-1)
    c = centre / np.maximum(length, 1e-12)[:, None]
    with np.errstate(divide="ignore", over="ignore"):
        cosine = (length**2 + 1 - (e.lmbda * delta) ** 2) / (2 * length)
    cosine = np.clip(cosine, -1.0, 1.0)
    sine = np.sqrt(1 - cosine**2)

    bounded = (cosine > 0) & (-c[:, 0] > sine * (1 + 1e-9))
    low, high = np.zeros((len(c), 2)), np.zeros((len(c), 2))
    for axis in (0, 1):
        cx, cy, s = c[bounded, 0], c[bounded, axis + 1], sine[bounded]
        spread = s * np.sqrt(np.maximum(cx**2 + cy**2 - s**2, 0))
        low[bounded, axis] = e.dist * (-cx * cy - spread) / (cx**2 - s**2)
        high[bounded, axis] = e.dist * (-cx * cy + spread) / (cx**2 - s**2)
    # These are places where rays enter the sensor; parallax takes them outwards by a factor between 1 and this.
    low, high = np.minimum(low, geometry.largest_parallax * low), np.maximum(high, geometry.largest_parallax * high)
    # Rows and columns run along the axes of the plane, one way or the other.
    corners = np.stack([low, high]) @ np.linalg.inv(geometry.pixel_to_plane).T + geometry.origin
    limit = np.array(shape)
    first = np.clip(np.floor(corners.min(axis=0)) - MARGIN, 0, limit).astype(np.int64)
    end = np.clip(np.ceil(corners.max(axis=0)) + MARGIN + 1, 0, limit).astype(np.int64)

    axis_of_detector, half_angle = _detector_cone(geometry, shape)
    separation = np.arccos(np.clip(c @ axis_of_detector, -1, 1))
    touched = separation <= np.arccos(cosine) + half_angle + 1e-6
    first[~bounded] = 0
    end[~bounded] = np.where(touched[~bounded, None], limit, 0)
    return np.stack([first[:, 0], end[:, 0], first[:, 1], end[:, 1]], axis=1)


class _SphereDistance:
    """h(φ) = |c| − 1 with |c|² = 1 + λ²G² − 2λ p̂0·R(φ)UG, and p̂0·R(φ)UG = a + b cos φ + c sin φ."""

    def __init__(self, geometry: Geometry, node: Array) -> None:
        lmbda = geometry.experiment.lmbda
        at_0, at_90, at_180 = geometry.beam_in_crystal @ node
        mean, cosine, sine = (at_0 + at_180) / 2, (at_0 - at_180) / 2, at_90 - (at_0 + at_180) / 2
        self.square = 1 + lmbda**2 * float(node @ node)
        self.offset, self.cosine, self.sine = (2 * lmbda * float(x) for x in (mean, cosine, sine))

    def at(self, phi: npt.ArrayLike) -> Array:
        """h at phi in degrees."""
        angle = np.deg2rad(np.asarray(phi, dtype=float))
        return self.of(np.cos(angle), np.sin(angle))

    def of(self, cosine: Array, sine: Array) -> Array:
        """h from cos φ and sin φ."""
        wave = self.offset + self.cosine * cosine + self.sine * sine
        return np.asarray(np.sqrt(np.maximum(self.square - wave, 0)) - 1)

    def closest(self, first: float, last: float) -> float:
        """Where |h| is least between two angles (degrees, in scan order); the first root if there is one."""
        amplitude = float(np.hypot(self.cosine, self.sine))
        phase = float(np.rad2deg(np.arctan2(self.sine, self.cosine)))
        wanted = self.square - 1 - self.offset
        if abs(wanted) <= amplitude:
            swing = float(np.rad2deg(np.arccos(wanted / amplitude))) if amplitude else 0.0
            roots = _within([phase - swing, phase + swing], first, last)
            if roots.size:
                return float(roots[0])
        candidates = np.concatenate([[first], _within([phase, phase + 180], first, last), [last]])
        return float(candidates[np.argmin(np.abs(self.at(candidates)))])


def _within(angles: list[float], first: float, last: float) -> Array:
    """All angles + 360°·k between two angles, in scan order."""
    low, high = min(first, last), max(first, last)
    values = [a + 360 * k for a in angles for k in range(int((low - a) // 360), int((high - a) // 360) + 2)]
    inside = sorted(v for v in values if low <= v <= high)
    return np.array(inside if first <= last else inside[::-1], dtype=float)


def _with_missing_frames(angle_index: Array) -> tuple[Array, IntArray]:
    """Angle indices, ascending, with gaps filled, and the frame of each (−1 where none was recorded)."""
    order = np.argsort(angle_index, kind="stable")
    index = angle_index[order]
    step = np.rint(np.diff(index)).astype(np.int64)
    filler = [index[i] + np.arange(1, step[i]) for i in np.flatnonzero(step > 1)]
    if not filler:
        return index, order
    missing = np.concatenate(filler)
    index = np.concatenate([index, missing])
    frame = np.concatenate([order, np.full(missing.size, -1)])
    order = np.argsort(index, kind="stable")
    return index[order], frame[order]


def _detector_cone(geometry: Geometry, shape: tuple[int, int]) -> tuple[Array, float]:
    """Axis (detector frame) and half angle of a cone that holds all pixels: it touches the corners, or, with parallax,
    leaves room for it.
    """
    rows, columns = np.array([-1, shape[0]])[[0, 0, 1, 1]], np.array([-1, shape[1]])[[0, 1, 0, 1]]
    plane = (np.stack([rows, columns], axis=1) - geometry.origin) @ geometry.pixel_to_plane.T
    vectors = np.column_stack([np.full(4, -geometry.experiment.dist), plane])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    axis = vectors.mean(axis=0)
    axis /= np.linalg.norm(axis)
    parallax = geometry.largest_parallax - 1  # of tan θ, so of θ at most half of it
    return axis, float(np.arccos(np.clip(vectors @ axis, -1, 1)).max()) + parallax / 2


def _no_visits() -> IntArray:
    return np.empty(0, dtype=np.int64)
