"""All pictures of a fit, under stable names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tds2el.crystal.moduli import is_stable
from tds2el.fit.read import FitFile
from tds2el.view.planes import CentralPlanes, central_planes, planes_sheets
from tds2el.view.residuals import correlations, pulls, worst_spots
from tds2el.view.scale import extinction_curve
from tds2el.view.spots import contact_sheets, spot_profiles
from tds2el.view.surfaces import slowness_sections, young_surface

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 24
"""Spots with a picture of their own; of more, those with the largest χ²/dof. Contact sheets show all."""
CAPTIONS = {
    "planes_sheet": (
        "Central planes of every interpolated spot, data above simulation, each spot on a logarithmic scale of its own."
    ),
    "profiles_sheet": (
        "Mean intensity of every spot against the distance from its node, with error bars, and the fit averaged over "
        "the same points."
    ),
    "pulls": (
        "Left: pulls of all points, and what counts drawn from the fitted model would give; at few counts per point "
        "that is far from a Gaussian. Right: mean and root mean square of the pulls against |q|, which are 0 and 1 if "
        "the fit is true."
    ),
    "worst_spots": "χ²/dof of the spots that the model describes worst, drawn from 1, its mean if the fit is true.",
    "correlations": "Correlations of the fitted constants, from the Fisher information of the counts.",
    "bragg_scale": (
        "The scale of the constants of a first fit that the Bragg peak of each reflection gives, against the strength "
        "of the reflection. Extinction weakens strong ones; the scale is where the curve meets x = 0."
    ),
    "slowness": (
        "Sections of the slowness surface, 1/phase velocity, of the three sound waves. Energy flows along the normals "
        "of the surface."
    ),
    "young_modulus": "Young's modulus against the direction of uniaxial stress: the surface and its sections.",
    "planes": (
        "Data, simulation and their difference, interpolated alike, on the three planes through the node. Data and "
        "simulation share one logarithmic scale. Grey: not measured."
    ),
    "profiles": (
        "Mean intensity against |q|, against the angle between q and G, and against the azimuth of q about G, with the "
        "fit averaged over the same points; below, the residuals in units of their standard deviation."
    ),
}


@dataclass(frozen=True)
class Drawing:
    """A picture and what to say about it.

    Attributes
    ----------
    name : str
        Of the file, without ending.
    title : str
        Pictures of one kind follow each other under the same title.
    caption : str
        What is shown, and how to read it.
    figure : Figure
    one_spot : bool
        One of many of its kind, and on a contact sheet too.
    """

    name: str
    title: str
    caption: str
    figure: Figure
    one_spot: bool = False


def figures(fit: FitFile, planes: Sequence[CentralPlanes] | None = None) -> Iterator[Drawing]:
    """All pictures of a fit, drawn one at a time as they are asked for.

    Parameters
    ----------
    fit : FitFile
    planes : sequence of CentralPlanes, optional
        Of the spots that were interpolated.

    Yields
    ------
    Drawing
        Named ``planes_1`` … (contact sheets of the central planes), ``profiles_1`` … (contact sheets of the radial
        profiles), ``pulls``, ``worst_spots``, ``correlations`` (where two or more constants were fitted),
        ``bragg_scale`` (where the scale came from Bragg intensities), ``slowness``
        and ``young_modulus`` (where the tensor is stable), and of `MOST` spots at most
        ``planes_h_k_l`` or ``planes_h_k_l_angle``, of those in `planes`, and ``profiles_h_k_l_angle``.
    """
    for number, figure in enumerate(planes_sheets(planes or [], fit.shell), start=1):
        yield Drawing(f"planes_{number}", "Data and simulation", CAPTIONS["planes_sheet"], figure)
    for number, figure in enumerate(contact_sheets(fit), start=1):
        yield Drawing(f"profiles_{number}", "Radial profiles", CAPTIONS["profiles_sheet"], figure)
    yield Drawing("pulls", "Residuals", CAPTIONS["pulls"], pulls(fit))
    yield Drawing("worst_spots", "Residuals", CAPTIONS["worst_spots"], worst_spots(fit))
    if len(fit.constants.fitted) > 1:
        yield Drawing("correlations", "Correlations", CAPTIONS["correlations"], correlations(fit))
    if fit.bragg is not None:
        yield Drawing("bragg_scale", "Absolute scale", CAPTIONS["bragg_scale"], extinction_curve(fit, fit.bragg))
    if is_stable(fit.frames["W"].stiffness):
        yield Drawing("slowness", "Surfaces", CAPTIONS["slowness"], slowness_sections(fit))
        yield Drawing("young_modulus", "Surfaces", CAPTIONS["young_modulus"], young_surface(fit))
    nodes = {tuple(int(i) for i in hkl): node for hkl, node in zip(fit.spots.hkl, fit.spots.centre, strict=True)}
    pictured = pictured_spots(fit)
    shown = {tuple(int(i) for i in fit.spots.hkl[row]) for row in pictured}
    for spot in planes or []:
        if spot.hkl in shown:
            figure = central_planes(spot, fit.shell, nodes[spot.hkl])
            yield Drawing(_name("planes", spot.hkl, spot.angle), "Central planes", CAPTIONS["planes"], figure, True)
    for row in pictured:
        name = _name("profiles", fit.spots.hkl[row], float(fit.spots.angle[row]))
        yield Drawing(name, "Profiles of the spots", CAPTIONS["profiles"], spot_profiles(fit, row), True)


def pictured_spots(fit: FitFile) -> list[int]:
    """Rows of the spots that get a picture of their own, in the order of the table."""
    worst = np.argsort(-fit.spots.chi2_per_dof, kind="stable")[:MOST]
    return sorted(int(spot) for spot in worst)


def _name(kind: str, hkl: Iterable[int], angle: float | None) -> str:
    """hkl and angle are the key of a spot."""
    indices = "_".join(str(int(index)) for index in hkl)
    return f"{kind}_{indices}" if angle is None else f"{kind}_{indices}_{angle:.2f}"
