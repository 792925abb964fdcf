"""What a fit beyond the elastic limit says of the elastic one: shifts of the constants, and whether they are noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tds2el.fit.parameters import Scale
from tds2el.fit.result import FitResult

Array = npt.NDArray[np.float64]

SIGNIFICANT = 0.01
"""Probability of such shifts by noise alone below which the elastic limit is called biased."""
LEAST_VARIANCE = 0.01
"""Of a difference, as a part of that of the wider model: below it numerical noise would count as a shift."""


@dataclass(frozen=True)
class Comparison:
    """Constants in the elastic limit and beyond it, shape (k,) each.

    Where the data give ratios only these are compared: to the constant that is held, or the first one.

    Attributes
    ----------
    names : list of str
        Constants that both fits determined.
    elastic, beyond, sigma_elastic, sigma_beyond : ndarray
        GPa, or ratios; sigma is that of the results.
    shift : ndarray
        beyond − elastic, in units of the standard deviation of that difference if the elastic limit held.
    probability : float
        Of shifts as large as these, all together, if the elastic limit held.
    reference : str or None
        What ratios are to.
    """

    names: list[str]
    elastic: Array
    beyond: Array
    sigma_elastic: Array
    sigma_beyond: Array
    shift: Array
    probability: float
    reference: str | None

    @property
    def biased(self) -> bool:
        """Whether the elastic limit is not good enough for these data."""
        return self.probability < SIGNIFICANT

    @property
    def worst(self) -> int:
        """Index of the constant that is shifted most."""
        return int(np.abs(self.shift).argmax())


def compare(beyond: FitResult) -> Comparison | None:
    """Compare a fit with the elastic one that it has along; None if there is none, or no constant in common.

    The elastic estimate is efficient where its model holds. So the variance of the difference is the difference of the
    variances, and Hausman's test tells shifts from noise (J. A. Hausman, Econometrica 46, 1251 (1978)). Variances are
    those of the counts, times deviance/dof where that is above 1.

    Parameters
    ----------
    beyond : FitResult
    """
    from scipy.stats import chi2

    elastic = beyond.elastic
    if elastic is None:
        return None
    absolute = beyond.scale is Scale.KNOWN
    names, values, covariances, sigmas = [], [], [], []
    for result in (elastic, beyond):
        found, value, covariance, sigma = _determined(result, absolute)
        names.append(found)
        values.append(value)
        covariances.append(covariance)
        sigmas.append(sigma)
    common = [name for name in names[1] if name in names[0]]
    if not common:
        return None
    places = [np.array([found.index(name) for name in common]) for found in names]
    narrow, wide = (matrix[np.ix_(at, at)] for matrix, at in zip(covariances, places, strict=True))
    noise = max(1.0, beyond.deviance / beyond.dof)
    before, after = (value[at] for value, at in zip(values, places, strict=True))
    # In units in which the wider model's variances are 1, so that LEAST_VARIANCE is relative to them.
    root = np.linalg.cholesky(noise * wide)
    inverse = np.linalg.inv(root)
    eigenvalues, vectors = np.linalg.eigh(inverse @ (noise * (wide - narrow)) @ inverse.T)
    eigenvalues = np.maximum(eigenvalues, LEAST_VARIANCE)
    along = vectors.T @ inverse @ (after - before)
    spread = root @ vectors
    return Comparison(
        names=common,
        elastic=before,
        beyond=after,
        sigma_elastic=sigmas[0][places[0]],
        sigma_beyond=sigmas[1][places[1]],
        shift=(after - before) / np.sqrt((spread**2) @ eigenvalues),
        probability=float(chi2.sf((along**2 / eigenvalues).sum(), len(common))),
        reference=None if absolute else beyond.constants.names[beyond.constants.reference],
    )


def _determined(result: FitResult, absolute: bool) -> tuple[list[str], Array, Array, Array]:
    """Constants, or ratios to the reference, that a fit determined: names, values, Poisson covariance, and σ."""
    names, fitted = result.constants.names, result.fitted
    sigma = result.errors.poisson[fitted]
    poisson = result.correlation * np.outer(sigma, sigma)
    values = result.values[fitted]
    if absolute:
        return [names[i] for i in fitted], values, poisson, result.errors.largest[fitted]
    reference = result.constants.reference
    unit = result.values[reference]
    others = np.flatnonzero(fitted != reference)
    jacobian = np.zeros((len(others), len(fitted)))
    jacobian[np.arange(len(others)), others] = 1 / unit
    if reference in fitted:
        jacobian[:, int(np.flatnonzero(fitted == reference)[0])] = -values[others] / unit**2
    largest = np.sqrt(np.diag(jacobian @ result.covariance @ jacobian.T))
    return (
        [names[i] for i in fitted[others]],
        values[others] / unit,
        np.asarray(jacobian @ poisson @ jacobian.T),
        largest,
    )
