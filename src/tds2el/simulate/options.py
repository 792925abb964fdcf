"""The options of `tds2el simulate-scan`: those of a real experiment, and what nature and the beamline would settle.

``python -m tds2el.simulate.options`` prints the table as the page docs/simulate-scan.md.
"""

from __future__ import annotations

import difflib
import logging
from dataclasses import dataclass, fields
from pathlib import Path

from tds2el import kinds
from tds2el.crystal.cell import CELL_OPTIONS, Cell
from tds2el.crystal.elasticity import tensor_structure
from tds2el.crystal.symmetry import point_group
from tds2el.errors import InputError
from tds2el.kinds import Option
from tds2el.options import BY_NAME, TABLE
from tds2el.parfile import read_parfile
from tds2el.settings import Experiment, check_sensor
from tds2el.simulate import scan_kinds
from tds2el.simulate.lattice.examples import EXAMPLES
from tds2el.simulate.scan_kinds import SecondLattice, Shadow

SCAN_TABLE: dict[str, tuple[Option, ...]] = {
    "Experiment: as in a conf_file": TABLE["Experiment: beam, goniometer and detector"],
    "Crystal": (
        *(option for option in TABLE["Crystal"] if option.name != "centring"),
        Option("centring", kinds.TEXT, "P", "the allowed nodes: P A B C I F R or a space group"),
        Option(
            "lattice",
            kinds.choice(None, *EXAMPLES),
            None,
            "a crystal of atoms and springs, which settles the rest of this table but Temperature and mosaicity; its "
            "halos are those of exact dynamics",
        ),
        Option(
            "constants",
            scan_kinds.CONSTANTS,
            None,
            "the free elastic constants in the working frame (a* ∥ x, c ∥ z)",
            "GPa",
        ),
        Option(
            "elastic_tensor",
            scan_kinds.TENSOR,
            None,
            "the whole tensor, instead of constants",
            "GPa",
        ),
        Option(
            "tensor_frame",
            kinds.choice("W", "P"),
            "P",
            "frame of elastic_tensor: working (W) or standard, IEEE 1987 (P)",
        ),
        Option("debye_waller", kinds.NOT_NEGATIVE, 1.0, "B: |F|² falls as exp(−B·|G|²/2)", "Å²"),
        Option("mosaicity", kinds.NOT_NEGATIVE, 0.0, "standard deviation of the blocks' rotations about any axis", "°"),
    ),
    "Detector and scan": (
        Option("shape", scan_kinds.SHAPE, (619, 487), "size of a frame", "pixel"),
        Option(
            "n_frames",
            kinds.integer("a whole number from 1 to 99999", 1, 99999),
            None,
            "number of frames",
            needed=("every run",),
        ),
        Option("gap_rows", scan_kinds.INTERVALS, (), "rows between modules, which read −1"),
        Option("gap_columns", scan_kinds.INTERVALS, (), "columns between modules, which read −1"),
        Option("n_hot_pixels", kinds.integer("a whole number", 0), 20, "pixels that count far too much; masked"),
        Option("count_cutoff", kinds.COUNT, 1048575, "counts at which a pixel saturates", "counts"),
        Option(
            "monitor_drift",
            kinds.number("a number from 0 to 0.9", lambda x: 0 <= x <= 0.9),
            0.1,
            "fraction of the beam that is lost between two of three refills",
        ),
        Option("substeps", scan_kinds.ODD, 5, "orientations that make up a frame"),
    ),
    "Intensities": (
        Option(
            "count_level",
            kinds.POSITIVE,
            20.0,
            "expected counts per pixel in the brightest halo of collectSpots: averaged over directions, at |q| in the "
            "middle between DeltaQ_min and DeltaQ_max, where monitor, polarisation factor and solid angle are 1",
            "counts",
        ),
        Option("background", kinds.NOT_NEGATIVE, 2.0, "the same for everything that does not depend on Q", "counts"),
        Option(
            "cut_radius",
            kinds.POSITIVE,
            0.3,
            "halos are complete up to this |q| and have faded out at 1.25 times it",
            "Å⁻¹",
        ),
        Option(
            "peak_width",
            kinds.optional(kinds.POSITIVE),
            None,
            "standard deviation of Bragg peaks in Q; None: an eighth of DeltaQ_min",
            "Å⁻¹",
        ),
        Option(
            "attenuation",
            kinds.optional(kinds.POSITIVE),
            None,
            "Bragg peaks have their true intensity, and the beam is this many times weaker; None: peaks exceed "
            "count_cutoff",
        ),
        Option(
            "extinction",
            kinds.number("a number from 0 to 0.9", lambda x: 0 <= x <= 0.9),
            0.0,
            "part of the true intensity that the strongest Bragg peak of collectSpots lacks",
        ),
        Option(
            "seed",
            kinds.integer("a whole number", 0),
            1,
            "of all that is random: structure factors, hot pixels, counts",
        ),
        Option(
            "noise_seed",
            kinds.optional(kinds.integer("a whole number", 0)),
            None,
            "of the counting noise alone, to repeat a scan; None: seed",
        ),
    ),
    "Disturbances": (
        Option(
            "second_lattice",
            scan_kinds.SECOND_LATTICE,
            None,
            "a foreign crystal of the same kind: its intensity relative to the first one's, from 0 to 1, and how it is "
            "turned from the first one's orientation about the axes 1, 2, 3, in this order",
            "°",
        ),
        Option(
            "zingers",
            kinds.NOT_NEGATIVE,
            0.0,
            "mean number in a frame of straight tracks of 1 to 3 pixels, each of which gets 20 to 10000 counts more, "
            "log-uniform",
        ),
        Option(
            "shadow",
            scan_kinds.SHADOW,
            None,
            "a disk on the detector, in which expected counts are multiplied by the transmission; row and column are "
            "its centre in the first frame, drow and dcolumn its step from frame to frame",
            "pixel",
        ),
        Option(
            "structured_background",
            kinds.NOT_NEGATIVE,
            0.0,
            "scattering of air and slits: expected counts per pixel, averaged over the frame, where the monitor is 1",
            "counts",
        ),
        Option(
            "background_frames",
            kinds.integer("a whole number from 0 to 99999", 0, 99999),
            0,
            "number of frames without the crystal, which hold structured_background alone",
        ),
    ),
    "Par-files to write": (
        BY_NAME["DeltaQ_min"],
        BY_NAME["DeltaQ_max"],
        Option(
            "collectSpots",
            scan_kinds.SPOTS,
            "auto",
            "reflections to harvest; auto: the brightest, well spread, that the scan passes as a whole",
        ),
        Option("n_spots", kinds.COUNT, 24, "how many auto chooses at most"),
        Option(
            "threshold",
            kinds.optional(kinds.POSITIVE),
            None,
            "counts above which a pixel is saturated; None: half of count_cutoff",
            "counts",
        ),
        Option(
            "geometry_error",
            scan_kinds.GEOMETRY_ERROR,
            None,
            "what is added to the geometry and the cell in experiment.par, by option, so that they are wrong there",
        ),
        Option("output_folder", kinds.FILE, None, "folder for all that is written", needed=("every run",)),
    ),
}
_BY_NAME = {option.name: option for group in SCAN_TABLE.values() for option in group}
_OF_LATTICE = ("ascii_generators", "centring", "density", "constants", "elastic_tensor", "debye_waller")
_NEEDED = ("n_frames", "output_folder", "ascii_generators")


