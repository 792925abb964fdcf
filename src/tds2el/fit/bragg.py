"""The absolute scale of the constants from Bragg intensities of the fitted reflections.

One-phonon scattering in the classical limit is I₁(Q) = kT (Qᵀ Γ⁻¹ Q) ∫ I_B d³s, with the Bragg intensity integrated
over reciprocal space; structure factor, volume of the crystal, absorption and monitor are in both (Willis,
International Tables B 4.1). So the factor of a spot is kT ∫ I_B d³s if the constants are absolute. Extinction weakens
strong reflections, ∫ I_B d³s ∝ (1 + 2 g x)^(−1/2) with x ∝ |F|²/sin 2θ (Zachariasen, Acta Cryst. 23, 558, 1967); TDS
has none, so x is known from the factors, g is fitted, and the scale is that at x = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import constants as physics
from scipy.optimize import brentq, least_squares

from tds2el.errors import InputError
from tds2el.fit.known import Datum
from tds2el.fit.parameters import Constants
from tds2el.harvest.bragg import BraggPeak
from tds2el.model.engine import Columns
from tds2el.model.numpy_engine import model_columns
from tds2el.model.quantum import quantum_sum

Array = npt.NDArray[np.float64]

NAME = "Bragg scale"
ENOUGH = 3
"""Reflections that an extrapolation to no extinction takes."""
SIGNIFICANT = 3.0
"""Bragg intensity over its σ below which a reflection tells nothing."""
DIRECTIONS, RADII = 200, 8
"""Points for the integral of S over a ball: even on the sphere, and Gaussian along the radius."""


@dataclass(frozen=True)
class BraggScale:
    """ln of the scale that Bragg intensities give to the constants of a fit, spot by spot and as a whole.

    Attributes
    ----------
    log_ratio, sigma : ndarray, shape (n_blobs,)
        ln(kT ∫ I_B d³s / f), and its σ by counting; NaN where there is none.
    strength : ndarray, shape (n_blobs,)
        x, |F|²/sin 2θ relative to the largest.
    flaw : list of str
        Why a spot is not used; "" if it is.
    log_scale, sigma_scale : float
        At x = 0, scatter and the error of the attenuation included.
    extinction, sigma_extinction : float
        g; 0 and NaN where there are too few reflections to fit it.
    excess : float
        χ²/dof of the spots about the curve.
    weights : ndarray, shape (n_blobs,)
        ∂ log_scale/∂ log_ratio.
    """

    log_ratio: Array
    sigma: Array
    strength: Array
    flaw: list[str]
    log_scale: float
    sigma_scale: float
    extinction: float
    sigma_extinction: float
    excess: float
    weights: Array

    @property
    def loss(self) -> tuple[float, float]:
        """Part of the Bragg intensity that the strongest reflection lacks, and its σ."""
        rest = max(1 + 2 * self.extinction, 0.1)
        return 1 - rest**-0.5, rest**-1.5 * self.sigma_extinction


def thermal_energy(temperature: float) -> float:
    """KT in GPa Å³: 4.14 at 300 K."""
    return float(physics.k * temperature / 1e-21)


def halo_in_ball(node: Array, tensor: Array, radius: float, temperature: float, density: float) -> float:
    """∫ S d³q over the ball round a node, Å⁻³/GPa: what TDS adds to a Bragg peak of unit factor."""
    z = 1 - (2 * np.arange(DIRECTIONS) + 1) / DIRECTIONS
    azimuth = np.pi * (3 - np.sqrt(5)) * np.arange(DIRECTIONS)
    across = np.sqrt(1 - z**2)
    direction = np.stack([across * np.cos(azimuth), across * np.sin(azimuth), z], axis=-1)
    x, w = np.polynomial.legendre.leggauss(RADII)
    radii, steps = radius * (x + 1) / 2, radius * w / 2
    q = (radii[:, None, None] * direction).reshape(-1, 3)
    quantum = quantum_sum(tensor, radius, temperature, density, 1e-6)
    s = model_columns(q, node, tensor, quantum, Columns(np.zeros((0, 6, 6))))[:, 0].reshape(RADII, DIRECTIONS)
    return float(4 * np.pi * np.sum(s.mean(axis=1) * radii**2 * steps))


def net_intensity(peak: BraggPeak, factor: float, baseline: float, halo: float, radius: float) -> float:
    """∫ I_B d³s: the peak without baseline and TDS in what was measured of the ball."""
    seen = peak.volume / (4 / 3 * np.pi * radius**3)
    return peak.integral - baseline * peak.volume - factor * halo * seen


def extrapolated(
    log_ratio: Array, sigma: Array, strength: Array, flaw: list[str], attenuation_error: float
) -> BraggScale:
    """The scale at no extinction, from ln(kT ∫ I_B d³s/f) of the spots against their strength.

    Parameters
    ----------
    log_ratio, sigma, strength : ndarray, shape (n_blobs,)
        See `BraggScale`.
    flaw : list of str
    attenuation_error : float
        σ of ln(attenuation).

    Raises
    ------
    InputError
        No reflection can be used.
    """
    used = np.flatnonzero([not text for text in flaw])
    if not len(used):
        counted = ", ".join(f"{flaw.count(text)} {text}" for text in dict.fromkeys(flaw))
        raise InputError(
            f"bragg_scale: no reflection can be used ({counted}); give an attenuated scan with bragg_prefix, weaker "
            "reflections in collectSpots, or a larger DeltaQ_min"
        )
    y, s, x = log_ratio[used], sigma[used], strength[used]
    extinction = len(used) >= ENOUGH
    dof = len(used) - 1 - extinction

    def excess(spread: float) -> float:
        error = np.hypot(s, spread)
        return float(np.sum(((y - _model(_curve(y, error, x, extinction)[0], x)) / error) ** 2)) / max(1, dof) - 1

    # A scatter beyond counting noise is that of weak and strong reflections alike (Paule & Mandel 1982): with σ of
    # counting alone the strongest, which have most extinction, would decide.
    spread = 0.0
    if dof > 0 and excess(0.0) > 0:
        spread = float(brentq(excess, 0.0, 2 * float(np.std(y)) * np.sqrt(len(used)) + 1e-12, xtol=1e-9))
    error = np.hypot(s, spread)
    found, jacobian = _curve(y, error, x, extinction)
    covariance = np.linalg.inv(jacobian.T @ jacobian)
    weights = np.zeros(len(log_ratio))
    weights[used] = (covariance @ jacobian.T)[0] / error
    return BraggScale(
        log_ratio=log_ratio,
        sigma=sigma,
        strength=strength,
        flaw=flaw,
        log_scale=float(found[0]),
        sigma_scale=float(np.hypot(np.sqrt(covariance[0, 0]), attenuation_error)),
        extinction=float(found[1]) if extinction else 0.0,
        sigma_extinction=float(np.sqrt(covariance[1, 1])) if extinction else float("nan"),
        excess=excess(0.0) + 1,
        weights=weights,
    )


def _model(parameters: Array, x: Array) -> Array:
    g = parameters[1] if len(parameters) > 1 else 0.0
    return np.asarray(parameters[0] - 0.5 * np.log1p(np.maximum(2 * g * x, -0.9)))


def _curve(y: Array, error: Array, x: Array, extinction: bool) -> tuple[Array, Array]:
    """Scale and extinction by least squares, and the Jacobian in units of σ."""
    start = np.array([np.average(y, weights=1 / error**2), 0.0][: 1 + extinction])
    # g may come out negative by noise: a bound at 0 would pull the scale to one side.
    fit = least_squares(lambda p: (y - _model(p, x)) / error, start, x_scale=[0.01, 0.1][: 1 + extinction])
    g = fit.x[1] if extinction else 0.0
    columns = [np.ones_like(x), -x / np.maximum(1 + 2 * g * x, 0.1)][: 1 + extinction]
    return fit.x, np.stack(columns, axis=1) / error[:, None]


def as_datum(scale: BraggScale, constants: Constants, values: Array, held: int | None, response: Array) -> Datum:
    """The scale as a datum for a fit that begins at exp(log_scale) times the constants of the last one.

    The factors follow the constants: ln f_s changes by `response`, so that with other ratios the scale is another.
    While the scale was held, constants are s p with s the scale and p the ratios times the held value.

    Parameters
    ----------
    scale : BraggScale
    constants : Constants
    values : ndarray, shape (k,)
        Where the last fit ended, GPa.
    held : int or None
        The constant that held the scale there.
    response : ndarray, shape (n_blobs, k)
        ∂ ln f/∂p at the minimum over all else; 0 for constants that were not fitted.
    """
    slope = -scale.weights @ response  # ∂ log_scale/∂p
    s = np.exp(scale.log_scale)
    if held is None:
        row, at, value = -slope, values, scale.log_scale
    else:
        at, value = s * values, 0.0
        row = -slope / s
        row[held] = (1 + slope @ values) / at[held]
    structure = constants.structure
    gradient = np.zeros((6, 6))
    for name, part in zip(structure.names, row, strict=True):
        gradient[int(name[1]) - 1, int(name[2]) - 1] = part
    origin = structure.tensor(at)

    def quantity(tensor: Array) -> tuple[float, Array]:
        return float(np.sum(gradient * (tensor - origin))), gradient

    return Datum(NAME, value, scale.sigma_scale, "", quantity)
