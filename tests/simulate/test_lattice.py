"""Spring lattices against energies of explicit atoms, whole supercells, known formulas and the long-wave limit."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from scipy import constants
from scipy.optimize import minimize

from tds2el.crystal.cell import Cell
from tds2el.crystal.elasticity import tensor_structure
from tds2el.crystal.symmetry import point_group
from tds2el.simulate.lattice.examples import EXAMPLES
from tds2el.simulate.lattice.scattering import Scatterer
from tds2el.simulate.lattice.springs import Site, Spring, SpringLattice

Array = npt.NDArray[np.float64]
EVERY = pytest.mark.parametrize("name", EXAMPLES)
VOIGT = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])
SITES = {
    "fcc": ["Cu 0 0 0"],
    "rock salt": ["Mg 0 0 0", "O 0.5 0.5 0.5"],
    # Wyckoff positions 12c and 18e of R -3 c (International Tables A), without the centring.
    "corundum": ["Al 0 0 z", "Al 0 0 -z+1/2", "Al 0 0 -z", "Al 0 0 z+1/2", "O x 0 1/4", "O 0 x 1/4", "O -x -x 1/4",
                 "O -x 0 3/4", "O 0 -x 3/4", "O x x 3/4"],
}  # fmt: skip
CENTRING = {
    "fcc": [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]],
    "rock salt": [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]],
    "corundum": [[0, 0, 0], [2 / 3, 1 / 3, 1 / 3], [1 / 3, 2 / 3, 2 / 3]],
}


@cache
def lattice(name: str) -> SpringLattice:
    return EXAMPLES[name]()


@cache
def atoms(name: str, cells: tuple[int, int, int] = (1, 1, 1)) -> tuple[list[str], Array]:
    """Elements and fractional coordinates, in units of the conventional cell, of a block of these."""
    elements, found = [], []
    for line in SITES[name]:
        element, *coordinates = line.split()
        place = np.array([eval(text, {"x": 0.30624, "z": 0.35216}) for text in coordinates])
        for centring in CENTRING[name]:
            for cell in np.ndindex(*cells):
                elements.append(element)
                found.append((place + centring) % 1 + cell)
    return elements, np.array(found)


@cache
def bonds_of_block(name: str, cells: tuple[int, int, int]) -> tuple[Array, Array, Array, Array]:
    """First atom, second atom, vector in Å and stiffness of every spring of a periodic block, each once."""
    crystal = lattice(name)
    elements, fractional = atoms(name, cells)
    images = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), -1).reshape(-1, 3) * cells
    found = []
    for a in range(len(elements)):
        for b in range(len(elements)):
            vectors = (fractional[b] - fractional[a] + images) @ crystal.cell.A
            for spring in crystal.springs:
                if sorted((elements[a], elements[b])) == sorted(spring.elements):
                    found += [
                        (a, b, vector, spring.stiffness)
                        for vector in vectors
                        if spring.shortest < np.linalg.norm(vector) < spring.longest
                        and (a, *np.round(vector, 3)) < (b, *np.round(-vector, 3))
                    ]
    return tuple(np.array(column) for column in zip(*found, strict=True))  # type: ignore[return-value]


@EVERY
def test_stable_over_the_zone(name: str) -> None:
    crystal = lattice(name)
    q = np.concatenate([crystal.zone(4), np.random.default_rng(0).normal(size=(200, 3))])
    assert crystal.modes(q)[0].min() > 0


@EVERY
def test_the_dynamical_matrix_is_that_of_a_crystal(name: str) -> None:
    """Hermitian, real in real space, alike in every zone, and moving everything costs nothing."""
    crystal = lattice(name)
    q = np.random.default_rng(1).normal(size=(5, 3)) * 0.2
    matrix = crystal.dynamical_matrix(q)
    np.testing.assert_allclose(matrix, matrix.conj().transpose(0, 2, 1), atol=1e-13)
    np.testing.assert_allclose(crystal.dynamical_matrix(-q), matrix.conj(), atol=1e-13)
    node = crystal.cell.B @ (np.array([1, 1, 3]) if name == "corundum" else [1, 1, 1])  # −h + k + l = 3: allowed
    np.testing.assert_allclose(crystal.modes(q + node)[0], crystal.modes(q)[0], rtol=1e-10)
    moved = np.kron(np.sqrt(crystal.masses)[:, None], np.eye(3))
    at_centre = crystal.dynamical_matrix(np.zeros((1, 3)))[0]
    np.testing.assert_allclose(at_centre @ moved, 0, atol=1e-11)
    assert np.linalg.matrix_rank(at_centre, tol=1e-9) == len(at_centre) - 3


@EVERY
def test_symmetry(name: str) -> None:
    """Frequencies and constants have the symmetry of the point group, in tds2el's own frame."""
    crystal = lattice(name)
    group = point_group(crystal.point_group, crystal.cell, crystal.space_group)
    q = np.array([0.03, 0.07, -0.11])
    squares, _ = crystal.modes(group.operations @ q)
    np.testing.assert_allclose(squares, np.tile(squares[0], (len(squares), 1)), rtol=1e-9)
    structure = tensor_structure(group)
    np.testing.assert_allclose(structure.tensor(structure.constants(crystal.tensor)), crystal.tensor, atol=1e-9)