@dataclass(frozen=True)
class Scan:
    """A scan to simulate; attributes are options, see `SCAN_TABLE`."""

    experiment: Experiment
    AA: float
    BB: float
    CC: float
    aAA: float
    aBB: float
    aCC: float
    ascii_generators: str
    centring: str
    Temperature: float
    density: float
    lattice: str | None
    constants: dict[str, float] | None
    elastic_tensor: tuple[tuple[float, ...], ...] | None
    tensor_frame: str
    debye_waller: float
    mosaicity: float
    shape: tuple[int, int]
    n_frames: int
    gap_rows: tuple[tuple[int, int], ...]
    gap_columns: tuple[tuple[int, int], ...]
    n_hot_pixels: int
    count_cutoff: int
    monitor_drift: float
    substeps: int
    count_level: float
    background: float
    cut_radius: float
    peak_width: float | None
    attenuation: float | None
    extinction: float
    seed: int
    noise_seed: int | None
    second_lattice: SecondLattice | None
    zingers: float
    shadow: Shadow | None
    structured_background: float
    background_frames: int
    DeltaQ_min: float
    DeltaQ_max: float
    collectSpots: str | tuple[tuple[int, int, int], ...]
    n_spots: int
    threshold: float | None
    geometry_error: dict[str, float] | None
    output_folder: Path

    @property
    def cell(self) -> Cell:
        """The unit cell."""
        return Cell(self.AA, self.BB, self.CC, self.aAA, self.aBB, self.aCC)

    @property
    def true_geometry(self) -> dict[str, object]:
        """Options of the experiment and the cell, as they are."""
        owner = {field.name: self.experiment for field in fields(Experiment)}
        return {name: getattr(owner.get(name, self), name) for name in scan_kinds.GEOMETRY_OPTIONS}

    @property
    def written_geometry(self) -> dict[str, object]:
        """The same as experiment.par gives them: with geometry_error."""
        error = self.geometry_error or {}
        return {n: v + error[n] if n in error and isinstance(v, float) else v for n, v in self.true_geometry.items()}


