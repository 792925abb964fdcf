"""``tds2el input.par``: harvest, list, dry run, simulate or fit, or reconstruct a volume, as the par-files say."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tds2el.cli.parfiles import add_arguments as add_arguments
from tds2el.cli.parfiles import read_settings
from tds2el.errors import InputError
from tds2el.parallel import World

if TYPE_CHECKING:
    from tds2el.crystal.cell import Cell
    from tds2el.crystal.dispersion import DispersionStructure
    from tds2el.crystal.elasticity import TensorStructure
    from tds2el.crystal.symmetry import PointGroup
    from tds2el.crystal.thermal import Thermal
    from tds2el.fit.bragg import BraggScale
    from tds2el.fit.data import FitData
    from tds2el.fit.fit import Fit
    from tds2el.fit.minimise import Iteration
    from tds2el.fit.parameters import Constants
    from tds2el.harvest.file import HarvestFile
    from tds2el.harvest.quality import SpotQuality
    from tds2el.settings import CrystalSettings, FitSettings, Settings
    from tds2el.team import Team

log = logging.getLogger("tds2el")

HELP = (
    "Harvest the pixels round Bragg peaks, and fit the elastic constants to their thermal diffuse scattering. "
    "docs/options.md lists the options of the par-files."
)


def run(arguments: argparse.Namespace, world: World) -> None:
    """Do what the par-files say (collective).

    Raises
    ------
    InputError
        On all ranks alike.
    """
    settings = read_settings(arguments, "run", world)
    if not settings.run.DO_ELASTIC:
        from tds2el.volume.reconstruct import reconstruct

        volume = reconstruct(settings, world)
        log.info("volume written to %s", volume)
        world.attempt(lambda: _draw_layers(settings, volume) if world.rank == 0 else None)
        return
    harvest_file = settings.run.load_from_file
    if harvest_file is None:
        from tds2el.harvest.collect import harvest
        from tds2el.harvest.sweeps import harvest_sweeps

        world.attempt(lambda: _check_fit(settings, world))
        harvest_file = (harvest_sweeps if settings.sweeps else harvest)(settings, world)
        log.info("harvest written to %s", harvest_file)
    source: Path = harvest_file
    if world.size > 1 and settings.run.fitSpots and settings.fit.CGUESS is not None:
        _evaluate_together(settings, source, world)
    else:
        world.attempt(lambda: _evaluate_alone(settings, source, world) if world.rank == 0 else None)


def _draw_layers(settings: Settings, volume_file: Path) -> None:
    """The pictures at the end of a reconstruction."""
    from tds2el.layer import layer_from_name
    from tds2el.view.layers import draw_layers
    from tds2el.volume.file import VolumeFile

    options = settings.volume
    if not options.volume_layers:
        return
    layers = [layer_from_name(name) for name in options.volume_layers]
    with VolumeFile(volume_file) as volume:
        pictures = draw_layers(volume, layers, options.volume_layer_thickness)
    if pictures:
        log.info("pictures of layers in %s", ", ".join(map(str, pictures)))


def _evaluate_alone(settings: Settings, harvest_file: Path, world: World) -> None:
    from tds2el.harvest.file import HarvestFile

    with HarvestFile(harvest_file) as harvest:
        _evaluate(settings, harvest, world, None)


def _evaluate_together(settings: Settings, harvest_file: Path, world: World) -> None:
    """Rank 0 evaluates; what takes time it shares with the others (collective)."""
    from tds2el.fit.shared import HarvestShare
    from tds2el.harvest.file import HarvestFile
    from tds2el.team import Team

    with world.attempt(lambda: HarvestFile(harvest_file)) as harvest:
        team = Team(world, HarvestShare(harvest, world))
        team.run(lambda: _evaluate(settings, harvest, world, team))


def _evaluate(settings: Settings, harvest: HarvestFile, world: World, team: Team | None) -> None:
    """What is done with a harvest: list it, print the structure of the tensor, fit."""
    from tds2el.experiment.geometry import Geometry
    from tds2el.harvest.nodes import node_warnings
    from tds2el.harvest.quality import spot_quality
    from tds2el.harvest.summary import harvest_table

    @cache  # it takes a pass over all points, which the listing and the fit share
    def quality() -> SpotQuality:
        return spot_quality(harvest, team, world.cores)

    if settings.run.load_from_file is not None:
        for number, experiment in enumerate(harvest.experiments, 1):
            which = f"sweep {number}: " if len(harvest.experiments) > 1 else ""
            log.info("%sdirect beam at row %.2f, column %.2f", which, *Geometry(experiment).direct_beam())
        _compare_settings(settings, harvest.settings)
        for warning in node_warnings(harvest.hkl, harvest.cell, settings.crystal.centring, harvest.delta_max):
            log.warning("%s", warning)
    if settings.run.show_hkls:
        log.info("%s", harvest_table(harvest, quality()))
    if settings.run.fitSpots:
        _fit(settings, harvest, quality, world, team)
    elif settings.run.load_from_file is not None and not settings.run.show_hkls:
        log.warning("nothing to do with the harvest: set fitSpots = True to fit it, or show_hkls = True to list it")


def _check_fit(settings: Settings, world: World) -> None:
    """Find the mistakes that would end the fit before a harvest, which may take hours, not after it."""
    from tds2el.crystal.cell import Cell
    from tds2el.fit.bragg_scan import check_bragg
    from tds2el.fit.intervals import profiled
    from tds2el.fit.known import known_from_option
    from tds2el.fit.parameters import constants_from_guess
    from tds2el.model.device import try_device

    cell = settings.crystal.cell
    if not settings.run.fitSpots or cell is None:
        return
    group, structure = _symmetry(settings.crystal, Cell(*cell))
    thermal = _thermal(settings, group)
    if settings.fit.known is not None:
        known_from_option(settings.fit.known, structure, group.cell, thermal)
    if settings.fit.CGUESS is not None:
        check_bragg(settings, constants_from_guess(settings.fit.CGUESS, structure))
        profiled(settings.fit, structure.names)
        _dispersion(settings.fit, group)
        try_device(settings.fit.device, world)


def _symmetry(crystal: CrystalSettings, cell: Cell) -> tuple[PointGroup, TensorStructure]:
    from tds2el.crystal.elasticity import tensor_structure
    from tds2el.crystal.symmetry import point_group

    assert crystal.ascii_generators is not None  # load_settings requires it with fitSpots
    group = point_group(crystal.ascii_generators, cell, crystal.centring)
    return group, tensor_structure(group)


def _thermal(settings: Settings, group: PointGroup) -> Thermal | None:
    from tds2el.crystal.thermal import Thermal, expansion_tensor

    crystal, options = settings.crystal, settings.fit
    if options.expansion is None or options.heat_capacity is None:
        return None
    expansion = expansion_tensor(options.expansion, group)
    return Thermal(crystal.Temperature, crystal.density, options.heat_capacity, expansion)


def _dispersion(options: FitSettings, group: PointGroup) -> DispersionStructure | None:
    """The terms of dispersion that are fitted."""
    from tds2el.crystal.dispersion import dispersion_structure

    if options.model == "elastic" or not options.dispersion:
        return None
    return dispersion_structure(group).selected(options.dispersion_terms)


def _fit(
    settings: Settings, harvest: HarvestFile, quality_of_all: Callable[[], SpotQuality], world: World, team: Team | None
) -> None:
    from tds2el.crystal.dispersion import dispersion_structure
    from tds2el.experiment.geometry import Geometry
    from tds2el.fit.around import Around, surroundings_notes, surroundings_warnings, with_surroundings
    from tds2el.fit.bragg_scan import bragg_scale, check_bragg, constants_at_scale
    from tds2el.fit.context import FitContext
    from tds2el.fit.data import fit_data
    from tds2el.fit.fit import fit
    from tds2el.fit.fit_file import FIT_FILE, write_fit_file
    from tds2el.fit.intervals import profiled
    from tds2el.fit.known import known_from_option
    from tds2el.fit.parameters import constants_from_guess
    from tds2el.fit.parametri import PARAMETRI, write_parametri
    from tds2el.fit.refined import REFINED, write_refined
    from tds2el.fit.report import dry_run_text, fit_report, iteration_line
    from tds2el.fit.retune import make_retuning
    from tds2el.log import shown_warnings
    from tds2el.model.quantum import quantum_term
    from tds2el.progress import Stage

    crystal, options = settings.crystal, settings.fit
    group, structure = _symmetry(crystal, harvest.cell)
    thermal = _thermal(settings, group)
    if options.CGUESS is None:
        terms = () if options.model == "elastic" else dispersion_structure(group).names
        log.info("%s", dry_run_text(structure, terms))
        if options.doMinimisation:
            log.warning("doMinimisation = 1, but nothing was fitted: CGUESS is not given")
        return

    constants = constants_from_guess(options.CGUESS, structure)
    check_bragg(settings, constants, harvest)
    profiled(options, structure.names)
    if options.known is not None:
        constants = replace(constants, known=known_from_option(options.known, structure, harvest.cell, thermal))
    dispersion = _dispersion(options, group)
    experiment = harvest.experiments[0]
    retuning = None
    if options.A_variables is not None:
        if len(harvest.experiments) > 1:
            raise InputError(
                f"{settings.where['A_variables']}: A_variables: the harvest has {len(harvest.experiments)} sweeps of "
                "different geometry, which cannot be corrected together: harvest and refine each by itself, or set "
                "A_variables = None"
            )
        retuning = make_retuning(options.A_variables, experiment, harvest.cell, group)
        for note in retuning.notes:
            log.info("%s", note)
    # A free geometry and free centres would fit the same thing, so that only one of them is free by default.
    centres = options.fit_centres and (retuning is None or not retuning.names or "fit_centres" in settings.given)

    names = [*structure.names, *(retuning.names if retuning else ())]

    def fitted(data: FitData, options: FitSettings = options) -> Fit:
        with Stage("fit", None, "pass") as stage:

            def report(iteration: Iteration) -> None:
                stage.update(note=f"deviance {iteration.deviance:.8g}")
                log.debug("%s", iteration_line(iteration, names))

            return fit(
                data,
                constants,
                options,
                temperature=crystal.Temperature,
                density=crystal.density,
                retuning=retuning,
                fit_centres=centres,
                dispersion=dispersion,
                team=team,
                started=lambda engine: log.info(
                    "%d points of %d spots on %s", data.points.sizes.sum(), len(data.blobs), engine.description
                ),
                report=report,
            )

    pixels = retuning is not None or options.reject is not None
    quality = quality_of_all()

    around = Around.of(harvest, crystal.centring, options)

    def points_of(blobs: npt.NDArray[np.int64]) -> FitData:
        return with_surroundings(fit_data(harvest, blobs, options.nred, pixels=pixels, team=team), around)

    def information(blobs: npt.NDArray[np.int64]) -> Fit:  # which the elastic limit tells well enough
        return fitted(points_of(blobs), replace(options, model="elastic", profile_likelihood=False, bootstrap=0))

    def at_bragg_scale(data: FitData) -> tuple[BraggScale, Constants]:  # the device is free again when it returns
        first = fitted(data, replace(options, profile_likelihood=False, bootstrap=0))
        scale = bragg_scale(first, harvest, settings)
        return scale, constants_at_scale(constants, first, scale)

    blobs, left_out = _fitted_blobs(settings, harvest, group, quality, information)
    data = points_of(blobs)
    surroundings = tuple(surroundings_notes(data, around))
    for note in surroundings:
        log.info("%s", note)
    for warning in surroundings_warnings(data, around):
        log.warning("%s", warning)
    if settings.bragg.bragg_scale and options.doMinimisation:
        given = constants
        scale, constants = at_bragg_scale(data)
        outcome = fitted(data)
        as_given = replace(outcome.result.constants, start=given.start)
        outcome = replace(outcome, result=replace(outcome.result, constants=as_given, bragg=scale))
    else:
        outcome = fitted(data)
    result = outcome.result
    context = FitContext(
        group=group,
        device=outcome.engine.description,
        temperature=crystal.Temperature,
        density=crystal.density,
        model=options.model,
        surroundings=surroundings,
        quantum_term=quantum_term(result.tensor, harvest.delta_max, crystal.Temperature, crystal.density),
        direct_beam=Geometry(experiment).direct_beam(),
        shell=(harvest.delta_min, harvest.delta_max),
        n_frames=len(harvest.frame_names),
        harvested=int(harvest.n_points[data.blobs].sum()),
        lost={cause: int(lost[data.blobs].sum()) for cause, lost in harvest.lost.items()},
        nred=options.nred,
        given=settings.given,
        simulated=not options.doMinimisation,
        relative_error=options.relative_error,
        settings=settings.values,
        harvest_settings=harvest.settings,
        inputs=(settings.input_file, settings.conf_file, harvest.path),
        warnings=shown_warnings(),
        left_out=left_out,
        reject=options.reject,
        quality=quality.of(data.blobs),
        thermal=thermal,
    )
    folder = settings.run.output_folder
    write_parametri(folder / PARAMETRI, result, context)
    curve = outcome.curve if settings.run.fitted_curve else None
    context = write_fit_file(folder / FIT_FILE, result, context, curve, data.points, outcome.usage.used, outcome.state)
    log.info("%s", fit_report(result, context))
    write_parametri(folder / PARAMETRI, result, context)  # again, with what the profiles have told
    log.info("results in %s and %s", folder / PARAMETRI, folder / FIT_FILE)
    if result.corrections is not None:
        missing = write_refined(folder / REFINED, settings.conf_file, result.corrections)
        log.info("conf_file with the refined values in %s", folder / REFINED)
        elsewhere = [
            name for name in (*missing, "A_variables") if settings.where[name].startswith(settings.input_file.name)
        ]
        if elsewhere:
            log.warning("take out of %s before its next use: %s", settings.input_file, ", ".join(elsewhere))
    if settings.view.visSim:
        from tds2el.view.cubes import CUBES, first_of_each_orbit, write_cubes

        spots = settings.harvest.collectSpots
        listed: Sequence[tuple[int, int, int]] | None = None if isinstance(spots, str) else spots
        if listed is None and (options.REPLICA or harvest.settings.get("REPLICA_COLLECTION")):
            listed = first_of_each_orbit(outcome.data.hkl, group)  # the harvest has the listed ones first
        write_cubes(folder / CUBES, outcome, context, settings.view, listed, threads=world.cores)
        log.info("data and simulation on cubes in %s", folder / CUBES)
    if settings.run.report:
        from tds2el.view.report import REPORT, make_report

        make_report(folder / FIT_FILE, folder / REPORT)
        log.info("report in %s", folder / REPORT)


def _fitted_blobs(
    settings: Settings,
    harvest: HarvestFile,
    group: PointGroup,
    quality: SpotQuality,
    fitted: Callable[[npt.NDArray[np.int64]], Fit],
) -> tuple[npt.NDArray[np.int64], dict[str, str]]:
    """The blobs of the chosen spots, and what spot_filter leaves out and why."""
    from tds2el.experiment.maxima import accepted_reflections, read_maxima
    from tds2el.fit.data import chosen_blobs
    from tds2el.fit.select import filtered_blobs, most_informative

    options, spots = settings.fit, settings.harvest.collectSpots
    auto = spots == "auto"
    if spots is None and settings.harvest.file_maxima is not None:
        spots = tuple(accepted_reflections(read_maxima(settings.harvest.file_maxima)))
    listed = None if auto or isinstance(spots, str) else spots
    blobs = chosen_blobs(harvest, listed, group if options.REPLICA else None)
    left_out: dict[str, str] = {}
    if options.spot_filter:
        blobs, left_out = filtered_blobs(harvest, blobs, quality, options.spot_filter)
    if auto and len(np.unique(harvest.hkl[blobs], axis=0)) > settings.harvest.n_spots:
        blobs = most_informative(fitted(blobs), settings.harvest.n_spots)
    return blobs, left_out


def _compare_settings(settings: Settings, harvested: Mapping[str, object]) -> None:
    """Warn where the par-files ask for another harvest than the one that is reused; files may have moved.

    Which reflections there are is no matter of values: a fit takes those that it wants of what was harvested.
    """
    from tds2el.settings import CELL, Experiment, HarvestSettings

    names = [field.name for group in (Experiment, HarvestSettings) for field in fields(group)]
    changed = [
        name
        for name in (*names, *CELL, "centring")
        if name not in ("collectSpots", "n_spots", "file_maxima", "centering_file")
        and name in settings.given
        and name in harvested
        and settings.values[name] != harvested[name]
    ]
    # Masks, monitors and the like may have moved too, but with one and without are different harvests.
    changed += [
        name
        for name in ("filter_file", "filter_ranges", "normalisation_file", "background_prefix", "centering_file")
        if name in settings.given and (settings.values[name] is None) != (harvested.get(name) is None)
    ]
    if "REPLICA_COLLECTION" in changed and not settings.harvest.REPLICA_COLLECTION:
        changed.remove("REPLICA_COLLECTION")  # more than enough was harvested
    if changed:
        log.warning(
            "the harvest was made with other values of %s than the par-files give; its own are used: harvest again "
            "to change them",
            ", ".join(changed),
        )
