"""Numbers in the headers of frames: keywords, counters, datasets."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from fabio.cbfimage import CbfImage
from fabio.edfimage import EdfImage

from tds2el.errors import InputError
from tds2el.experiment.header_values import HeaderValues
from tds2el.normalise.from_headers import monitor

IMAGE = np.ones((4, 6), dtype=np.int32)


def write_cbf(path: Path, *lines: str) -> str:
    contents = "\r\n".join(f"# {line}" for line in lines)
    CbfImage(data=IMAGE, header={"_array_data.header_contents": contents}).write(str(path))
    return str(path)


def cbfs(folder: Path, *headers: tuple[str, ...]) -> HeaderValues:
    files = [write_cbf(folder / f"f_{n}.cbf", *lines) for n, lines in enumerate(headers)]
    return HeaderValues(files, [1] * len(files))


def write_edf(path: Path, **header: str) -> str:
    EdfImage(data=IMAGE, header=header).write(str(path))
    return str(path)


def test_keywords_of_cbfs(tmp_path: Path) -> None:
    headers = cbfs(tmp_path, ("Exposure_time 0.5 s", "Flux 361109 counts"), ("Exposure_time 0.25 s", "Flux: 3.5e5"))
    np.testing.assert_array_equal(headers.values("Flux"), [361109, 3.5e5])
    np.testing.assert_array_equal(headers.values("Exposure_time"), [0.5, 0.25])
    assert headers.values("lux") is None  # the end of a keyword is none
    assert headers.values("Exposure") is None


def test_a_keyword_that_a_later_frame_lacks(tmp_path: Path) -> None:
    headers = cbfs(tmp_path, ("Exposure_time 1 s", "Flux 1 counts"), ("Exposure_time 1 s", "Fluxes 1 counts"))
    with pytest.raises(InputError, match=r"f_1\.cbf: no Flux in its header, which other frames have"):
        headers.values("Flux")


def test_counters_of_edf_files(tmp_path: Path) -> None:
    files = [
        write_edf(
            tmp_path / f"f_{n}.edf", counter_mne="srcur mon det", counter_pos=f"200.1 {1000 + n} 7", time_of=f"{n}.5"
        )
        for n in range(3)
    ]
    headers = HeaderValues(files, [1, 1, 1])
    np.testing.assert_array_equal(headers.values("mon"), [1000, 1001, 1002])
    np.testing.assert_array_equal(headers.values("det"), [7, 7, 7])
    np.testing.assert_array_equal(headers.values("time_of"), [0.5, 1.5, 2.5])
    assert headers.values("mo") is None


def test_frames_of_an_edf_stack(tmp_path: Path) -> None:
    stack = EdfImage(data=IMAGE, header={"mon": "5"})
    for value in ("6", "7"):
        stack.append_frame(data=IMAGE, header={"mon": value})
    stack.write(str(tmp_path / "stack.edf"))
    headers = HeaderValues([str(tmp_path / "stack.edf")], [3])
    np.testing.assert_array_equal(headers.values("mon"), [5, 6, 7])


def test_datasets_of_hdf5_files(tmp_path: Path) -> None:
    path = tmp_path / "scan_master.h5"
    with h5py.File(path, "w") as file:
        file["entry/data/data_000001"] = np.ones((3, 4, 6), dtype=np.uint32)
        file["entry/control/data"] = np.array([10, 11, 12])
        file["entry/exposure"] = 0.1
        file["entry/title"] = "calcite"
        file["entry/two"] = [1.0, 2.0]
    headers = HeaderValues([str(path)], [3])
    np.testing.assert_array_equal(headers.values("entry/control/data"), [10, 11, 12])
    np.testing.assert_array_equal(headers.values("entry/exposure"), [0.1, 0.1, 0.1])
    assert headers.values("entry/title") is None
    assert headers.values("entry/absent") is None
    with pytest.raises(InputError, match=r"scan_master\.h5: entry/two has 2 values, but there are 3 frames"):
        headers.values("entry/two")
    values, source = monitor(headers, ["a", "b", "c"], None)
    np.testing.assert_array_equal(values, [10, 11, 12])
    assert source == "entry/control/data of the headers"


def scan(
    folder: Path, flux: list[float], exposure: list[float], transmission: list[float]
) -> tuple[HeaderValues, list[str]]:
    headers = cbfs(
        folder,
        *(
            (f"Exposure_time {e} s", f"Flux {f} counts", f"Filter_transmission {t}")
            for f, e, t in zip(flux, exposure, transmission, strict=True)
        ),
    )
    return headers, headers.files


def test_exposure_and_transmission_that_the_monitor_does_not_see(tmp_path: Path) -> None:
    exposure, transmission = [0.1, 0.1, 0.2, 0.2, 0.1], [100.0, 10.0, 10.0, 100.0, 100.0]
    flux = [1000.0, 1010.0, 1005.0, 990.0, 1000.0]
    values, source = monitor(*scan(tmp_path, flux, exposure, transmission), None)
    expected = np.multiply(flux, np.multiply(exposure, transmission))
    np.testing.assert_allclose(values / values[0], expected / expected[0], rtol=1e-12)
    assert source == "Flux of the headers × exposure (Exposure_time) × transmission (Filter_transmission)"


def test_a_monitor_that_integrates_behind_the_filter(tmp_path: Path) -> None:
    exposure, transmission = [0.1, 0.1, 0.2, 0.2, 0.1], [100.0, 10.0, 10.0, 100.0, 100.0]
    flux = np.multiply(exposure, transmission) * [1.0, 1.02, 0.99, 1.0, 1.01] * 500
    values, source = monitor(*scan(tmp_path, flux.tolist(), exposure, transmission), "Flux")
    np.testing.assert_allclose(values, flux)
    assert "changes with the exposure, Exposure_time, by itself" in source
    assert "×" not in source


@pytest.mark.parametrize(
    ("flux", "message"),
    [
        (
            [1.0, 0.0, 2.0],
            r"f_1\.cbf: Flux = 0 in its header \(1 of 3 frames are like this\), but a monitor counts more",
        ),
        ([5.0, 5.0, 5.0], r"f_0\.cbf: Flux = 5 in its header as in those of all 3 frames, so it is no reading"),
        ([-1.0, 2.0, 3.0], r"f_0\.cbf: Flux = -1 in its header"),
    ],
)
def test_no_readings_of_a_monitor(tmp_path: Path, flux: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        monitor(*scan(tmp_path, flux, [0.1] * 3, [1.0] * 3), None)


def test_no_monitor_at_all(tmp_path: Path) -> None:
    headers = cbfs(tmp_path, ("Exposure_time 0.5 s",))
    with pytest.raises(InputError, match=r"f_0\.cbf: no Flux, mon, monitor, Monitor in its header; name .* header_key"):
        monitor(headers, headers.files, None)
    with pytest.raises(InputError, match=r"f_0\.cbf: no Ion_chamber in its header"):
        monitor(headers, headers.files, "Ion_chamber")
