"""Motion data: [T, 6] float32, accelerometer in m/s² and gyroscope in rad/s."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onellm.modalities.base import Coverage, Modality, Preview, Sample, megabytes, refuse
from onellm.modalities.plots import COLOURS, spread, style, veil
from onellm.modalities.readers.archives import open_zip
from onellm.modalities.readers.arrays import pick, read_arrays
from onellm.modalities.readers.motion import ADVICE, Recording, Stream, read_tables, still_level, time_factor
from onellm.modalities.readers.titles import parse_title, sensor_of
from onellm.utils.limits import LIMITS

if TYPE_CHECKING:
    import torch

GRAVITY = 9.80665  # m/s² in one g
DEFAULT_RATE_HZ = 50.0
_DECODED_BYTES = LIMITS.imu_rows * 8 * 80  # with what else there may be in a file
_FACTORS = {
    "m/s2": 1.0, "g": GRAVITY, "mg": GRAVITY / 1000,
    "rad/s": 1.0, "deg/s": np.pi / 180, "mdeg/s": np.pi / 180_000,
}  # fmt: skip
# counts a g of common sensors, and counts a degree a second of the range that goes with it
_COUNTS = {16384: 131.0, 8192: 65.5, 4096: 32.8, 2048: 16.4, 256: 14.375}
_PATCHES = 1.6  # steps of time: a longer one is a gap


class Imu(Modality):
    """Accelerometer and gyroscope recordings.

    Canonical array: [T, 6] float32: accelerometer x, y, z in m/s² (gravity included where the sensor has it),
    gyroscope x, y, z in rad/s.

    A table of text has a header that names the columns, such as ``time_ms, acc_x_g, acc_y_g, acc_z_g, gyr_x_deg,
    gyr_y_deg, gyr_z_deg`` or ``t, ax [m/s^2], …, gz [rad/s]``, in the words of many apps; or no header and 6 columns
    in the order above, or 7 with time first. A zip archive holds a table a sensor, as phone apps export. An npy file
    is [T, 6], [6, T], [T, 7] or [7, T]; an npz file has acc and gyro [T, 3] and may have rate_hz, or one such array.
    Acceleration without gravity and gravity are added where both are there. Units come from the options, then from
    the header, then from the size of gravity and from how turning moves it; the rate from the times, then from the
    option, then 50 Hz. Whatever is guessed stands in the notes.
    """

    name = "imu"
    title = "IMU"
    icon = "🧭"
    libraries = ()
    suffixes = (".csv", ".txt", ".tsv", ".zip", ".gcsv", ".csv.gz", ".npy", ".npz")
    layout = ("[T, 6], m/s² and rad/s", 2, 6)
    unit = "acceleration in m/s², turning rate in rad/s"
    expects = (
        "motion data (csv, txt, zip, npy or npz) with 3 accelerometer and 3 gyroscope columns, "
        f"up to {megabytes(LIMITS.imu_bytes)}"
    )

    def read(
        self,
        path: Path,
        rate_hz: float | None = None,
        acc_unit: str | None = None,
        gyro_unit: str | None = None,
    ) -> Sample:
        """Read a recording.

        Args:
            path: the file.
            rate_hz: rows a second, for files without times.
            acc_unit: "m/s2" or "g", whatever the file says.
            gyro_unit: "rad/s" or "deg/s", whatever the file says.

        Returns:
            A sample whose array is [T, 6] float32 and whose rate_hz is the recording's.
        """
        for option, value, valid in (
            ("acc_unit", acc_unit, ("m/s2", "g")),
            ("gyro_unit", gyro_unit, ("rad/s", "deg/s")),
        ):
            if value is not None and value not in valid:
                raise refuse(path, f"the option {option} is {value!r}", " or ".join(valid), "correct the option")
        if rate_hz is not None and not 0.1 <= float(rate_hz) <= 100_000:
            raise refuse(path, f"the option rate_hz is {rate_hz!r}", "0.1 to 100,000", "correct the option")
        recording = self._read_numpy(path) if _is_numpy(path) else read_tables(path, self.expects)
        notes = recording.notes
        acc, gyro = self._choose(path, recording)
        values, times_s = _join(path, acc, gyro, notes)
        if len(values) > LIMITS.imu_rows:
            raise refuse(path, f"{len(values):,} rows", f"at most {LIMITS.imu_rows:,}", "cut the recording")
        values = self.clean(path, values, notes)
        if times_s is not None:
            values, times_s = _in_order(values, times_s, notes)
        rate_hint = (recording.rate_hz or rate_hz or DEFAULT_RATE_HZ) if times_s is None else _mean_rate(times_s)
        acc_factor, counts = _acc_factor(values[:, :3], acc_unit or acc.unit, acc.sensor == "linear", notes)
        values[:, :3] *= acc_factor
        _check_gravity(values[:, :3], acc, acc_unit, notes)
        if gyro is None:
            notes.append("there is no gyroscope in it: the turning rates were set to 0")
        else:
            values[:, 3:] *= _gyro_factor(values, rate_hint, gyro_unit or gyro.unit, counts, notes)
        if times_s is not None:
            values, rate_hz = self._even(path, values, times_s, notes)
        elif rate_hz is None:
            rate_hz = recording.rate_hz
        if rate_hz is None:
            rate_hz = DEFAULT_RATE_HZ
            notes.append(
                f"the file does not say its rate: {DEFAULT_RATE_HZ:g} Hz was assumed; the option rate_hz sets it"
            )
        rate_hz = float(rate_hz)
        summary = f"{len(values) / rate_hz:.1f} s, {len(values):,} rows at {rate_hz:.4g} Hz"
        return Sample(self.name, path.name, values.astype(np.float32), summary, rate_hz, notes=notes)

    def _choose(self, path: Path, recording: Recording) -> tuple[Stream, Stream | None]:
        """Choose the accelerometer, with gravity where it can be had, and the gyroscope or None."""
        notes = recording.notes
        found = {sensor: [s for s in recording.streams if s.sensor == sensor] for sensor in _SENSORS}
        bare = found["bare"]
        if bare and not found["acc"] and not found["linear"]:
            _name_bare(bare, found, notes)
        gyros = sorted(found["gyro"], key=lambda stream: "uncal" in stream.name.lower())
        accs = sorted(found["acc"], key=lambda s: ("uncal" in s.name.lower(), "total" not in s.name.lower()))
        if recording.missing or not (accs or found["linear"]):
            missing = recording.missing if recording.missing else "acc_x"
            names = ", ".join(recording.titles) or "without names"
            names = names if len(names) <= 100 else names[:99] + "…"
            raise refuse(path, f"columns {names} (no {missing})", self.expects, ADVICE)
        for sensor, streams in (("accelerometers", accs), ("gyroscopes", gyros)):
            if len(streams) > 1:
                notes.append(f"there are {len(streams)} {sensor} in it: {streams[0].name[:40]} was taken")
        acc = accs[0] if accs else found["linear"][0]
        gravity = next(iter(found["gravity"]), None)
        if gravity is not None and (acc.sensor == "linear" or not _has_gravity(acc, gravity)):
            acc = _add_gravity(acc, gravity, notes)
        return acc, gyros[0] if gyros else None

    def _read_numpy(self, path: Path) -> Recording:
        """Return the sensors of an npy or npz file."""
        arrays = read_arrays(path, _DECODED_BYTES, self.expects)
        rate = pick(arrays, "rate_hz", "rate", "fs", "sampling_rate", "sample_rate", "freq")
        rate_hz = float(rate.reshape(-1)[0]) if rate is not None and rate.size == 1 else None
        if rate_hz is not None and not 0.1 <= rate_hz <= 100_000:
            raise refuse(path, f"a rate of {rate_hz:g} Hz", "0.1 to 100,000 Hz", "correct rate_hz")
        recording = Recording(_array_streams(arrays), rate_hz, titles=list(arrays))
        if {"acc", "linear"} & {stream.sensor for stream in recording.streams}:
            shapes = [len(stream.values) for stream in recording.streams if stream.sensor in ("acc", "gyro")]
            if len(set(shapes)) > 1 and any(stream.times_s is None for stream in recording.streams):
                found = f"acc and gyro of {' and '.join(map(str, shapes))} rows"
                raise refuse(path, found, "both [T, 3]", "save them with equal lengths")
            return recording
        array = pick(arrays, "", "imu", "array", "data", "values", "x", "arr_0")
        if array is None and len(arrays) == 1:
            array = next(iter(arrays.values()))
        if array is None:
            names = ", ".join(arrays)[:100]
            raise refuse(path, f"arrays called {names}", "acc and gyro, or one array", "rename them")
        table = _rows(array, (6, 7))
        if table is None:
            found = f"an array of shape {list(array.shape)}"
            raise refuse(path, found, "[T, 6]: accelerometer, then gyroscope", "save it in this order")
        table = table.astype(np.float64)
        times = table[:, 0] if table.shape[1] == 7 else _array_times(arrays, len(table))
        times_s = None if times is None else times * time_factor(times, None)
        recording.streams = [
            Stream("bare", "", part, times_s, weak=True) for part in np.split(table[:, -6:], 2, axis=1)
        ]
        return recording

    def from_memory(self, value: Any, rate_hz: float | None = None) -> Sample:
        """Turn rows [T, 6] into a sample; `rate_hz` rows a second, 50 by default."""
        return super().from_memory(value, rate_hz=rate_hz or DEFAULT_RATE_HZ)

    def clean(self, path: Path, values: np.ndarray, notes: list[str]) -> np.ndarray:
        """Fill single values that are not numbers from their neighbours; refuse where most are missing."""
        good = np.isfinite(values)
        if len(values) < 2 or good.all(axis=1).sum() < max(2, len(values) / 2):
            found = f"{len(values):,} rows, {int(good.all(axis=1).sum()):,} of them complete"
            raise refuse(path, found, "at least 2 rows of numbers, most of them complete", "save the recording again")
        if not good.all():
            rows = np.arange(len(values))
            for column in range(6):
                keep = good[:, column]
                values[:, column] = np.interp(rows, rows[keep], values[keep, column])
            notes.append(f"{int((~good).any(axis=1).sum()):,} incomplete rows were filled from their neighbours")
        if np.abs(values).max() > 1e6:
            found = f"values up to {np.abs(values).max():.3g}"
            raise refuse(path, found, "accelerations and turning rates", "check the columns")
        return values

    def _even(self, path: Path, values: np.ndarray, times_s: np.ndarray, notes: list[str]) -> tuple[np.ndarray, float]:
        """Bring rows with times to even spacing at their usual rate."""
        steps = np.diff(times_s)
        if not np.isfinite(times_s).all() or (steps < 0).any() or not (steps > 0).any():
            raise refuse(path, "times that do not rise", "a time column that rises", "sort the rows by time")
        step = float(np.median(steps[steps > 0]))
        usual = steps[(steps > 0.3 * step) & (steps < _PATCHES * step)]
        coarse = bool((steps == 0).mean() > 0.3)
        if coarse:  # times of whole seconds, say
            distinct, counts = np.unique(times_s, return_counts=True)
            if len(distinct) > 2:  # the first and the last are not whole
                step = float(np.median(np.diff(distinct)) / np.median(counts[1:-1]))
            else:
                step = float(times_s[-1] - times_s[0]) / (len(times_s) - 1)
            notes.append("many rows have the same time: they were spread evenly over the whole")
        elif len(usual):
            step = float(usual.mean())
        rate_hz = 1 / step
        if not 0.1 <= rate_hz <= 100_000:
            raise refuse(path, f"a rate of {rate_hz:.3g} Hz by the time column", "0.1 to 100,000 Hz",
                         "name the time's unit in the header, such as time_ms")  # fmt: skip
        even = times_s[0] + np.arange(len(times_s)) * step
        if coarse:
            return values, rate_hz
        if np.abs(steps - step).max() <= 0.05 * step or np.abs(times_s - even).max() <= 0.3 * step:
            return values, round((len(times_s) - 1) / float(times_s[-1] - times_s[0]), 6)
        count = int((times_s[-1] - times_s[0]) * rate_hz * (1 + 1e-9)) + 1
        if count > LIMITS.imu_rows:
            raise refuse(path, f"gaps in time that make {count:,} rows", f"at most {LIMITS.imu_rows:,}", "cut it")
        even = times_s[0] + np.arange(count) * step
        values = np.stack([np.interp(even, times_s, values[:, column]) for column in range(6)], axis=1)
        gap_s = float(steps.max())
        gaps = f", with gaps of up to {gap_s:.2g} s" if gap_s > 3 * step else ""
        notes.append(f"the rows are unevenly spaced in time{gaps} and were evened out to {rate_hz:.4g} Hz")
        return values, rate_hz

    def to_tensor(self, sample: Sample, rate_hz: float = 50.0, length: int = 128, unit: str = "m/s2") -> torch.Tensor:
        """Resample to a rate and cut or pad to a length.

        Args:
            sample: what `load` returned.
            rate_hz: rows a second of the result.
            length: rows of the result; the first ones are taken, missing ones are 0.
            unit: of the accelerometer: "m/s2" or "g". The gyroscope stays in rad/s.

        Returns:
            [6, length] float32.
        """
        import torch

        if unit not in ("m/s2", "g"):
            raise ValueError(f"unit is {unit!r}; expected 'm/s2' or 'g'")
        values = self._start(sample, rate_hz, length).T
        values = np.pad(values, ((0, 0), (0, length - values.shape[1]))).astype(np.float32)
        if unit == "g":
            values[:3] /= GRAVITY
        return torch.from_numpy(values)

    def coverage(self, sample: Sample, rate_hz: float = 50.0, length: int = 128, **settings) -> Coverage:
        """Say how many seconds of the recording the model takes."""
        return Coverage.seconds(self._taken_s(sample, rate_hz, length), sample.seconds)

    def _taken_s(self, sample: Sample, rate_hz: float, length: int) -> float:
        return min(len(self._start(sample, rate_hz, length)) / rate_hz, sample.seconds)

    @staticmethod
    def _start(sample: Sample, rate_hz: float, length: int) -> np.ndarray:
        """Return the first rows [up to length, 6] at another rate."""
        needed = int(np.ceil(length * sample.rate_hz / rate_hz)) + 64
        return resample(sample.array[:needed], sample.rate_hz, rate_hz)[:length]

    def preview(self, sample: Sample, rate_hz: float | None = None, length: int = 128, **settings) -> Preview:
        """Show six lines over seconds: acceleration and turning rate; what the model does not take is veiled."""
        from plotly.subplots import make_subplots

        rows = spread(len(sample.array), 2500)
        seconds = (rows / sample.rate_hz).astype(np.float32)
        figure = make_subplots(2, 1, shared_xaxes=True, vertical_spacing=0.08)
        for column in range(6):
            pane, axis = divmod(column, 3)
            figure.add_scatter(
                x=seconds, y=sample.array[rows, column], mode="lines", name="xyz"[axis], showlegend=pane == 0,
                legendgroup="xyz"[axis], line={"color": COLOURS[axis], "width": 1.5}, row=pane + 1, col=1,
                hovertemplate="%{y:.2f}<extra>" + "xyz"[axis] + "</extra>",
            )  # fmt: skip
        style(figure, 360).update_layout(hovermode="x", legend={"x": 1, "xanchor": "right"})
        figure.update_yaxes(title="acceleration, m/s²", nticks=5, row=1, col=1)
        figure.update_yaxes(title="turning rate, rad/s", nticks=5, row=2, col=1)
        figure.update_xaxes(title="seconds", row=2, col=1)
        taken = [] if rate_hz is None else [(0.0, self._taken_s(sample, rate_hz, length))]
        veiled = veil(figure, taken, sample.seconds)
        return Preview("plot", figure, f"{sample.name}: {sample.summary}", veiled=veiled)


def resample(values: np.ndarray, from_hz: float, to_hz: float) -> np.ndarray:
    """Change the rate of a recording; slower rates are low-pass filtered first.

    Args:
        values: [T, C] float32.
        from_hz: its rate.
        to_hz: the wanted rate.

    Returns:
        [T', C] float32.
    """
    if abs(from_hz - to_hz) < 0.005 * to_hz:
        return values
    from fractions import Fraction

    from scipy.signal import resample_poly

    ratio = Fraction(to_hz / from_hz).limit_denominator(200)
    if ratio == 0 or len(values) < 2:
        ratio = Fraction(to_hz / from_hz).limit_denominator(100_000)
    return resample_poly(values, ratio.numerator, ratio.denominator, axis=0, padtype="line").astype(np.float32)


def _rows(array: np.ndarray, widths: tuple[int, ...]) -> np.ndarray | None:
    """Return an array as [T, width] for one of the widths, turned where it lies the other way, or None."""
    if array.ndim == 2 and array.shape[1] in widths:
        return array
    return array.T if array.ndim == 2 and array.shape[0] in widths else None


_SENSORS = ("acc", "linear", "gravity", "gyro", "bare")


def _is_numpy(path: Path) -> bool:
    """Tell NumPy files and archives of them by their content."""
    with open(path, "rb") as file:
        head = file.read(6)
    if not head.startswith(b"PK\x03\x04"):
        return head.startswith(b"\x93NUMPY") or path.suffix.lower() in (".npy", ".npz")
    with open_zip(path) as archive:
        return any(name.endswith(".npy") for name in archive.namelist()) or path.suffix.lower() == ".npz"


def _array_streams(arrays: dict[str, np.ndarray]) -> list[Stream]:
    """Return the sensors whose arrays have their names: [T, 3] each, or a column each."""
    streams, groups = [], {}
    for name, array in arrays.items():
        if array.ndim == 1:
            title = parse_title(name)
            if title.sensor in _SENSORS and title.axis:
                groups.setdefault((title.sensor, title.stem, title.unit), {})[title.axis] = array
            continue
        sensor = sensor_of(name)[0]
        rows = _rows(array, (3,)) if sensor else None
        if rows is not None:
            times = _array_times(arrays, len(rows), name)
            times_s = None if times is None else times * time_factor(times, None)
            unit = parse_title(f"{name}_x").unit
            streams.append(Stream(sensor, name, rows.astype(np.float64), times_s, unit))
    for (sensor, stem, unit), columns in groups.items():
        if {*columns} == {"x", "y", "z"} and len({len(column) for column in columns.values()}) == 1:
            values = np.stack([columns[axis] for axis in "xyz"], axis=1).astype(np.float64)
            times = _array_times(arrays, len(values))
            times_s = None if times is None else times * time_factor(times, None)
            streams.append(Stream(sensor, stem, values, times_s, unit, parse_title(f"{stem}_x").weak))
    return streams


def _array_times(arrays: dict[str, np.ndarray], count: int, sensor: str = "") -> np.ndarray | None:
    """Return the array of times that has as many values as there are rows, or None."""
    names = [name for name, array in arrays.items() if array.size == count and parse_title(name).sensor == "time"]
    names.sort(key=lambda name: sensor == "" or sensor.lower() not in name.lower())
    return arrays[names[0]].reshape(-1).astype(np.float64) if names else None


def _name_bare(bare: list[Stream], found: dict[str, list[Stream]], notes: list[str]) -> None:
    """Tell sensors that have no names by their values: gravity is in the accelerometer's."""
    likes = [still_level(stream.values)[1] for stream in bare[:2]]
    if len(bare) == 1:
        if likes[0]:
            found["acc"] = bare
            notes.append("its three columns name no sensor: taken for an accelerometer, as gravity is in them")
        return
    if found["gyro"]:
        found["acc"] = bare[:1]
        return
    first = 1 if likes == [False, True] else 0
    found["acc"], found["gyro"] = [bare[first]], [bare[1 - first]]
    if first:
        notes.append("the gyroscope's columns come first: gravity is in the last three")


def _at_times(stream: Stream, like: Stream) -> np.ndarray | None:
    """Return a sensor's values at another one's times, or None where they cannot be brought there."""
    if len(stream.values) == len(like.values):
        return stream.values
    if stream.times_s is None or like.times_s is None:
        return None
    order = np.argsort(stream.times_s, kind="stable")
    columns = [np.interp(like.times_s, stream.times_s[order], column[order]) for column in stream.values.T]
    return np.stack(columns, axis=1)


def _has_gravity(acc: Stream, gravity: Stream) -> bool:
    """Tell whether an acceleration mostly points where gravity does."""
    down = _at_times(gravity, acc)
    if down is None:
        return True
    lengths = np.linalg.norm(acc.values, axis=1) * np.linalg.norm(down, axis=1)
    return float(np.nanmedian((acc.values * down).sum(axis=1) / np.maximum(lengths, 1e-12))) > 0.8


def _add_gravity(acc: Stream, gravity: Stream, notes: list[str]) -> Stream:
    """Add gravity to an acceleration without it; both get one unit."""
    down = _at_times(gravity, acc)
    if down is None:
        return acc
    level = float(np.nanmedian(np.linalg.norm(down, axis=1)))
    unit = gravity.unit or acc.unit or ("g" if level < 3 else "m/s2")
    factor = _FACTORS[acc.unit or unit] / _FACTORS[unit]
    notes.append("gravity was added to the acceleration, which the file has without it")
    if not (gravity.unit or acc.unit):
        notes.append(
            f"the accelerometer's unit is not named: {unit} was assumed from the size of gravity ({level:.2f})"
        )
    return replace(acc, sensor="acc", values=acc.values * factor + down, unit=unit)


def _join(path: Path, acc: Stream, gyro: Stream | None, notes: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Return both sensors' rows [T, 6] at the accelerometer's times, and these times or None."""
    if gyro is None:
        return np.concatenate([acc.values, np.zeros_like(acc.values)], axis=1), acc.times_s
    values, times_s = acc.values, acc.times_s
    same = acc.times_s is gyro.times_s or (
        len(values) == len(gyro.values) and (times_s is None or np.allclose(times_s, gyro.times_s, rtol=0, atol=1e-6))
    )
    if same and len(values) == len(gyro.values):
        return np.concatenate([values, gyro.values], axis=1), times_s
    if times_s is None or gyro.times_s is None:
        count = min(len(values), len(gyro.values))
        if count < 0.9 * max(len(values), len(gyro.values)):
            found = f"{len(values):,} rows of acceleration and {len(gyro.values):,} of turning rates without times"
            raise refuse(path, found, "as many of both, or their times", "export it with times")
        notes.append(f"the sensors have unequal numbers of rows: the first {count:,} were taken")
        return np.concatenate([values[:count], gyro.values[:count]], axis=1), None if times_s is None else times_s[
            :count
        ]
    order = np.argsort(gyro.times_s, kind="stable")
    start, stop = max(times_s.min(), gyro.times_s.min()), min(times_s.max(), gyro.times_s.max())
    both = (times_s >= start - 1e-9) & (times_s <= stop + 1e-9)
    if both.sum() < 2:
        raise refuse(path, "sensors whose times do not meet", "rows of the same time", "export them together")
    parts = [np.interp(times_s[both], gyro.times_s[order], column[order]) for column in gyro.values.T]
    notes.append("the sensors have times of their own: the turning rates were brought to the accelerometer's")
    return np.concatenate([values[both], np.stack(parts, axis=1)], axis=1), times_s[both]


def _mean_rate(times_s: np.ndarray) -> float:
    """Return about how many rows there are a second."""
    span = float(times_s[-1] - times_s[0])
    return (len(times_s) - 1) / span if 0 < span < np.inf else DEFAULT_RATE_HZ


def _in_order(values: np.ndarray, times_s: np.ndarray, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sort rows by time; where the time starts anew, its parts follow one another."""
    steps = np.diff(times_s)
    twice = (steps == 0) & (np.diff(values, axis=0) == 0).all(axis=1)
    if twice.any() and twice.sum() >= 0.9 * (steps == 0).sum():
        notes.append(f"{int(twice.sum()):,} rows are there twice and were left out once")
        keep = np.concatenate([[True], ~twice])
        values, times_s = values[keep], times_s[keep]
        steps = np.diff(times_s)
    back = steps < 0
    if not np.isfinite(times_s).all() or not back.any():
        return values, times_s
    span = float(times_s.max() - times_s.min())
    forward = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    if forward and back.sum() <= max(1, len(steps) / 100) and steps[back].max() < -0.3 * span:
        notes.append(f"the time starts anew {int(back.sum()):,} times: the parts were joined")
        return values, times_s[0] + np.concatenate([[0], np.cumsum(np.where(back, forward, steps))])
    order = np.argsort(times_s, kind="stable")
    notes.append("the rows were not in the order of their times and were sorted")
    return values[order], times_s[order]


def _acc_factor(values: np.ndarray, unit: str | None, linear: bool, notes: list[str]) -> tuple[float, int | None]:
    """Return m/s² a unit, and counts a g where the values are counts; told by the size of gravity if not named."""
    if unit in _FACTORS:
        return _FACTORS[unit], None
    level, steady = still_level(values)
    if level > 200 and (values == np.round(values)).all():
        counts = min([*_COUNTS, 1000], key=lambda count: abs(np.log(level / count)))
        if counts != 1000 and abs(level / counts - 1) < 0.2:
            notes.append(
                f"the accelerometer's values are raw counts without a unit: {counts:,} a g was assumed from their size "
                f"({level:.0f} when still)"
            )
            return GRAVITY / counts, counts
    size = float(np.median(np.linalg.norm(values, axis=1)))
    middle = float(np.linalg.norm(np.median(values, axis=0)))
    if steady:
        unit = "g" if level < 3 else "m/s2" if level < 100 else "mg"
    elif size < 3.5:
        unit = "g" if 0.5 < middle < 1.5 and not linear else "m/s2"
    else:
        unit = "m/s2" if size < 100 else "mg"
    notes.append(f"the accelerometer's unit is not named: {unit} was assumed from its size ({size:.2f})")
    return _FACTORS[unit], None


def _check_gravity(values: np.ndarray, acc: Stream, acc_unit: str | None, notes: list[str]) -> None:
    """Note an acceleration [T, 3] in m/s² that has no gravity in it, or seems to be in another unit than is said."""
    level, steady = still_level(values)
    if steady and level < 2:
        notes.append(
            f"the accelerometer shows {level:.2f} m/s² when still, as if its values were in g; "
            "the option acc_unit=g reads them so"
        )
    elif level < 6 and (acc.sensor == "linear" or not steady):
        notes.append(
            f"there seems to be no gravity in the acceleration ({level:.2f} m/s² when still); "
            "recordings with gravity are understood better"
        )


def _gyro_factor(values: np.ndarray, rate_hz: float, unit: str | None, counts: int | None, notes: list[str]) -> float:
    """Return rad/s a unit of the gyroscope.

    Unnamed, it is told by how it moves the direction of gravity, and else by its size: people and devices seldom
    turn faster than 20 rad/s.

    Args:
        values: [T, 6], the first three in m/s².
        rate_hz: rows a second.
        unit: the unit, or None.
        counts: the accelerometer's counts a g, if it gives counts.
        notes: gets what was assumed.
    """
    if unit in _FACTORS:
        return _FACTORS[unit]
    gyro = values[:, 3:]
    size = float(np.percentile(np.abs(gyro), 99))
    if counts and (gyro == np.round(gyro)).all():
        notes.append(
            f"the gyroscope's values are raw counts without a unit: {_COUNTS[counts]:g} a degree a second was assumed"
        )
        return np.pi / 180 / _COUNTS[counts]
    scale = _turning_scale(values, rate_hz)
    if scale is not None:
        unit, why = ("rad/s" if scale > 0.13 else "deg/s" if scale > 5e-4 else "mdeg/s"), "how gravity turns"
    else:
        unit, why = ("rad/s" if size <= 20 else "deg/s" if size < 4000 else "mdeg/s"), f"its size ({size:.2f})"
    notes.append(f"the gyroscope's unit is not named: {unit} was assumed from {why}; the option gyro_unit sets it")
    return _FACTORS[unit]


def _turning_scale(values: np.ndarray, rate_hz: float) -> float | None:
    """Return radians a unit of turning by which gravity's direction turns, or None where it does not tell.

    A direction d that stays in the world changes in a turning device by dd/dt = d x w.

    Args:
        values: [T, 6].
        rate_hz: rows a second.
    """
    width = max(3, int(0.2 * rate_hz) | 1)
    if len(values) < 4 * width or not 5 <= rate_hz <= 2000:
        return None
    kernel = np.ones(width) / width
    smooth = np.stack([np.convolve(column, kernel, "valid") for column in values.T], axis=1)
    lengths = np.linalg.norm(smooth[:, :3], axis=1, keepdims=True)
    if not (np.abs(lengths / GRAVITY - 1) < 0.3).mean() > 0.7:
        return None
    direction = smooth[:, :3] / lengths
    lag = width
    change = (direction[lag:] - direction[:-lag]) * rate_hz / lag
    middle = slice(lag // 2, lag // 2 + len(change))
    expected = np.cross(direction, smooth[:, 3:])
    expected = np.stack([np.convolve(column, kernel, "same") for column in expected.T], axis=1)[middle]
    energy, other = float((expected**2).sum()), float((change**2).sum())
    if energy < 1e-12 or other < 1e-12:
        return None
    product = float((expected * change).sum())
    return abs(product) / energy if abs(product) > 0.6 * np.sqrt(energy * other) else None