@EVERY
def test_constants_are_the_slopes_of_the_acoustic_branches(name: str) -> None:
    crystal = lattice(name)
    direction = np.random.default_rng(2).normal(size=(8, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    lengths = 4e-3 / 2.0 ** np.arange(3)
    # ω²/q² is even in q: two steps of Richardson's leave an error of the order q⁶.
    slopes = [crystal.modes(length * direction)[0][:, :3] / length**2 for length in lengths]
    for order in (4, 16):
        slopes = [(order * b - a) / (order - 1) for a, b in pairwise(slopes)]
    full = crystal.tensor[VOIGT[:, :, None, None], VOIGT[None, None]]
    christoffel = np.einsum("ijkl,nj,nl->nik", full, direction, direction)
    # ρω² = (2π)² Γ, in GPa Å⁻² from g/cm³ and N/m per u.
    found = slopes[0] * crystal.density * 1e3 / constants.atomic_mass / (2 * np.pi) ** 2 * 1e-29
    np.testing.assert_allclose(found, np.linalg.eigvalsh(christoffel), rtol=1e-8)


def test_constants_of_one_shell_of_fcc() -> None:
    """C11 = 2k/a, C12 = C44 = k/a."""
    a, k = 4.0, 13.0
    shell = Spring(("Cu", "Cu"), 0.7 * a, 0.71 * a, k)
    cell = Cell(a, a, a, 90, 90, 90)
    crystal = SpringLattice("fcc", cell, "F m -3 m", "m-3m", (Site("Cu", (0, 0, 0)),), (shell,))
    expected = np.diag([2.0, 2, 2, 1, 1, 1])
    expected[:3, :3] += 1 - np.eye(3)
    np.testing.assert_allclose(crystal.tensor, expected * 10 * k / a, atol=1e-11)
    # At X the transverse modes have ω² = 4k/m, the longitudinal one 8k/m.
    at_x = crystal.modes(np.array([[1 / a, 0, 0]]))[0][0]
    np.testing.assert_allclose(at_x * crystal.masses[0] / k, [4, 4, 8], rtol=1e-12)


@pytest.mark.parametrize("name", ["rock salt", "corundum"])
def test_constants_are_those_of_the_energy(name: str) -> None:
    """Springs of explicit atoms, stretched as they are, with the atoms relaxed in a strained cell."""
    crystal = lattice(name)
    first, second, vectors, stiffness = bonds_of_block(name, (1, 1, 1))
    length = np.linalg.norm(vectors, axis=1)
    volume = np.linalg.det(crystal.cell.A)
    n = len(atoms(name)[0])
    step = 2e-3

    def relaxed(strain: Array) -> float:
        """Energy in N/m Å²; `strain` in Voigt form."""
        e = np.array(strain)[VOIGT] / [[1, 2, 2], [2, 1, 2], [2, 2, 1]]
        # A rotation costs no energy, and U with UᵀU = 1 + 2e has exactly the Lagrangian strain e.
        values, axes = np.linalg.eigh(np.eye(3) + 2 * e)
        stretch = axes @ np.diag(np.sqrt(values)) @ axes.T

        def energy(moved: Array) -> tuple[float, Array]:
            w = moved.reshape(n, 3)
            r = vectors @ stretch + w[second] - w[first]
            now = np.linalg.norm(r, axis=1)
            force = (stiffness * (now - length) / now)[:, None] * r
            gradient = np.zeros((n, 3))
            np.add.at(gradient, second, force)
            np.add.at(gradient, first, -force)
            return float(np.sum(stiffness * (now - length) ** 2) / 2), gradient.ravel()

        options = {"maxiter": 1000, "gtol": 1e-10, "ftol": 0.0}
        return float(minimize(energy, np.zeros(3 * n), jac=True, method="L-BFGS-B", options=options).fun)

    for i, j in ((0, 0), (2, 2), (3, 3), (0, 1), (0, 2), (0, 4)):
        strains = [step * (s * np.eye(6)[i] + t * np.eye(6)[j] * (i != j)) for s in (1, -1) for t in (1, -1)]
        energies = [relaxed(strain) for strain in strains]
        if i == j:
            found = 2 * np.mean(energies) / step**2
        else:
            found = (energies[0] - energies[1] - energies[2] + energies[3]) / (4 * step**2)
        assert found * 10 / volume == pytest.approx(crystal.tensor[i, j], abs=2e-5 * crystal.tensor[0, 0])


@pytest.mark.parametrize(("name", "cells"), [("fcc", (3, 2, 2)), ("rock salt", (1, 3, 2)), ("corundum", (2, 1, 1))])
@pytest.mark.parametrize("temperature", [300.0, 30.0])
def test_intensity_is_that_of_a_block_of_atoms(name: str, cells: tuple[int, int, int], temperature: float) -> None:
    """The modes of all atoms of a periodic block at once, which knows neither q nor phases of a cell."""
    crystal = lattice(name)
    elements, fractional = atoms(name, cells)
    first, second, vectors, stiffness = bonds_of_block(name, cells)
    scatterer = Scatterer(crystal, temperature)
    # Atoms of one element differ in the directions of their displacements.
    apart = (fractional[:, None] - crystal.positions @ crystal.cell.B)[:, :, None] - np.array(CENTRING[name])
    like = np.abs(apart - np.rint(apart)).max(axis=-1).min(axis=-1).argmin(axis=1)
    mass = np.array([crystal.masses[crystal.elements.index(element)] for element in elements])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    stretch = np.zeros((len(first), len(mass), 3))
    each = np.arange(len(first))
    np.add.at(stretch, (each, second), unit / np.sqrt(mass[second])[:, None])
    np.add.at(stretch, (each, first), -unit / np.sqrt(mass[first])[:, None])
    flat = stretch.reshape(len(first), -1)
    squares, modes = np.linalg.eigh(flat.T @ (stiffness[:, None] * flat))
    assert np.abs(squares[:3]).max() < 1e-10 < squares[3]
    omega = np.sqrt(squares[3:] / constants.atomic_mass)
    occupied = 1 / np.tanh(constants.hbar * omega / (2 * constants.k * temperature)) / omega
    hkl = np.array([3, 3, 6] if name == "corundum" else [2, 4, 2])
    for step in np.ndindex(*cells):
        offset = (np.array(step) - 1) / cells
        if not offset.any():
            continue
        node, q = crystal.cell.B @ hkl, crystal.cell.B @ offset
        Q = node + q
        f = scatterer.form_factors(Q[None])[0]
        wave = f[like] * np.exp(2j * np.pi * (fractional @ (hkl + offset))) / np.sqrt(mass)
        amplitude = (wave[:, None] * Q).ravel() @ modes[:, 3:]
        n_cells = len(mass) / len(crystal.masses)
        intensity = np.sum(np.abs(amplitude) ** 2 * occupied) / n_cells
        # coth(x)/ω = x coth x · 2kT/ħω², and Mω² = (2π)² V Γ with 1 GPa Å = 0.1 N/m.
        classical = constants.hbar / (2 * constants.k * temperature * constants.atomic_mass)
        expected = (2 * np.pi) ** 2 * 0.1 * crystal.volume * classical * intensity
        found = scatterer.one_phonon(q[None], node)[0]
        assert found == pytest.approx(expected, rel=1e-8), step


@pytest.mark.parametrize("temperature", [300.0, 20.0])
@EVERY
def test_the_elastic_limit(name: str, temperature: float) -> None:
    """I → |F|² S where q → 0: with an error of the order of q, or q² where q and −q are averaged."""
    crystal = lattice(name)
    scatterer = Scatterer(crystal, temperature)
    node = crystal.cell.B @ np.array([3, 0, 0] if name == "corundum" else [2, 2, 4])
    direction = np.random.default_rng(3).normal(size=(6, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    full = crystal.tensor[VOIGT[:, :, None, None], VOIGT[None, None]]

    def ratio(q: Array) -> Array:
        stiffness, mode = np.linalg.eigh(np.einsum("ijkl,nj,nl->nik", full, q, q))
        omega = 2 * np.pi * np.sqrt(stiffness * 1e29 / (crystal.density * 1e3))
        x = constants.hbar * omega / (2 * constants.k * temperature)
        S = np.sum(np.einsum("ni,nij->nj", node + q, mode) ** 2 / stiffness * x / np.tanh(x), axis=1)
        F = abs(scatterer.structure_factors(node[None])[0])
        return np.asarray(scatterer.one_phonon(q, node) / (F**2 * S))

    for even in (False, True):
        errors = []
        for length in (4e-3, 2e-3):
            q = length * direction
            found = (ratio(q) + ratio(-q)) / 2 if even else ratio(q)
            errors.append(np.abs(found - 1).max())
        assert errors[1] < (1e-3 if even else 2e-2)
        assert errors[0] / errors[1] == pytest.approx(4 if even else 2, rel=0.1)


def test_displacements_are_those_of_equipartition() -> None:
    """kT D⁻¹ in the classical limit."""
    crystal = lattice("rock salt")
    scatterer = Scatterer(crystal, 1e5)
    inverse = np.linalg.inv(crystal.dynamical_matrix(crystal.zone(8))).mean(axis=0).real
    blocks = inverse.reshape(2, 3, 2, 3)
    for atom, mass in enumerate(crystal.masses):
        expected = constants.k * 1e5 * blocks[atom, :, atom] / mass * 1e20
        np.testing.assert_allclose(scatterer.displacements[atom], expected, rtol=1e-3, atol=1e-9)
