"""From a fit whose scale is open to one with the scale of Bragg intensities: read frames, integrate, compare."""

from __future__ import annotations

import logging
from dataclasses import fields, replace

import numpy as np

from tds2el.errors import InputError
from tds2el.fit.bragg import (
    SIGNIFICANT,
    BraggScale,
    as_datum,
    extrapolated,
    halo_in_ball,
    net_intensity,
    thermal_energy,
)
from tds2el.fit.fit import Fit
from tds2el.fit.known import Known
from tds2el.fit.parameters import Constants, Scale
from tds2el.harvest.bragg import bragg_frames, bragg_source, integrate_peaks
from tds2el.harvest.file import HarvestFile
from tds2el.settings import Experiment, Settings

log = logging.getLogger("tds2el")


def check_bragg(settings: Settings, constants: Constants, harvest: HarvestFile | None = None) -> None:
    """Find what is wrong with `bragg_scale` before a fit, or a harvest.

    Raises
    ------
    InputError
        A constant is frozen, frames are missing, or the harvest is of several sweeps.
    """
    if settings.bragg.bragg_scale and settings.fit.doMinimisation:
        if constants.initial_scale("auto") is Scale.KNOWN:
            raise InputError(
                "bragg_scale: a constant is frozen in CGUESS (min = max), which sets the scale already: leave one out"
            )
        if harvest is not None and len(harvest.experiments) > 1:
            raise InputError(
                f"bragg_scale: {harvest.path} has several sweeps, which is not available in this version: harvest one"
            )
        bragg_source(settings.frames, settings.bragg)


def bragg_scale(fit: Fit, harvest: HarvestFile, settings: Settings) -> BraggScale:
    """The scale from the Bragg peaks of the fitted reflections, inside the inner radius of the shells.

    Parameters
    ----------
    fit : Fit
    harvest : HarvestFile
        That was fitted.
    settings : Settings

    Raises
    ------
    InputError
        Frames are missing or damaged, or no reflection can be used.
    """
    result, options, crystal = fit.result, settings.bragg, settings.crystal
    experiment = harvest.experiments[0]
    shift = harvest.shift[fit.data.blobs]
    if result.corrections is not None:
        refined = dict(zip(result.corrections.names, result.corrections.value.tolist(), strict=True))
        own = {field.name for field in fields(Experiment)}
        experiment = replace(experiment, **{name: value for name, value in refined.items() if name in own})
        shift = np.zeros_like(shift)  # it was what the refined geometry now explains
    attenuation, error = options.bragg_attenuation
    source = bragg_source(settings.frames, options)
    scan = bragg_frames(source, experiment, attenuation, settings.harvest.threshold)
    nodes = fit.data.points.nodes if fit.state.nodes is None else fit.state.nodes
    spots, radius = result.spots, harvest.delta_min
    peaks = integrate_peaks(scan, nodes, nodes + shift + spots.offset, fit.data.angle, radius)

    blobs = len(peaks)
    log_ratio, sigma, flaw = np.full(blobs, np.nan), np.full(blobs, np.nan), [peak.flaw for peak in peaks]
    for n, peak in enumerate(peaks):
        if spots.left_out[n]:
            flaw[n] = "left out of the fit"
        if flaw[n]:
            continue
        halo = halo_in_ball(nodes[n], result.tensor, radius, crystal.Temperature, crystal.density)
        net = net_intensity(peak, spots.factor[n], spots.baseline[n], halo, radius)
        counting = np.sqrt(peak.variance)
        if net < SIGNIFICANT * counting or net <= 0:
            flaw[n] = "weak"
            continue
        log_ratio[n] = np.log(thermal_energy(crystal.Temperature) * net / spots.factor[n])
        sigma[n] = np.hypot(counting / net, fit.own_sigma[n])
    length = np.linalg.norm(nodes, axis=1)
    sine = np.sin(2 * np.arcsin(np.clip(experiment.lmbda * length / 2, 0, 1)))
    strength = np.where(spots.left_out, np.nan, spots.factor / sine)
    return extrapolated(log_ratio, sigma, strength / np.nanmax(strength), flaw, error / attenuation)


def constants_at_scale(constants: Constants, fit: Fit, scale: BraggScale) -> Constants:
    """Where a second fit begins, with the scale among its data: the constants of the first one, at that scale."""
    result = fit.result
    datum = as_datum(scale, constants, result.values, result.held, np.nan_to_num(fit.response))
    known = (constants.known or Known(constants.structure, ())).with_data(datum)
    factor = 1.0 if result.held is None else float(np.exp(scale.log_scale))
    log.info(
        "Bragg intensities of %d reflections: the constants are %.4g(%.2g) times those before",
        sum(not text for text in scale.flaw),
        np.exp(scale.log_scale),
        np.exp(scale.log_scale) * scale.sigma_scale,
    )
    start = np.clip(factor * result.values, constants.lower, constants.upper)
    return replace(constants, start=start, known=known)
