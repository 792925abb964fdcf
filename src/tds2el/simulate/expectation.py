"""What a frame of the virtual scan counts on average."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import constants

from tds2el import _core
from tds2el.crystal.cell import longest_reciprocal
from tds2el.crystal.centring import allowed, allowed_nodes, lattice_letter, nearest_allowed
from tds2el.crystal.elasticity import TensorStructure, tensor_structure
from tds2el.crystal.frames import rotate, standard_frame
from tds2el.crystal.symmetry import PointGroup, point_group
from tds2el.errors import InputError
from tds2el.experiment.geometry import Geometry, rotation
from tds2el.model.quantum import thermal_stiffness
from tds2el.simulate.crystal import (
    Halos,
    Indices,
    choose_spots,
    halos,
    observable,
    squared_structure_factors,
)
from tds2el.simulate.disturbances import air_and_slits, transmission
from tds2el.simulate.lattice.examples import EXAMPLES
from tds2el.simulate.lattice.halo_tables import SPARE, halo_tables
from tds2el.simulate.lattice.scattering import Scatterer
from tds2el.simulate.mosaic import mosaic_blocks
from tds2el.simulate.options import Scan

Array = npt.NDArray[np.float64]

# Halos fade out between cut_radius and this multiple of it, so that there is no step.
_FADE = 1.25
# Beyond |q| = this times |G|·(angle that a frame averages over), the middle of the frame stands for its average: the
# average of 1/q² exceeds it there by a few 1e-4 of a halo that is itself faint.
_NEAR = 40.0
# Bragg peaks are this many times the cutoff high, and are cut off where they have sunk to 1e-9 of a count or so.
_PEAK_HEIGHT = 10.0
_PEAK_REACH = 8.0
_REFILLS = 3
# |F|² of nodes of a spring lattice is at least so much of that of the direct beam.
_WEAKEST = 1e-6


@dataclass(frozen=True)
class VirtualScan:
    """A scan of a virtual crystal: expected counts of any frame.

    Parameters
    ----------
    scan : Scan
    """

    scan: Scan

    @cached_property
    def group(self) -> PointGroup:
        return point_group(self.scan.ascii_generators, self.scan.cell, self.scan.centring)

    @cached_property
    def structure(self) -> TensorStructure:
        return tensor_structure(self.group)

    @cached_property
    def constants(self) -> dict[str, float]:
        """The free elastic constants in the working frame, in GPa.

        Raises
        ------
        InputError
            If they are not those of the symmetry, or the crystal is unstable.
        """
        names = self.structure.names
        if self.scan.constants is not None:
            if set(self.scan.constants) != set(names):
                raise InputError(f"constants: the free ones of this symmetry are {', '.join(names)}; give these")
            values = np.array([self.scan.constants[name] for name in names])
        else:
            given = np.array(self.scan.elastic_tensor)
            if np.abs(given - given.T).max() > 1e-6 * np.abs(given).max():
                raise InputError("elastic_tensor is not symmetric; correct it")
            if self.scan.tensor_frame == "P":
                given = rotate(given, standard_frame(given, self.group)[1].rotation.T)
            values = self.structure.constants(given)
            off = np.abs(self.structure.tensor(values) - given).max()
            if off > 1e-3 * np.abs(given).max():
                raise InputError(
                    f"elastic_tensor differs from the symmetry {self.scan.ascii_generators} by {off:.3g} GPa; "
                    "correct it, or tensor_frame"
                )
        lowest = float(np.linalg.eigvalsh(self.structure.tensor(values))[0])
        if lowest <= 0:
            raise InputError(f"the elastic constants are unstable (lowest eigenvalue {lowest:.3g} GPa); correct them")
        return dict(zip(names, values.tolist(), strict=True))

    @cached_property
    def stiffness(self) -> Array:
        """C in the working frame, GPa (6, 6)."""
        return self.structure.tensor(list(self.constants.values()))

    @cached_property
    def thermal(self) -> float:
        """a = ρ(kT/ħ)² in GPa Å⁻²."""
        return thermal_stiffness(self.scan.Temperature, self.scan.density)

    @cached_property
    def scatterer(self) -> Scatterer | None:
        """The crystal of springs whose exact dynamics takes the place of the elastic limit, if there is one."""
        return None if self.scan.lattice is None else Scatterer(EXAMPLES[self.scan.lattice](), self.scan.Temperature)

    @cached_property
    def halo_tables(self) -> npt.NDArray[np.float32]:
        """By what the halos of `hkl` differ from the elastic limit; empty for a crystal of constants.

        Raises
        ------
        InputError
            If halos that fade out beyond cut_radius would meet: exact intensities hold those of the neighbours already.
        """
        if self.scatterer is None:
            return np.empty(0, dtype=np.float32)
        centring = lattice_letter(self.scan.centring)
        largest = nearest_allowed(np.zeros(3, dtype=np.int64), self.scan.cell, centring)[1] / 2 / _FADE
        if self.scan.cut_radius > largest:
            raise InputError(
                f"cut_radius = {self.scan.cut_radius:g}: with a lattice halos must not meet; give {largest:.4f} or less"
            )
        return halo_tables(
            self.scatterer, self._halos.nodes, self._halos.structure, self.thermal, _FADE * self.scan.cut_radius
        )

    @cached_property
    def geometry(self) -> Geometry:
        return Geometry(self.scan.experiment)

    @cached_property
    def spots(self) -> Indices:
        """The reflections of the par-files, collectSpots, int array (n, 3).

        Raises
        ------
        InputError
            If one of the given reflections is not allowed, or none can be chosen.
        """
        given = self.scan.collectSpots
        if isinstance(given, str):
            ball = self.scan.DeltaQ_max * longest_reciprocal(self.group.cell)
            seen = observable(self._halos.nodes, self.geometry, self.scan.shape, self.scan.n_frames, ball)
            candidates = Halos(
                self._halos.hkl[seen],
                self._halos.nodes[seen],
                self._halos.structure[seen],
                self._halos.brightness[seen],
            )
            chosen = choose_spots(candidates, self.scan.n_spots)
            if not len(chosen):
                raise InputError(
                    'collectSpots = "auto": no reflection passes as a whole within the scan and on the detector; '
                    "take more frames or another orientation, or name reflections"
                )
            return chosen
        spots = np.array(given, dtype=np.int64)
        forbidden = spots[~allowed(spots, self.scan.centring)]
        if len(forbidden):
            raise InputError(f"collectSpots: {forbidden[0].tolist()} is absent with centring {self.scan.centring}")
        return spots

    @cached_property
    def corrections(self) -> Array:
        """POL·C3 of every pixel (rows, columns)."""
        row, column = self._pixels
        return self.geometry.polarisation(row, column) * self.geometry.solid_angle(row, column)

    @cached_property
    def hkl(self) -> Indices:
        """All nodes whose halos can reach the detector, int array (n, 3)."""
        return self._halos.hkl

    @cached_property
    def halo_factors(self) -> Array:
        """f_G of these nodes, so that f_G S_G are expected counts where monitor, POL and C3 are 1."""
        return np.asarray(self._factor_per_structure * self._halos.structure)

    @cached_property
    def spot_factors(self) -> Array:
        """f_G of collectSpots."""
        return np.asarray(self._factor_per_structure * self._halos_of(self.spots).structure)

    def monitor(self, frame: int) -> float:
        """The beam in a frame, 1 just after a refill, rounded as it is written."""
        decay = _REFILLS * frame / self.scan.n_frames % 1
        return round(1 - self.scan.monitor_drift * decay, 6)

    def intensity(self, frame: int) -> Array:
        """Σ f_G S_G and the Bragg peaks in a frame, averaged over its angular width and the mosaic blocks.

        Returns
        -------
        ndarray, shape (rows, columns)
            Expected counts over monitor, polarisation and solid angle, of both lattices; no background is in it.
        """
        n = self.scan.substeps
        steps = frame + (np.arange(n) + 0.5) / n - 0.5
        lab_to_crystal = self.geometry.lab_to_crystal(self.geometry.phi(steps))
        image = self._image(lab_to_crystal)
        second = self.scan.second_lattice
        if second is not None:
            turn = rotation(3, second.r3) @ rotation(2, second.r2) @ rotation(1, second.r1)
            U = self.geometry.orientation
            # (V U)ᵀ Rᵀ from Uᵀ Rᵀ.
            image += second.fraction * self._image(U.T @ turn.T @ U @ lab_to_crystal)
        return image

    def _image(self, lab_to_crystal: Array) -> Array:
        """The intensity of one lattice from the orientations of a frame's sub-steps (n, 3, 3)."""
        blocks, weights = mosaic_blocks(self.scan.mosaicity)
        blur = np.deg2rad(abs(self.scan.experiment.angular_step)) + 3 * np.deg2rad(self.scan.mosaicity)
        return _core.scattering_image(
            self._q_lab,
            lab_to_crystal,
            blocks,
            weights,
            self._halos.nodes,
            self.halo_factors,
            self.peak_heights,
            self.peak_precisions,
            _PEAK_REACH * self._peak_widths.max(),
            self.stiffness,
            self.thermal,
            self.scan.cut_radius,
            _FADE * self.scan.cut_radius,
            _NEAR * blur,
            self.halo_tables,
            SPARE,
        )

    def expected(self, frame: int) -> Array:
        """Expected counts of a frame, before zingers and saturation (rows, columns)."""
        counts = self.monitor(frame) * self.corrections * (self.intensity(frame) + self.scan.background)
        if self.scan.structured_background:
            counts += self.expected_background(frame)
        if self.scan.shadow is not None:
            counts *= transmission(self.scan.shadow, self.scan.shape, frame)
        return counts / (self.scan.attenuation or 1.0)

    def expected_background(self, frame: int) -> Array:
        """Expected counts of air and slits with the monitor of a frame (rows, columns)."""
        return self.monitor(frame) * self.structured_background

    @cached_property
    def structured_background(self) -> Array:
        """Expected counts of air and slits where the monitor is 1 (rows, columns)."""
        return self.scan.structured_background * air_and_slits(self.geometry, self._q_lab)

    @cached_property
    def _factor_per_structure(self) -> float:
        return float(self.scan.count_level / self._halos_of(self.spots).brightness.max())

    @cached_property
    def _pixels(self) -> tuple[Array, Array]:
        row, column = np.mgrid[: self.scan.shape[0], : self.scan.shape[1]].astype(float)
        return row, column

    @cached_property
    def _q_lab(self) -> Array:
        return self.geometry.q_lab(*self._pixels)

    @cached_property
    def _halos(self) -> Halos:
        """All nodes whose halos can reach the detector."""
        reach = float(np.linalg.norm(self._q_lab, axis=-1).max()) + _FADE * self.scan.cut_radius
        return self._halos_of(allowed_nodes(self.group.cell, self.scan.centring, reach))

    def _halos_of(self, hkl: Indices) -> Halos:
        if self.scatterer is None:
            structure = squared_structure_factors(hkl, self.group, self.scan.seed, self.scan.debye_waller)
        else:
            structure = np.abs(self.scatterer.structure_factors(hkl @ self.group.cell.B.T)) ** 2
            origin = float(np.abs(self.scatterer.structure_factors(np.zeros((1, 3)))[0]) ** 2)
            # Where F vanishes a table, which is relative to it, must still hold what the optic modes scatter.
            structure = np.maximum(structure, _WEAKEST * origin)
        middle = (self.scan.DeltaQ_min + self.scan.DeltaQ_max) / 2 * longest_reciprocal(self.group.cell)
        return halos(hkl, self.group, structure, self.stiffness, self.thermal, middle)

    @cached_property
    def _peak_widths(self) -> Array:
        """Standard deviations of every peak along and across G (n, 2), Å⁻¹."""
        along = self.scan.peak_width
        if along is None:
            along = max(self.scan.DeltaQ_min, 0.01) * longest_reciprocal(self.group.cell) / 8
        length = np.linalg.norm(self._halos.nodes, axis=1)
        across = np.hypot(along, np.deg2rad(self.scan.mosaicity) * length)
        return np.stack([np.full_like(across, along), across], axis=1)

    @cached_property
    def peak_heights(self) -> Array:
        """Of every Bragg peak (n,): far too high, or, with an attenuation, what I₁ = kT (Qᵀ Γ⁻¹ Q) ∫ I_B d³s says.

        Extinction is Zachariasen's, (1 + 2 g x)^(−1/2) with x ∝ |F|²/sin 2θ.
        """
        if self.scan.attenuation is None:
            return np.full(len(self._halos.nodes), _PEAK_HEIGHT * self.scan.count_cutoff)
        thermal_energy = constants.k * self.scan.Temperature / 1e-21  # GPa Å³
        integrals = self.halo_factors / thermal_energy
        nodes, of_spots = self._halos.nodes, self.spots @ self.group.cell.B.T
        strengths = [f / self._sine(g) for f, g in ((self.halo_factors, nodes), (self.spot_factors, of_spots))]
        twice_g = ((1 - self.scan.extinction) ** -2 - 1) / strengths[1].max()
        integrals /= np.sqrt(1 + twice_g * strengths[0])
        return np.asarray(integrals * np.sqrt(np.linalg.det(self.peak_precisions) / (2 * np.pi) ** 3))

    def _sine(self, nodes: Array) -> Array:
        """sin 2θ of nodes (n, 3)."""
        half = np.linalg.norm(nodes, axis=1) * self.scan.experiment.lmbda / 2
        return np.asarray(np.sin(2 * np.arcsin(np.minimum(half, 1.0))))

    @cached_property
    def peak_precisions(self) -> Array:
        """Inverse covariance of every Bragg peak in Q, wider across G than along it by the mosaicity (n, 3, 3)."""
        nodes = self._halos.nodes
        unit = nodes / np.linalg.norm(nodes, axis=1, keepdims=True)
        radial = unit[:, :, None] * unit[:, None, :]
        along, across = (1 / self._peak_widths.T**2)[:, :, None, None]
        return np.asarray(along * radial + across * (np.eye(3) - radial))
