"""Makes docs/tutorial.md and its pictures out of tutorial.md.in, by doing what that page tells its reader to do.

A block of code in the template is written to a file (``file NAME``), added to it (``add NAME``), or run (``run``): then
its first line is the command, and others are regular expressions of the lines of output to show, or of the first and
the last of them (``FIRST ... LAST``). A block ``truth`` becomes the constants found beside the true ones. A picture is
``![text](images/NAME.png from FILE)``.

    python docs/tutorial.py                 the page
    python docs/tutorial.py FOLDER          the page, and the folder with all files is left for a look
    python docs/tutorial.py FOLDER --small  the same steps on a scan of fewer and smaller frames; no page

It ends with an error if a command fails, or if a constant is more than three standard deviations off.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import tds2el
from tds2el.parallel import environment_without_launcher

DOCS = Path(__file__).parent
TEMPLATE, PAGE = DOCS / "tutorial.md.in", DOCS / "tutorial.md"
BLOCK = re.compile(r"^```(file|add|run|truth)(?: (\S+))?\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
PICTURE = re.compile(r"!\[(.*?)\]\((images/\S+) from (\S+)\)")
PACKAGES = str(Path(tds2el.__file__).parents[1])
"""Where this process has the package from; the commands are to run the same one, from whatever folder."""
SIGMAS = 3.0
LARGEST = (900, 1200)
"""Width and height of a picture on the page, pixels."""

SMALL = {
    "scan.par": {
        "pixel_size": 0.258,
        "det_origin_X": 206.0,
        "det_origin_Y": 162.0,
        "phi": 0.1,
        "angular_step": 0.2,
        "shape": [413, 325],
        "gap_rows": [[130, 141], [271, 282]],
        "n_frames": 240,
        "count_level": 20.0,
        "peak_width": 0.0037,
        "DeltaQ_min": 0.1,
        "DeltaQ_max": 0.18,
    },
    "experiment.par": {
        "pixel_size": 0.258,
        "det_origin_X": 208.0,
        "det_origin_Y": 160.0,
        "phi": 0.1,
        "angular_step": 0.2,
    },
    "input.par": {"DeltaQ_min": 0.1, "DeltaQ_max": 0.18},
}
"""Values of options by file, for a scan of fewer and smaller frames."""


class Tutorial:
    """The steps of the template, done in a folder."""

    def __init__(self, folder: Path, values: dict[str, dict[str, object]] | None = None) -> None:
        self.folder = folder
        self.values = values or {}

    def page(self) -> str:
        """Do all steps in their order; the page with what came out of them."""
        return BLOCK.sub(lambda block: getattr(self, f"_{block[1]}")(*block.groups()[1:]), TEMPLATE.read_text("utf-8"))

    def _file(self, name: str, text: str) -> str:
        return self._write(name, text, "w")

    def _add(self, name: str, text: str) -> str:
        return self._write(name, text, "a")

    def _write(self, name: str, text: str, mode: str) -> str:
        for option, value in self.values.get(name, {}).items():
            text = re.sub(rf"^{option} = [^#\n]*", f"{option} = {value!r}", text, flags=re.MULTILINE)
        with (self.folder / name).open(mode, encoding="utf-8") as file:
            file.write(text)
        return f"```python\n{f'# {name}' if mode == 'w' else f'# more lines of {name}'}\n{text}```\n"

    def _run(self, _: None, text: str) -> str:
        command, *shown = text.splitlines()
        return f"```console\n$ {command}\n{select(self._output(command), shown)}```\n"

    def _output(self, command: str) -> str:
        """What a command prints, without the place of the folder."""
        program, *arguments = shlex.split(command)
        if program == "cat":
            return "".join((self.folder / name).read_text("utf-8") for name in arguments)
        assert program == "tds2el", command
        print(f"$ {command}", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", program, *arguments],
            cwd=self.folder,
            env=environment_without_launcher() | {"PYTHONPATH": PACKAGES, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{done.stdout}$ {command}\nended with exit code {done.returncode}")
        return done.stdout.replace(str(self.folder.resolve()), "…")

    def _truth(self, _: None, __: str) -> str:
        """A table of constants; an error if it does not agree with the truth."""
        from tds2el.fit.read import read_fit_file

        true = json.loads((self.folder / "beamline" / "truth.json").read_text("utf-8"))["constants_GPa"]
        fit = read_fit_file(self.folder / "tds2el_fit.h5")
        if fit.warnings:
            raise SystemExit(f"the fit warns, of which the page says nothing: {fit.warnings}")
        found = fit.constants
        lines, off = ["GPa     found      true  (found - true)/sigma"], []
        for name, value, sigma in zip(found.names, found.value, found.sigma, strict=True):
            pull = (value - true[name]) / sigma if sigma > 0 else 0.0
            pulls = f"{pull:20.2f}" if sigma > 0 else f"{'frozen':>20}"
            lines.append(f"{name} {value:9.2f} {true[name]:9.2f}  {pulls}")
            if not abs(pull) <= SIGMAS:
                off.append(name)
        table = "\n".join(lines)
        print(table)
        if off:
            raise SystemExit(f"more than {SIGMAS:g} sigma off: {', '.join(off)}")
        return f"```text\n{table}\n```\n"


def select(output: str, patterns: list[str]) -> str:
    """The lines of an output that patterns ask for, all if there are none, with … for those left out between.

    Raises
    ------
    SystemExit
        If a pattern fits no line: the page would not show what its text speaks of.
    """
    lines = output.splitlines()
    shown = set(range(len(lines))) if not patterns else set()
    for pattern in patterns:
        first, _, last = pattern.partition(" ... ")
        begin = next((at for at, line in enumerate(lines) if re.search(first, line)), None)
        if begin is None:
            raise SystemExit(f"no line of the output has {first!r}:\n{output}")
        end = next((at for at in range(begin, len(lines)) if re.search(last, lines[at])), begin) if last else begin
        shown |= set(range(begin, end + 1))
    return "".join(f"{line}\n" for line in _with_gaps(lines, shown))


def _with_gaps(lines: list[str], shown: set[int]) -> Iterator[str]:
    before = -1
    for at in sorted(shown):
        if at > before + 1:
            yield "…"
        yield lines[at]
        before = at
    if before < len(lines) - 1:
        yield "…"


def save_pictures(folder: Path) -> None:
    """The pictures of the page, small enough to be kept beside it."""
    from PIL import Image

    for _, name, source in PICTURE.findall(TEMPLATE.read_text("utf-8")):
        with Image.open(folder / source) as picture:
            small = picture.convert("RGB")
            small.thumbnail(LARGEST, Image.Resampling.LANCZOS)
        (DOCS / name).parent.mkdir(exist_ok=True)
        few = small.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        few.save(DOCS / name, optimize=True)


def without_outputs(text: str) -> str:
    """A page, or its template, without what differs between the two."""
    text = PICTURE.sub(r"![\1](\2)", text)
    text = re.sub(r"^```truth\n|^```text\n.*?^(?=```$)", "```truth\n", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^```run\n(.*)\n[^`]*^```$", r"$ \1", text, flags=re.MULTILINE)
    text = re.sub(r"^```console\n(\$ [^\n]*)\n.*?^```$", r"\1", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^```file (\S+)\n", r"```python\n# \1\n", text, flags=re.MULTILINE)
    return re.sub(r"^```add (\S+)\n", r"```python\n# more lines of \1\n", text, flags=re.MULTILINE)


def main() -> None:
    """Make the page, or go through it on a small scan."""
    parser = argparse.ArgumentParser(description="make docs/tutorial.md, or go through it on a small scan")
    parser.add_argument("folder", type=Path, nargs="?", help="a new folder to work in (default: one that is removed)")
    parser.add_argument("--small", action="store_true", help="on a scan of fewer and smaller frames; no page is made")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary) / "tutorial"
        folder.mkdir(parents=True)
        text = Tutorial(folder, SMALL if arguments.small else None).page()
        if arguments.small:
            return
        save_pictures(folder)
    PAGE.write_text(PICTURE.sub(r"![\1](\2)", text), encoding="utf-8")


if __name__ == "__main__":
    main()
