"""Messages reach the screen of rank 0 and the log file, each where it belongs."""

import logging
import re
import sys

import pytest
from tqdm import tqdm

from tds2el.errors import InputError
from tds2el.log import configure

logger = logging.getLogger("tds2el")


@pytest.fixture(autouse=True)
def _silent_afterwards():
    yield
    configure(rank=1)


def test_information_goes_to_stdout_and_warnings_once_to_stderr(capsys):
    configure(rank=0)
    logger.info("direct beam at row 512.25\ncolumn 498.50")
    for _ in range(3):
        logger.warning("the cell misses the symmetry by %s", "0.02°")
    logger.debug("deviance 12.5")
    out, err = capsys.readouterr()
    assert out == "direct beam at row 512.25\ncolumn 498.50\n"
    assert err == "tds2el: warning: the cell misses the symmetry by 0.02°\n"


def test_other_ranks_are_silent(capsys, tmp_path):
    configure(rank=1, log_file=tmp_path / "tds2el.log")
    logger.warning("seen on every rank")
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_the_log_file_has_everything_with_times_and_grows(tmp_path, capsys):
    path = tmp_path / "tds2el.log"
    for run in ("harvest", "fit"):
        configure(rank=0, log_file=path)
        logger.info("this is the %s", run)
        logger.debug("deviance 12.5")
        logger.warning("mind the gap")
    lines = path.read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (INFO   |DEBUG  |WARNING) ", line) for line in lines)
    assert [line[28:] for line in lines if "tds2el 0." not in line] == [
        *("this is the harvest", "deviance 12.5", "mind the gap"),
        *("this is the fit", "deviance 12.5", "mind the gap"),
    ]
    assert lines[0][28:].startswith("tds2el 0.")
    assert "deviance" not in "".join(capsys.readouterr())


def test_a_message_does_not_run_into_a_progress_bar(capsys):
    configure(rank=0)
    with tqdm(total=10, file=sys.stderr, disable=False) as bar:
        bar.update(3)
        logger.warning("a frame is missing")
    shown = capsys.readouterr().err
    line = next(line for line in shown.split("\n") if "a frame is missing" in line)
    assert line.split("\r")[-1] == "tds2el: warning: a frame is missing"


def test_a_log_that_cannot_be_written_is_a_clear_error(tmp_path):
    with pytest.raises(InputError, match=r"output_folder: .*tds2el\.log cannot be written \(No such file"):
        configure(rank=0, log_file=tmp_path / "nowhere" / "tds2el.log")


def test_the_screen_shows_less_or_more_as_asked(capsys, tmp_path):
    path = tmp_path / "tds2el.log"
    for level in (logging.WARNING, logging.DEBUG):
        configure(rank=0, log_file=path, level=level)
        logger.debug("deviance 12.5")
        logger.info("results in parametri.txt")
        logger.warning("mind the gap")
        out, err = capsys.readouterr()
        assert out.splitlines() == (["deviance 12.5", "results in parametri.txt"] if level == logging.DEBUG else [])
        assert err == "tds2el: warning: mind the gap\n"
    assert path.read_text().count("deviance 12.5") == 2
