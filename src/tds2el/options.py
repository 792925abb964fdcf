"""The table of options: every name a par-file may assign, with its kind, unit, default and meaning.

``python -m tds2el.options`` prints the table as the page docs/options.md.
"""

from __future__ import annotations

import difflib

from tds2el import kinds
from tds2el.kinds import ANY, FILE, FLAG, NOT_NEGATIVE, POSITIVE, Option, Run, choice, integer, optional

READS_FRAMES: tuple[Run, ...] = ("harvest", "volume", "extract-maxima", "normalise")
KNOWS_EXPERIMENT: tuple[Run, ...] = ("harvest", "volume", "align", "export-geometry")
KNOWS_CELL: tuple[Run, ...] = ("harvest", "volume", "export-geometry")

# A row a line, as far as it fits.
# fmt: off
TABLE: dict[str, tuple[Option, ...]] = {
    "What to do": (
        Option("conf_file", FILE, None,
               "the second par-file, with experiment and calculation", needed=("every run",)),
        Option("sweeps", kinds.FILES, None,
               "instead of conf_file: one for each sweep of a crystal, aligned, harvested and fitted together"),
        Option("output_folder", optional(FILE), None, "folder for the results; None: that of input.par"),
        Option("load_from_file", optional(FILE), None, "harvest file to reuse; None: harvest"),
        Option("save_to_file", optional(FILE), None,
               "harvest file to write (HDF5); needed without load_from_file"),
        Option("fitSpots", FLAG, False,
               "simulate or fit the harvested spots; without CGUESS: print the structure of the tensor"),
        Option("show_hkls", FLAG, False, "list the harvested hkl: blobs, frames, points, quality, centre"),
        Option("report", FLAG, True, "write report.html, with its pictures, at the end of a fit"),
        Option("fitted_curve", FLAG, True,
               "write measured and fitted counts of every point, and the profiles that the report draws, to "
               "tds2el_fit.h5; False, which needs report = False: tables only"),
        Option("DO_ELASTIC", FLAG, True,
               "1: work round Bragg spots; 0: reconstruct the whole volume of reciprocal space"),
    ),
    "Frames": (
        Option("images_prefix", kinds.PREFIX, None,
               "frames are the sorted files images_prefix + anything + images_postfix", needed=READS_FRAMES),
        Option("images_postfix", kinds.TEXT_OR_EMPTY, "", "the end of the names of frames, e.g. .cbf"),
        Option("frame_angle", choice(None, "number", "header"), None,
               "angle of a frame: from its place among the names (None), the number in its name, its header"),
        Option("filter_file", optional(FILE), None,
               "mask: 1 good, 0 discard; an image, .npy or file.h5::/path"),
        Option("filter_ranges", kinds.MASKS, None,
               "further masks for ranges of frames, counted from 0 in the order of the scan"),
        Option("normalisation_file", optional(FILE), None,
               "two columns: file name of a frame, denominator of its intensities"),
        Option("background_prefix", optional(kinds.PREFIX), None,
               "frames of the background, without the crystal: a series or one averaged frame"),
        Option("background_postfix", kinds.TEXT_OR_EMPTY, "", "the end of their names"),
        Option("background_normalisation_file", optional(FILE), None,
               "their denominators, as in normalisation_file; needed if that is given"),
        Option("background_exposures", kinds.COUNT, 1,
               "exposures that each frame of the background is the mean of"),
    ),
    "Experiment: beam, goniometer and detector": (
        Option("pixel_size", POSITIVE, None, "edge of a pixel", "mm", needed=KNOWS_EXPERIMENT),
        Option("dist", POSITIVE, None,
               "distance from the sample to the plane of the detector", "mm", needed=KNOWS_EXPERIMENT),
        Option("lmbda", POSITIVE, None, "wavelength", "Å", needed=KNOWS_EXPERIMENT),
        Option("beam_tilt_angle", ANY, 0.0, "tilt of the beam about axis 2", "°"),
        Option("det_origin_X", ANY, None,
               "row of the detector's origin (XDS ORGY − 1)", "pixel", needed=KNOWS_EXPERIMENT),
        Option("det_origin_Y", ANY, None,
               "column of the detector's origin (XDS ORGX − 1)", "pixel", needed=KNOWS_EXPERIMENT),
        Option("d1", ANY, 0.0, "rotation of the detector about axis 1, applied first", "°"),
        Option("d2", ANY, 0.0, "rotation of the detector about axis 2, applied second", "°"),
        Option("theta", ANY, 0.0, "rotation of the detector about axis 3, applied last", "°"),
        Option("theta_offset", ANY, 0.0, "added to theta", "°"),
        Option("omega", ANY, 0.0, "goniometer: outermost rotation, about axis 3", "°"),
        Option("omega_offset", ANY, 0.0, "added to omega", "°"),
        Option("alpha", ANY, 0.0, "goniometer: angle between the axes of omega and kappa", "°"),
        Option("beta", ANY, 0.0, "goniometer: angle between the axes of omega and phi", "°"),
        Option("kappa", ANY, 0.0, "goniometer: rotation about the kappa axis", "°"),
        Option("phi", ANY, 0.0, "goniometer: phi at the middle of the first frame", "°"),
        Option("angular_step", kinds.NOT_ZERO, None,
               "step of phi from frame to frame", "°", needed=(*KNOWS_EXPERIMENT, "extract-maxima")),
        Option("r1", ANY, 0.0, "orientation of the crystal: rotation about axis 1, applied first", "°"),
        Option("r2", ANY, 0.0, "orientation of the crystal: rotation about axis 2, applied second", "°"),
        Option("r3", ANY, 0.0, "orientation of the crystal: rotation about axis 3, applied last", "°"),
        Option("orientation_codes", optional(integer("a whole number from 0 to 7", 0, 7)), 0,
               "which of 8 ways rows and columns lie on the axes; None: align finds it"),
        Option("pol_degree", kinds.FRACTION, 1.0, "degree of polarisation; 0.5: unpolarised"),
        Option("normal_to_pol", kinds.DIRECTION, (0.0, 0.0, 1.0),
               "normal to the plane of polarisation, in the lab"),
        Option("sensor_thickness", NOT_NEGATIVE, 0.0,
               "thickness of the detector's sensor, for its parallax; 0: none", "mm"),
        Option("sensor_mu", NOT_NEGATIVE, 0.0,
               "absorption coefficient of the sensor at lmbda", "mm⁻¹"),
    ),
    "Crystal": (
        Option("AA", kinds.CELL_LENGTH, None, "cell length a", "Å", needed=KNOWS_CELL),
        Option("BB", kinds.CELL_LENGTH, None, "cell length b", "Å", needed=KNOWS_CELL),
        Option("CC", kinds.CELL_LENGTH, None, "cell length c", "Å", needed=KNOWS_CELL),
        Option("aAA", kinds.CELL_ANGLE, None, "cell angle alpha, between b and c", "°", needed=KNOWS_CELL),
        Option("aBB", kinds.CELL_ANGLE, None, "cell angle beta, between a and c", "°", needed=KNOWS_CELL),
        Option("aCC", kinds.CELL_ANGLE, None, "cell angle gamma, between a and b", "°", needed=KNOWS_CELL),
        Option("ascii_generators", kinds.TEXT, None,
               "symmetry generators, e.g. 1~,3(z),2(y), or a point group", needed=("fitSpots",)),
        Option("centring", optional(kinds.TEXT), None,
               "which nodes exist: P A B C I F R or a space group; None: not known, nothing is dropped"),
        Option("Temperature", POSITIVE, 300.0, "temperature of the crystal", "K"),
        Option("density", kinds.DENSITY, 2.71, "density of the crystal; the default is calcite's", "g/cm³"),
    ),
    "Harvest": (
        Option("DeltaQ_max", POSITIVE, None,
               "outer radius of the shell", "longest of a*, b*, c*", needed=("harvest",)),
        Option("DeltaQ_min", NOT_NEGATIVE, None,
               "inner radius of the shell", "longest of a*, b*, c*", needed=("harvest",)),
        Option("collectSpots", optional(kinds.SPOTS), None,
               'reflections to harvest or fit; "auto": those that tell most about the constants'),
        Option("n_spots", kinds.COUNT, 40, 'how many reflections "auto" takes at most'),
        Option("file_maxima", optional(FILE), None,
               "tagged peaks, instead of collectSpots: an hkl is taken if all its peaks are accepted"),
        Option("REPLICA_COLLECTION", FLAG, False, "1: harvest also everything equivalent by symmetry"),
        Option("threshold", optional(POSITIVE), None,
               "counts above which a pixel is saturated; None: the cutoff in the frames' headers", "counts"),
        Option("threshold_action", choice("frame", "pixel"), "frame",
               "a saturated pixel discards its blob's pixels of that frame, or itself with a border of 2"),
        Option("centering_file", optional(FILE), None,
               "previous harvest that gives the measured centres of the Bragg peaks"),
        Option("check_md5", FLAG, False,
               "1: compare each CBF frame with the checksum in its header; takes twice the time"),
        Option("threads", optional(kinds.COUNT), None,
               "threads of a rank that read frames; None: its share of the node's cores"),
    ),
    "Whole volume (DO_ELASTIC = 0)": (
        Option("volume_shape", kinds.NODES, (257, 257, 257), "nodes along each axis of the grid"),
        Option("volume_axes", choice("hkl", "cartesian"), "hkl",
               "grid in hkl (r.l.u.), or in Q along x, y, z of the crystal frame (Å⁻¹)"),
        Option("volume_limits", optional(kinds.LIMITS), None,
               "first and last node of each axis; None: symmetric about 0, all that the detector reaches",
               "r.l.u. or Å⁻¹"),
        Option("volume_basis", optional(kinds.VECTORS), None,
               "vectors along which the axes run, limits being multiples of them; None: along h k l or x y z",
               "r.l.u. or Å⁻¹"),
        Option("volume_origin", kinds.VECTOR, (0.0, 0.0, 0.0),
               "where all coordinates are 0, for slabs and tilted cuts", "r.l.u. or Å⁻¹"),
        Option("volume_symmetrise", FLAG, False,
               "1: average voxels that are equivalent by ascii_generators"),
        Option("microsteps", integer("a whole number from 1 to 1000", 1, 1000), 1,
               "angles within a frame over which its counts are spread, against gaps of coarse steps"),
        Option("every_nth_frame", kinds.COUNT, 1, "use one frame in so many, for a quick look"),
        Option("volume_file", optional(FILE), None,
               "volume file to write (HDF5); None: volume.h5 in output_folder"),
        Option("volume_memory", optional(POSITIVE), None,
               "memory on a node for voxels; larger volumes take several passes over the frames; None: half of "
               "the node's", "GB"),
        Option("volume_layers", kinds.LAYERS, ("hk0", "h0l", "0kl"),
               "layers of which pictures are drawn beside the volume, as far as they were measured"),
        Option("volume_layer_thickness", optional(POSITIVE), None,
               "of these layers, along the index that has the number; None: one voxel", "r.l.u."),
    ),
    "Simulation and fit": (
        Option("CGUESS", kinds.START_VALUES, None,
               'start and bounds (min = max freezes); "auto": isotropic; None: dry run', "GPa"),
        Option("doMinimisation", FLAG, False,
               "1: fit; 0: simulate with CGUESS", spellings=("do_Minimisation",)),
        Option("nred", kinds.ONE_IN, 1, "use one point in nred, chosen pseudo-randomly"),
        Option("ftol", POSITIVE, 1e-5, "convergence tolerance", spellings=("ftols",)),
        Option("scale", choice("auto", "free", "held"), "auto",
               "overall scale of the constants: fitted if the data determine it, always, or never"),
        Option("relative_error", kinds.FRACTION, 0.0,
               "error of a pixel beside counting noise, as a fraction of its counts"),
        Option("device", kinds.DEVICE, None,
               'what computes; None: the first GPU (each MPI rank its own), else the CPU; "numpy": slow reference'),
        Option("REPLICA", FLAG, False, "1: fit also the spots equivalent by symmetry"),
        Option("A_variables", kinds.CORRECTIONS, None,
               "corrections to geometry and cell; min < max frees one in the fit"),
        Option("fit_centres", FLAG, True,
               "fit the offset of each spot's centre (not beside a free geometry, unless given)"),
        Option("baseline", choice("constant", "linear"), "constant", "what lies under the halo of a spot, in q"),
        Option("model", choice("elastic", "next-order"), "elastic",
               "the long-wave limit, or all that is of the next order in q beside it (docs/next-order.md)"),
        Option("dispersion", FLAG, True,
               "next-order: fit how the stiffness changes with q, common to all spots"),
        Option("spot_gradient", FLAG, True,
               "next-order: fit how form factor and Debye-Waller factor change across each spot"),
        Option("internal_strain", FLAG, True,
               "next-order: fit how strain changes each spot's structure factor"),
        Option("dispersion_terms", kinds.NAMES, None,
               "the terms of dispersion to fit, e.g. ['T11_1111', 'T11_2222']; None: all, of which there may be 30"),
        Option("resolution", kinds.AUTOMATIC, "auto",
               "average the model over frame, pixel, mosaic spread and wavelengths; auto: where that changes a halo "
               "by 5 % (docs/resolution.md)"),
        Option("mosaicity", kinds.MOSAICITY, 0.0,
               'standard deviation of the orientation of the crystal\'s blocks about any axis; "estimate": from the '
               "rocking curves of Bragg peaks that are not saturated", "°"),
        Option("bandwidth", kinds.number("a number from 0 to 0.1", lambda x: 0 <= x <= 0.1), 0.0,
               "standard deviation of the wavelength, as a fraction of it"),
        Option("pixel_response", kinds.number("a number from 0 to 10", lambda x: 0 <= x <= 10), 1.0,
               "edge of the square that a pixel averages over; more than 1 if light or charge spreads; 0: its middle, "
               "as simulate-scan has it", "pixel"),
        Option("neighbours", kinds.AUTOMATIC, "auto",
               "fit the halos of neighbouring allowed nodes too; auto: with a centring, where DeltaQ_max is above a "
               "quarter of their distance"),
        Option("background_scale", choice("monitor", "free"), "monitor",
               "scale of the background frames: from the denominators, or fitted spot by spot"),
        Option("reject", optional(POSITIVE), None,
               "pull beyond which pixels, connected or single, are foreign and removed with a border, e.g. 6"),
        Option("spot_filter", kinds.SPOT_FILTER, None, "limits beyond which spots are left out of the fit"),
        Option("profile_likelihood", kinds.PROFILES, False,
               "intervals from the profile of the likelihood, for all constants or those named; some 12 passes each"),
        Option("bootstrap", integer("a whole number from 0 to 1000000", 0, 1_000_000), 0,
               "samples of the spots for intervals that see what the model misses, e.g. 1000; 0: none"),
    ),
    "Absolute scale": (
        Option("known", kinds.KNOWN, None,
               "constants (frame W), moduli or linear compressibilities known from elsewhere, with error and thermal "
               "state", "GPa, 1/GPa"),
        Option("expansion", kinds.EXPANSION, None,
               "thermal expansion: of a cubic crystal; along x, y, z of frame W; or xx yy zz yz xz xy", "1/K"),
        Option("heat_capacity", optional(POSITIVE), None,
               "heat capacity at constant pressure; with expansion adiabatic constants are printed too", "J/(g K)"),
        Option("bragg_scale", FLAG, False,
               "1: take the scale from the Bragg intensities of fitted reflections that are not saturated"),
        Option("bragg_prefix", optional(kinds.PREFIX), None,
               "frames of an attenuated scan for them, with the same phi and angular_step; None: the scan itself"),
        Option("bragg_postfix", kinds.TEXT_OR_EMPTY, "", "the end of their names"),
        Option("bragg_normalisation_file", optional(FILE), None,
               "their denominators, as in normalisation_file; needed if that is given"),
        Option("bragg_attenuation", kinds.ATTENUATION, (1.0, 0.0),
               "how many times weaker the beam of the attenuated scan is, at equal denominators, with its error"),
    ),
    "Visualisation": (
        Option("visSim", FLAG, False,
               "1: write data and simulation, interpolated on a cube round every spot, to simtests.h5"),
        Option("testSpot_N", integer("a whole number of at least 2", 2), 128,
               "grid points per edge of a cube"),
        Option("testSpot_beta", NOT_NEGATIVE, 0.03, "regularisation of the interpolation"),
        Option("testSpot_Niter", kinds.COUNT, 100, "iterations of the interpolation"),
    ),
    "Companion programs": (
        Option("maxima_file", optional(FILE), None,
               "table of peaks that extract-maxima writes; None: maxima.h5 in output_folder"),
        Option("maxima_sigma", POSITIVE, 6.0,
               "a pixel is part of a peak if it exceeds its surroundings by so many times their counting noise"),
        Option("maxima_threshold", optional(POSITIVE), None,
               "the same for counts above this, instead of maxima_sigma", "counts"),
        Option("maxima_window", kinds.odd(3, 999), 15,
               "edge of the square round a pixel in which its background is averaged", "pixel"),
        Option("maxima_min_pixels", kinds.COUNT, 3, "pixels that a peak has at least, over all its frames"),
        Option("maxima_max_pixels", kinds.COUNT, 10_000, "pixels that it has at most; rings and streaks have more"),
        Option("normalise_from", choice("headers", "frames"), "headers",
               "where normalise takes denominators from: the frames' headers, or the counts themselves"),
        Option("header_key", optional(kinds.TEXT), None,
               "what counts the beam in the headers: a keyword, a counter of an EDF file, or a path in HDF5 files; "
               "None: Flux and other usual names"),
        Option("normalise_region", kinds.REGION, None,
               "where normalise averages the frames: [[first row, last row], [first column, last column]] or a mask "
               "(1: use); None: everywhere"),
        Option("normalisation_output", optional(FILE), None,
               "normalisation_file that normalise writes; None: normalisation.txt in output_folder"),
        Option("transform_only", FLAG, False, "1: align only writes the peaks as points in reciprocal space"),
        Option("variations", kinds.VARIATIONS, None,
               "what align refines: bounds of what is added to geometry and cell; None: orientation, origin, and "
               "the cell if it is not given, else dist"),
        Option("hkl_tolerance", kinds.TOLERANCE, 0.2,
               "how far h, k, l of an accepted peak may each be from a whole number"),
        Option("max_cell", optional(kinds.CELL_LENGTH), None,
               "longest edge that align looks for if the cell is not given; None: from distances between peaks", "Å"),
    ),
}
# fmt: on