def load_scan(path: str | Path) -> Scan:
    """Read the par-file of a scan.

    Raises
    ------
    InputError
        If the file cannot be evaluated, an option is unknown, missing or wrong, or options contradict each other.
    """
    file = Path(path)
    parfile = read_parfile(file)
    values: dict[str, object] = {}
    where: dict[str, str] = {}
    for assignment in parfile.assignments:
        option = _BY_NAME.get(assignment.name)
        if option is None:
            if parfile.is_helper(assignment.name):
                continue
            raise _unknown(assignment.name, assignment.where)
        if option.name in values:
            logging.getLogger("tds2el").warning(
                "%s: %s is assigned again (before: %s); this one counts",
                assignment.where,
                option.name,
                where[option.name],
            )
        values[option.name] = option.resolve(assignment.value, assignment.where, file.parent)
        where[option.name] = assignment.where
    return scan_from_values(values, str(file))


def scan_from_values(values: dict[str, object], source: str) -> Scan:
    """A scan from converted values of options; those left out take their defaults.

    Parameters
    ----------
    values : dict
        By option name, as `Option.resolve` returns them.
    source : str
        What messages call the origin of the values.

    Raises
    ------
    InputError
        If a needed option is missing or options contradict each other.
    """
    values = _with_lattice(values, source)
    for option in _BY_NAME.values():
        if option.name not in values and ("harvest" in option.needed or option.name in _NEEDED):
            unit = f" ({option.unit})" if option.unit else ""
            raise InputError(f"{source}: {option.name} is missing: {option.help}{unit}")
    resolved = {name: values.get(name, option.default) for name, option in _BY_NAME.items()}
    if (resolved["constants"] is None) == (resolved["elastic_tensor"] is None):
        raise InputError(f"{source}: give either constants or elastic_tensor")
    check_sensor(resolved, dict.fromkeys(resolved, source))
    experiment = Experiment(**{f.name: resolved.pop(f.name) for f in fields(Experiment)})  # type: ignore[arg-type]
    scan = Scan(experiment=experiment, **resolved)  # type: ignore[arg-type]
    if not scan.DeltaQ_min < scan.DeltaQ_max:
        raise InputError(f"{source}: DeltaQ_min = {scan.DeltaQ_min:g} must be below DeltaQ_max = {scan.DeltaQ_max:g}")
    for name, intervals, size in (
        ("gap_rows", scan.gap_rows, scan.shape[0]),
        ("gap_columns", scan.gap_columns, scan.shape[1]),
    ):
        if any(last >= size for _, last in intervals):
            raise InputError(f"{source}: {name} reaches beyond the frame, which ends at {size - 1}")
    if scan.background_frames and not scan.structured_background:
        raise InputError(f"{source}: background_frames would be empty; give structured_background too")
    for name in scan.geometry_error or {}:
        BY_NAME[name].resolve(scan.written_geometry[name], f"{source}: geometry_error", scan.output_folder)
    return scan


