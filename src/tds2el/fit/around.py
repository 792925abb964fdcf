"""What else is in the measured halos of a fit: resolution and neighbours, as the settings and the scan have it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tds2el.crystal.cell import Cell
from tds2el.experiment.geometry import Geometry
from tds2el.fit.data import FitData
from tds2el.fit.neighbours import crowded, neighbours
from tds2el.fit.resolution import MATTERS, Resolution, resolution, smeared_axes
from tds2el.fit.rocking import mosaicity_of
from tds2el.harvest.file import HarvestFile
from tds2el.harvest.nodes import node_names
from tds2el.model.engine import Points
from tds2el.settings import FitSettings

log = logging.getLogger("tds2el")

Array = npt.NDArray[np.float64]

SMALLEST_RADIUS = 0.1
"""Of the outer radius: where a halo is taken to begin if DeltaQ_min is smaller still."""


@dataclass(frozen=True)
class Around:
    """What is needed to know it.

    Attributes
    ----------
    geometries : list of Geometry
        Of each sweep.
    sweep : ndarray of int
        Of each blob of the harvest.
    cell : Cell
    centring : str or None
    mosaicity : float
        Degrees.
    settings : FitSettings
    """

    geometries: list[Geometry]
    sweep: npt.NDArray[np.int64]
    cell: Cell
    centring: str | None
    mosaicity: float
    settings: FitSettings

    @classmethod
    def of(cls, harvest: HarvestFile, centring: str | None, settings: FitSettings) -> Around:
        """With the mosaicity that is given, or that the harvest's peaks show.

        Raises
        ------
        InputError
            No peak shows it.
        """
        geometries = [Geometry(experiment) for experiment in harvest.experiments]
        mosaicity = 0.0
        if not isinstance(settings.mosaicity, str):
            mosaicity = settings.mosaicity
        elif settings.resolution is not False:
            mosaicity, number = mosaicity_of(harvest, geometries)
            log.info("mosaicity %.4f°, the median of %d reflections", mosaicity, number)
        return cls(geometries, harvest.sweep, harvest.cell, centring, mosaicity, settings)

    def resolution(self, data: FitData) -> Resolution:
        """What the halos of the spots are smeared by, whether or not the fit takes it into account."""
        bandwidth, pixel = self.settings.bandwidth, self.settings.pixel_response
        axes = [
            smeared_axes(node, float(angle), self.geometries[self.sweep[blob]], self.mosaicity, bandwidth, pixel)
            for node, angle, blob in zip(data.points.nodes, data.angle, data.blobs, strict=True)
        ]
        return resolution(axes, inner_radius(data.points))


def inner_radius(points: Points) -> float:
    """Where halos begin, Å⁻¹."""
    return max(points.q_min, SMALLEST_RADIUS * points.q_max)


def with_surroundings(data: FitData, around: Around) -> FitData:
    """The same points, with smearing and neighbours where the settings want them."""
    settings, points = around.settings, data.points
    if settings.resolution is not False:
        found = around.resolution(data)
        if settings.resolution is True or found.effect.max() > MATTERS:
            points = replace(points, smearing=found.smearing)
    if _wants_neighbours(data, around):
        points = replace(points, neighbours=neighbours(data.hkl, around.cell, around.centring, points.q_max))
    return replace(data, points=points)


def _wants_neighbours(data: FitData, around: Around) -> bool:
    wanted = around.settings.neighbours
    if wanted == "auto":
        return around.centring is not None and crowded(data.hkl, around.cell, around.centring, data.points.q_max)
    return bool(wanted)


def surroundings_notes(data: FitData, around: Around) -> list[str]:
    """What the model takes into account, one line each."""
    notes, points = [], data.points
    effect = around.resolution(data).effect.max()
    if points.smearing is not None:
        numbers = points.smearing.numbers
        notes.append(
            f"Resolution: the model is averaged over frame, pixel, mosaic spread and wavelengths, which changes halos "
            f"at the inner radius by up to {100 * effect:.2g} %, at {numbers.mean():.1f} places a point."
        )
    elif around.settings.resolution == "auto":
        notes.append(
            f"Resolution would change halos at the inner radius by at most {100 * effect:.2g} % and is left out; "
            "resolution = True averages the model."
        )
    if points.neighbours is not None:
        there = ~np.isnan(points.neighbours[..., 0])
        notes.append(
            f"Neighbours: with each spot the halos of up to {there.sum(axis=1).max()} other nodes are fitted, the "
            f"nearest {np.nanmin(np.linalg.norm(points.neighbours, axis=2)):.4f} Å⁻¹ away, and a linear baseline."
        )
    return notes


def surroundings_warnings(data: FitData, around: Around) -> list[str]:
    """What the model cannot make good, one line each."""
    found, settings = around.resolution(data), around.settings
    warnings = []
    if found.coarse.any() and settings.resolution is not False:
        warnings.append(
            f"resolution: frames and mosaic spread smear the halos of {node_names(data.hkl[found.coarse], 6)} over "
            "their nodes within the shell, which no average makes good: harvest with a larger DeltaQ_min or leave them "
            "out"
        )
    elif settings.resolution is False and found.effect.max() > MATTERS:
        warnings.append(
            f"resolution = False, but frames, pixels and the like change halos at the inner radius by up to "
            f"{100 * found.effect.max():.2g} %: the constants are biased"
        )
    return warnings
