"""Collect the options a user gave, from input.par, from the conf_file that it names and from ``--set``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tds2el.errors import InputError
from tds2el.kinds import Option, short
from tds2el.options import BY_NAME, nearest_option
from tds2el.parfile import evaluate_expression, read_parfile


@dataclass(frozen=True)
class Given:
    """The value that one place gives to an option, as evaluated; paths in it are relative to `folder`."""

    option: Option
    value: object
    where: str
    folder: Path

    def resolved(self) -> object:
        """The value as the program uses it; `InputError` if it is not of the option's kind."""
        return self.option.resolve(self.value, self.where, self.folder)


@dataclass(frozen=True)
class Sources:
    """Everything the user gave: one place per option, the winning one."""

    given: dict[str, Given]
    input_file: Path
    conf_file: Path
    warnings: tuple[str, ...]


def read_sources(
    input_file: str | Path, overrides: Sequence[str] = (), *, needs_conf_file: bool = True, sweep: int = 0
) -> Sources:
    """Read both par-files and the overrides and settle what stands for each option.

    Parameters
    ----------
    input_file
        The par-file that names the other one with conf_file.
    overrides
        ``NAME=VALUE`` strings, which win over both files.
    needs_conf_file
        Otherwise everything may stand in the one file.
    sweep
        Which of sweeps is the conf_file, where that is given.

    Raises
    ------
    InputError
        For names that are no options, for contradictions, and for files that cannot be read or evaluated.
    """
    warnings: list[str] = []
    chosen = _read_overrides(overrides, warnings)
    input_file = Path(input_file)
    files = [_read_options(input_file, str(input_file))]
    naming = chosen.get("conf_file") or _last(files[0], "conf_file")
    sweeps = chosen.get("sweeps") or _last(files[0], "sweeps")
    conf_file = Path(os.path.abspath(input_file))
    if sweeps is not None and isinstance(paths := sweeps.resolved(), tuple):
        if naming is not None:
            raise InputError(
                f"{sweeps.where}: sweeps name a conf_file each, but {naming.where} names one too; keep one of them"
            )
        conf_file = Path(str(paths[sweep]))
        if not conf_file.is_file():
            raise InputError(f"{sweeps.where}: sweeps: there is no file {conf_file}")
    elif naming is not None:
        conf_file = Path(str(naming.resolved()))
        if not conf_file.is_file():
            raise InputError(f"{naming.where}: conf_file = {short(naming.value)}: there is no file {conf_file}")
    elif needs_conf_file:
        raise InputError(f"{input_file}: conf_file is missing: name the file with the experiment's options")
    if conf_file != Path(os.path.abspath(input_file)):
        files.append(_read_options(conf_file, _shown(conf_file)))
        if "sweeps" in files[1]:
            raise InputError(
                f"{files[1]['sweeps'][0].where}: sweeps belong into the input file, {input_file}; move them there"
            )

    _prefer_collect_spots(chosen, files, warnings)
    given: dict[str, Given] = {}
    for options in files:
        for name, places in options.items():
            if name in chosen:
                continue
            if len(places) > 1:
                _report_repetition(places, "images_postfix" in {*chosen, *files[0], *files[-1]}, warnings)
            _refuse_contradiction(given.setdefault(name, places[-1]), places[-1])
    return Sources(given | chosen, Path(os.path.abspath(input_file)), conf_file, tuple(warnings))


def _shown(path: Path) -> str:
    """The path as a user in the current folder would write it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _last(options: dict[str, list[Given]], name: str) -> Given | None:
    return options[name][-1] if name in options else None


def _read_options(path: Path, shown: str) -> dict[str, list[Given]]:
    """The options that a par-file assigns, each with every place that does; helpers are left out."""
    parfile = read_parfile(path, shown)
    options: dict[str, list[Given]] = {}
    for assignment in parfile.assignments:
        option = BY_NAME.get(assignment.name)
        if option is not None:
            place = Given(option, assignment.value, assignment.where, path.parent)
            options.setdefault(option.name, []).append(place)
        elif not parfile.is_helper(assignment.name):
            raise InputError(
                f"{assignment.where}: '{assignment.name}' is no option, and no later line reads it; "
                f"{nearest_option(assignment.name)}"
            )
    return options


def _read_overrides(overrides: Sequence[str], warnings: list[str]) -> dict[str, Given]:
    chosen: dict[str, Given] = {}
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise InputError(f"--set {override}: write --set NAME=VALUE")
        option = BY_NAME.get(name.strip())
        if option is None:
            raise InputError(f"--set {override}: '{name.strip()}' is no option; {nearest_option(name.strip())}")
        if option.name in chosen:
            warnings.append(f"--set gives {option.name} more than once; the last, {text}, is used")
        chosen[option.name] = Given(option, _override_value(option, text), "--set", Path.cwd())
    return chosen


def _override_value(option: Option, text: str) -> object:
    """The text as an expression of the subset if that suits the option, else as a bare string."""
    try:
        value = evaluate_expression(text, "--set")
    except InputError:
        return text
    for candidate in (value, text):  # a file may be called 2026, a point group 222
        try:
            option.kind.convert(candidate)
        except ValueError:
            continue
        return candidate
    return value


def _report_repetition(places: list[Given], postfix_given: bool, warnings: list[str]) -> None:
    first, last = places[-2], places[-1]
    if last.option.name == "images_prefix" and not postfix_given:
        raise InputError(
            f"{last.where}: images_prefix is assigned again (before at {first.where}) and images_postfix "
            "nowhere; one of the two is probably meant to be images_postfix"
        )
    warnings.append(
        f"{last.where}: {last.option.name} is assigned again (before at {first.where}); "
        f"the last value, {short(last.value)}, is used"
    )


def _refuse_contradiction(first: Given, second: Given) -> None:
    if first is not second and first.resolved() != second.resolved():
        raise InputError(
            f"{first.where}: {first.option.name} = {short(first.value)}, but {second.where} says "
            f"{short(second.value)}; keep one of them"
        )


def _prefer_collect_spots(chosen: dict[str, Given], files: list[dict[str, list[Given]]], warnings: list[str]) -> None:
    """Drop file_maxima where collectSpots is given too, and say so."""
    everything = [chosen, *({name: places[-1] for name, places in options.items()} for options in files)]
    spots = [source["collectSpots"] for source in everything if "collectSpots" in source]
    if not spots or spots[0].value is None:
        return
    maxima = [source["file_maxima"] for source in everything if "file_maxima" in source]
    if maxima and maxima[0].value:
        warnings.append(f"{maxima[0].where}: file_maxima is not used: collectSpots is given at {spots[0].where}")
    chosen.pop("file_maxima", None)
    for options in files:
        options.pop("file_maxima", None)