def _with_lattice(values: dict[str, object], source: str) -> dict[str, object]:
    """With what `lattice` settles: cell, symmetry, density and constants."""
    name = values.get("lattice")
    if not isinstance(name, str):
        return values
    for given in (*CELL_OPTIONS, *_OF_LATTICE):
        if values.get(given) is not None:
            raise InputError(f'{source}: {given} is settled by lattice = "{name}"; take one of them out')
    lattice = EXAMPLES[name]()
    structure = tensor_structure(point_group(lattice.point_group, lattice.cell, lattice.space_group))
    return {
        **values,
        **dict(zip(CELL_OPTIONS, lattice.cell.parameters, strict=True)),
        "ascii_generators": lattice.point_group,
        "centring": lattice.space_group,
        "density": lattice.density,
        "constants": dict(zip(structure.names, structure.constants(lattice.tensor).tolist(), strict=True)),
    }


def _unknown(name: str, where: str) -> InputError:
    nearest = difflib.get_close_matches(name.casefold(), {n.casefold(): n for n in _BY_NAME}, n=1)
    folded = {n.casefold(): n for n in _BY_NAME}
    hint = f"did you mean '{folded[nearest[0]]}'?" if nearest else "docs/simulate-scan.md lists the options"
    return InputError(f"{where}: '{name}' is no option of simulate-scan, and no later line reads it; {hint}")


_PAGE = """\
# Simulated scans

`tds2el simulate-scan scan.par` writes what a beamline would write for a crystal whose elastic constants are known: CBF
frames, a mask, a normalisation file and both par-files, so that `tds2el input.par` runs on them at once; `truth.json`
holds the true constants. `tds2el demo` does this for calcite and then harvests and fits. The same `scan.par` gives the
same files on any number of MPI ranks.

Expected counts are κ·(Σ f_G S_G + background) with κ = polarisation × solid angle × monitor. S_G is the one-phonon
intensity of `docs/physics.md` round every allowed node G; f_G is proportional to |F_G|², which is random, but equal for
reflections that are equivalent by symmetry. Bragg peaks are Gaussians in Q that exceed `count_cutoff` and are clipped
there. Every frame is averaged over the orientations that it sweeps, and over mosaic blocks if there are any; far from a
node, where its halo is smooth, the middle of the frame stands for the average (to a few 1e-4 of that halo).

With `lattice`, S_G is the one-phonon intensity of all branches of a crystal of atoms and springs, over |F_G|², whose
elastic constants are those of its springs: it tends to the elastic limit of `docs/physics.md` where q → 0, and departs
from it by what fits of real crystals meet. f_G is then proportional to the |F_G|² of these atoms. Intensities come from
tables that are right to 1e-4.

Disturbances are off unless asked for. With them, expected counts are
T·(κ·(Σ f_G S_G + fraction·Σ' f_G S_G + background) + monitor·structured_background·p).

- Σ' is the same sum, Bragg peaks included, over a second lattice: Q in the foreign crystal is (V·U)ᵀ Rᵀ Q0, where
  V = R3(r3)·R2(r2)·R1(r1) is built as U is.
- p, whose mean over the frame is 1, falls off round the direct beam and has two streaks and two rings. It depends on
  the pixel alone; polarisation and solid angle do not change it. With `background_frames`, frames that hold only this
  are written to `background/`, with their own `background_monitor.txt`. Gaps and hot pixels are in them, shadow and
  zingers are not.
- T is the transmission of the shadow, 1 outside it. `mask_ranges/` gets masks for up to 8 ranges of frames, which
  exclude every pixel that is within 2 pixels of the shadow in a frame of the range.
- Zingers are added to what was counted, and saturate with it.

Lines that use background frames and masks of the shadow are in `input.par` as comments: take away the `#`.
`truth.json` holds the disturbances that are on and, with `geometry_error`, the true geometry.

`scan.par` is written in the same subset of Python as other par-files; paths are relative to it.
This page is made from the program's table: `python -m tds2el.simulate.options > docs/simulate-scan.md`.
"""


def options_markdown() -> str:
    """The page docs/simulate-scan.md."""
    lines = [_PAGE.rstrip()]
    for title, group in SCAN_TABLE.items():
        lines += ["", f"## {title}", "", "| option | value | unit | default | meaning |", "|---|---|---|---|---|"]
        for option in group:
            needed = "harvest" in option.needed or option.name in _NEEDED
            default = "needed" if needed else f"`{option.default!r}`"
            cells = (f"`{option.name}`", option.kind.text, option.unit, default, option.help)
            lines.append("| " + " | ".join(cell.replace("*", r"\*").replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(options_markdown(), end="")
