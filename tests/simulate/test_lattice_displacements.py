"""Scattering to all orders: its linear term, and samples of the displacements of a block of atoms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import constants

from tds2el.simulate.lattice.displacements import Block
from tds2el.simulate.lattice.examples import EXAMPLES
from tds2el.simulate.lattice.scattering import Scatterer, form_factors_at_rest

HKL = {"fcc": (2, 2, 4), "rock salt": (1, 1, 3), "corundum": (0, 1, 2)}


@pytest.mark.parametrize(("name", "number"), [("fcc", 6), ("rock salt", 5), ("corundum", 3)])
@pytest.mark.parametrize("temperature", [300.0, 20.0])
def test_the_linear_term_is_one_phonon_scattering(name: str, number: int, temperature: float) -> None:
    scatterer = Scatterer(EXAMPLES[name](), temperature)
    lattice, block = scatterer.lattice, Block(scatterer, number)
    size = len(lattice.masses)
    node = lattice.cell.B @ HKL[name]
    q = block.waves.reshape(-1, 3)[1:40]
    # With the Debye-Waller factors of the block.
    at_rest = form_factors_at_rest(lattice, node + q)
    own = block.correlations[0][np.arange(size), np.arange(size)]
    exponent = 2 * np.pi**2 * np.einsum("ni,aij,nj->na", node + q, own, node + q)
    same = _WithFormFactors(lattice, temperature, at_rest * np.exp(-exponent))
    found = block.intensity(node + q, one_phonon=True)
    np.testing.assert_allclose(found, same.one_phonon(q, node), rtol=1e-9, atol=1e-12 * found.max())


class _WithFormFactors(Scatterer):
    def __init__(self, lattice, temperature, factors):
        super().__init__(lattice, temperature)
        object.__setattr__(self, "factors", factors)

    def form_factors(self, Q):
        return self.factors


def test_all_orders_are_those_of_sampled_displacements() -> None:
    """Atoms of a small hot block, moved at random as their forces let them: its mean intensity."""
    number, temperature = 3, 3000.0
    lattice = EXAMPLES["rock salt"]()
    block = Block(Scatterer(lattice, temperature), number)
    cells = np.stack(np.meshgrid(*[np.arange(number)] * 3, indexing="ij"), -1).reshape(-1, 3)
    places = (cells[:, None] @ lattice.primitive + lattice.positions).reshape(-1, 3)
    mass = np.tile(lattice.masses, len(cells))
    names = lattice.elements * len(cells)
    images = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), -1).reshape(-1, 3) * number
    forces = np.zeros((len(mass), 3, len(mass), 3))
    for a in range(len(mass)):
        for b in range(len(mass)):
            vectors = places[b] - places[a] + images @ lattice.primitive
            length = np.linalg.norm(vectors, axis=1)
            for spring in lattice.springs:
                if sorted((names[a], names[b])) == sorted(spring.elements):
                    near = (length > spring.shortest) & (length < spring.longest)
                    unit = vectors[near] / length[near, None]
                    stiff = spring.stiffness * unit.T @ unit
                    forces[a, :, b] -= stiff
                    forces[a, :, a] += stiff
    root = np.repeat(np.sqrt(mass), 3)
    squares, modes = np.linalg.eigh(forces.reshape(3 * len(mass), -1) / np.outer(root, root))
    omega = np.sqrt(squares[3:] / constants.atomic_mass)
    spread = constants.hbar / (2 * omega) / np.tanh(constants.hbar * omega / (2 * constants.k * temperature))
    amplitude = np.sqrt(spread / constants.atomic_mass) * 1e10  # Å √u
    random = np.random.default_rng(4).normal(size=(40_000, len(omega)))
    u = ((random * amplitude) @ modes[:, 3:].T / root).reshape(len(random), len(mass), 3)
    scale = lattice.volume / (constants.k * temperature * 1e21)
    for hkl, wave in (((2, 2, 4), 1), ((4, 2, 0), 5), ((1, 1, 3), 13)):
        Q = lattice.cell.B @ hkl + block.waves.reshape(-1, 3)[wave]
        f = np.tile(form_factors_at_rest(lattice, Q[None])[0], len(cells))
        sample = np.abs(np.exp(2j * np.pi * ((places + u) @ Q)) @ f) ** 2 / len(cells) * scale
        full, one = block.intensity(Q[None])[0], block.intensity(Q[None], one_phonon=True)[0]
        assert full > 1.1 * one
        assert sample.mean() == pytest.approx(full, abs=4 * sample.std() / np.sqrt(len(sample)))
        assert sample.std() < 1.5 * sample.mean()  # 0.8 % of the mean


def test_two_phonons_are_as_many_as_expected() -> None:
    """I₂/I₁ = (π³/2)(kT/C)|G|²q for an isotropic crystal without optic modes and zone: here to a factor of 2."""
    lattice = EXAMPLES["fcc"]()
    block = Block(Scatterer(lattice, 300.0), 24)
    node = lattice.cell.B @ np.array([2, 2, 4])
    q = block.shell(0.02, 0.045)
    ratio = block.intensity(node + q) / block.intensity(node + q, one_phonon=True) - 1
    C = lattice.tensor[[0, 3], [0, 3]].mean()
    expected = np.pi**3 / 2 * constants.k * 300 * 1e21 / C * (node @ node) * np.linalg.norm(q, axis=1)
    assert 0.5 < np.mean(ratio) / np.mean(expected) < 2
    colder = replace(block, scatterer=Scatterer(lattice, 150.0))
    cold = colder.intensity(node + q) / colder.intensity(node + q, one_phonon=True) - 1
    assert np.mean(cold) / np.mean(ratio) == pytest.approx(0.5, abs=0.06)