OPTIONS: tuple[Option, ...] = tuple(option for group in TABLE.values() for option in group)
BY_NAME: dict[str, Option] = {name: option for option in OPTIONS for name in (option.name, *option.spellings)}


def nearest_option(name: str) -> str:
    """A hint for a name that is no option: the option it resembles most, if any."""
    folded = {known.casefold(): known for known in BY_NAME}
    nearest = difflib.get_close_matches(name.casefold(), folded, n=1)
    return f"did you mean '{folded[nearest[0]]}'?" if nearest else "docs/options.md lists the options"


def options_markdown() -> str:
    """The page docs/options.md."""
    lines = [
        "# Options",
        "",
        "Any option may stand in `input.par` or in the `conf_file` that it names.",
        "On the command line, `--set NAME=VALUE` overrides both.",
        "Paths are relative to the file that names them, those of `--set` to the current folder.",
        "This page is made from the program's table: `python -m tds2el.options > docs/options.md`.",
    ]
    for title, group in TABLE.items():
        lines += ["", f"## {title}", "", "| option | value | unit | default | needed for | meaning |"]
        lines.append("|---|---|---|---|---|---|")
        for option in group:
            names = "<br>".join(f"`{name}`" for name in (option.name, *option.spellings))
            default = "" if option.needed else f"`{option.default!r}`"
            cells = (names, option.kind.text, option.unit, default, ", ".join(option.needed), option.help)
            lines.append("| " + " | ".join(cell.replace("*", r"\*") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(options_markdown(), end="")
