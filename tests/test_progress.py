"""Stages of a long run: a bar on a terminal only, lines in the log file else."""

import io
import logging
import sys

import pytest

from tds2el import progress
from tds2el.progress import Stage


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def _bars_at_once(monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0.0)
    yield
    progress.show_bars(False)


def shown_of_a_stage(monkeypatch, stream):
    # Here and not in a fixture: pytest sets standard error anew before it calls a test.
    monkeypatch.setattr(sys, "stderr", stream)
    with Stage("harvest", 10, "frame") as stage:
        stage.update(4, "beam lost")
        stage._bar.refresh()
    return stream.getvalue()


def test_a_bar_shows_stage_progress_rate_and_time_left(monkeypatch):
    progress.show_bars(True)
    shown = shown_of_a_stage(monkeypatch, Terminal())
    for part in ("harvest:", "40%", "4/10", " frame/s", "<00:0", "beam lost"):
        assert part in shown


def test_no_bar_unless_asked_for(monkeypatch):
    assert shown_of_a_stage(monkeypatch, Terminal()) == ""


def test_no_bar_where_standard_error_is_no_terminal(monkeypatch):
    progress.show_bars(True)
    assert shown_of_a_stage(monkeypatch, io.StringIO()) == ""


def test_the_log_file_is_told_now_and_then_and_at_the_end(monkeypatch, caplog):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    caplog.set_level(logging.DEBUG, "tds2el")
    with Stage("load points", 2_000_000, "point") as stage:
        stage.update(500_000)
    with Stage("fit", None, "pass") as stage:
        stage.update(1, "deviance 12.5")
    loaded, loaded_all, fitted, fitted_all = caplog.messages
    assert loaded.startswith("load points: 500k of 2.00M, ")
    assert loaded.endswith(" left")
    assert " point/s, 00:0" in loaded
    assert loaded_all.startswith("load points: 500000 points in 0.")
    assert fitted.startswith("fit: 1, ")
    assert fitted.endswith(", deviance 12.5")
    assert fitted_all.startswith("fit: 1 passes in 0.")


def test_a_stage_that_failed_is_not_told_as_done(caplog):
    caplog.set_level(logging.DEBUG, "tds2el")
    with pytest.raises(ZeroDivisionError), Stage("harvest", 10, "frame"):
        raise ZeroDivisionError
    assert caplog.messages == []
