"""How much two-phonon scattering there is in the halo of each spot, and what of it a fit may take for constants."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import constants

from tds2el.model.christoffel import christoffel
from tds2el.model.quantum import directions

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TwoPhonon:
    """Estimates for spots.

    Attributes
    ----------
    ratio : ndarray, shape (n_blobs,)
        I₂/I₁ at the outer radius.
    left : ndarray, shape (n_blobs,)
        What factor and baseline leave of I₂, root mean square over the shell, relative to I₁ likewise: about so much
        are stiffnesses wrong that the other spots do not correct.
    """

    ratio: Array
    left: Array


def two_phonon(tensor: Array, nodes: Array, shell: tuple[float, float], temperature: float) -> TwoPhonon:
    """I₂/I₁ ≈ (π³/2)(kT/C)|G|²q, high temperature and an isotropic crystal (Xu & Chiang 2005).

    For C stands the stiffness that a spot sees, 1/C the mean of ĜᵀΓ(q)⁻¹Ĝ q² over directions of q.

    Parameters
    ----------
    tensor : ndarray, shape (6, 6)
        GPa.
    nodes : ndarray, shape (n_blobs, 3)
        Å⁻¹.
    shell : tuple of float
        Inner and outer radius, Å⁻¹.
    temperature : float
        K.
    """
    length = np.linalg.norm(nodes, axis=1)
    along = nodes / length[:, None]
    compliance = np.linalg.inv(christoffel(tensor, directions())).mean(axis=0)
    softness = np.einsum("bi,ij,bj->b", along, compliance, along)
    # kT in GPa Å³.
    slope = np.pi**3 / 2 * constants.k * temperature * 1e21 * softness * length**2
    inner, outer = max(shell[0], 0.1 * shell[1]), shell[1]
    q = np.linspace(inner, outer, 200)
    # Points are as dense as q² dq, and weigh as the inverse of the counts, S ∝ 1/q².
    root = q**2
    fitted, second = np.stack([q**-2, np.ones_like(q)], axis=1), q**-1
    solution = np.linalg.lstsq(fitted * root[:, None], second * root, rcond=None)[0]
    missed = np.linalg.norm((second - fitted @ solution) * root) / np.linalg.norm(root / q**2)
    return TwoPhonon(slope * outer, slope * missed)
