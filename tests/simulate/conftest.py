"""A small scan of calcite."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def scan_file(tmp_path: Path) -> Path:
    """scan.par of the small scan; it writes into tmp_path/scan."""
    path = tmp_path / "scan.par"
    shutil.copy(Path(__file__).with_name("small.par"), path)
    return path
