"""Motion data: [T, 6] float32, accelerometer in m/s² and gyroscope in rad/s."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onellm.modalities.base import Coverage, Modality, Preview, Sample, megabytes, refuse
from onellm.modalities.plots import COLOURS, spread, style, veil
from onellm.modalities.readers.arrays import pick, read_arrays
from onellm.modalities.readers.tables import split_marks
from onellm.utils.limits import LIMITS

if TYPE_CHECKING:
    import torch

GRAVITY = 9.80665  # m/s² in one g
DEFAULT_RATE_HZ = 50.0
_DECODED_BYTES = LIMITS.imu_rows * 8 * 80  # with what else there may be in a file
_TITLE_CHARACTERS = 100
_LINE_CHARACTERS = 20_000

_SENSORS = {
    "acc": ("linearacceleration", "acceleration", "accelerometer", "accel", "acc", "a"),
    "gyro": ("angularvelocity", "angularrate", "rotationrate", "gyroscope", "gyro", "gyr", "omega", "g", "w"),
}
_TIMES = ("t", "time", "timestamp", "timestamps", "seconds", "secondselapsed", "elapsed", "sec")
_UNITS = {
    "g": "g", "mg": "mg", "ms2": "m/s2", "mss": "m/s2", "m/s2": "m/s2", "m/s^2": "m/s2", "m/s²": "m/s2",
    "m/s/s": "m/s2", "ms-2": "m/s2", "mps2": "m/s2",
    "rad": "rad/s", "rads": "rad/s", "rad/s": "rad/s", "radps": "rad/s", "rps": "rad/s",
    "deg": "deg/s", "degs": "deg/s", "deg/s": "deg/s", "dps": "deg/s", "degps": "deg/s", "°/s": "deg/s",
    "s": "s", "sec": "s", "seconds": "s", "ms": "ms", "us": "us", "µs": "us", "ns": "ns",
}  # fmt: skip
_FACTORS = {
    "m/s2": 1.0, "g": GRAVITY, "mg": GRAVITY / 1000, "rad/s": 1.0, "deg/s": np.pi / 180,
    "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9,
}  # fmt: skip


class Imu(Modality):
    """Accelerometer and gyroscope recordings.

    Canonical array: [T, 6] float32: accelerometer x, y, z in m/s² (gravity included where the sensor has it),
    gyroscope x, y, z in rad/s.

    A csv file has a header that names the columns, such as ``time_ms, acc_x_g, acc_y_g, acc_z_g, gyr_x_deg,
    gyr_y_deg, gyr_z_deg`` or ``t, ax [m/s^2], …, gz [rad/s]``; or no header and 6 columns in the order above,
    or 7 with time first. An npy file is [T, 6], [6, T], [T, 7] or [7, T]; an npz file has acc and gyro [T, 3]
    and may have rate_hz, or one such array. Units come from the header, then from the options, then from
    the size of gravity; the rate from the time column, then from the option, then 50 Hz.
    """

    name = "imu"
    title = "IMU"
    icon = "🧭"
    libraries = ()
    suffixes = (".csv", ".npy", ".npz")
    layout = ("[T, 6], m/s² and rad/s", 2, 6)
    unit = "acceleration in m/s², turning rate in rad/s"
    expects = (
        "motion data (csv, npy or npz) with 3 accelerometer and 3 gyroscope columns, "
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
            acc_unit: "m/s2" or "g", for files that do not say.
            gyro_unit: "rad/s" or "deg/s", for files that do not say.

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
        notes: list[str] = []
        if path.suffix.lower() == ".csv":
            values, times_s, units = self._read_csv(path, notes)
        else:
            values, times_s, units, stored_rate_hz = self._read_numpy(path)
            rate_hz = rate_hz or stored_rate_hz
        if len(values) > LIMITS.imu_rows:
            raise refuse(path, f"{len(values):,} rows", f"at most {LIMITS.imu_rows:,}", "cut the recording")
        values = self.clean(path, values, notes)
        values[:, :3] *= _FACTORS[units.get("acc") or acc_unit or _guess_acc(values[:, :3], notes)]
        values[:, 3:] *= _FACTORS[units.get("gyro") or gyro_unit or _guess_gyro(values[:, 3:], notes)]
        if times_s is not None:
            values, rate_hz = self._even(path, values, times_s, notes)
        elif rate_hz is None:
            rate_hz = DEFAULT_RATE_HZ
            notes.append(f"the file does not say its rate: {DEFAULT_RATE_HZ:g} Hz was assumed")
        rate_hz = float(rate_hz)
        summary = f"{len(values) / rate_hz:.1f} s, {len(values):,} rows at {rate_hz:.4g} Hz"
        return Sample(self.name, path.name, values.astype(np.float32), summary, rate_hz, notes=notes)

    def _read_csv(self, path: Path, notes: list[str]) -> tuple[np.ndarray, np.ndarray | None, dict[str, str]]:
        """Return values [T, 6], times in seconds [T] or None, and the units the header names."""
        text, separator = split_marks(path.read_bytes().decode("utf-8-sig"))
        lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        if len(lines) > LIMITS.imu_rows + 1:
            raise refuse(path, f"{len(lines):,} rows", f"at most {LIMITS.imu_rows:,}", "cut the recording")
        if not lines:
            raise refuse(path, "no rows", self.expects, "save the recording again")
        longest = max(map(len, lines))
        if longest > _LINE_CHARACTERS:
            raise refuse(path, f"a row of {longest:,} characters", self.expects, "save the recording again")
        rows = [[cell.strip().strip('"') for cell in line.split(separator)] for line in lines]
        header = None if all(_number(cell) is not None for cell in rows[0]) else rows.pop(0)
        width = len(header or rows[0])
        if not rows:
            raise refuse(path, "a header without rows", self.expects, "save the recording again")
        wrong = next((i for i, row in enumerate(rows) if len(row) != width), None)
        if wrong is not None:
            if wrong == len(rows) - 1 and len(rows) > 1 and len(rows[wrong]) < width:
                rows.pop()
                notes.append("the last row is cut short and was left out")
            else:
                found = f"row {wrong + 1} has {len(rows[wrong])} columns and the first has {width}"
                raise refuse(path, found, self.expects, "save the recording again")
        columns, units = self._columns(path, header, width)
        table = np.array([[_number(row[column]) for column in columns] for row in rows], dtype=np.float64)
        times_s = None
        if len(columns) == 7:
            times_s = table[:, 0] * _time_factor(table[:, 0], units.get("time"))
            table = table[:, 1:]
        return table, times_s, units

    def _columns(self, path: Path, header: list[str] | None, width: int) -> tuple[list[int], dict[str, str]]:
        """Find the columns: [time,] acc x, y, z, gyro x, y, z; and the units in their names."""
        if header is None:
            if width not in (6, 7):
                raise refuse(path, f"{width} columns without names", self.expects, "add a header row")
            return list(range(width)), {}
        found: dict[str, int] = {}
        units: dict[str, str] = {}
        for column, title in enumerate(header):
            role, unit = parse_title(title)
            if role and role not in found:
                found[role] = column
                if unit:
                    units.setdefault(role.split("_")[0], unit)
        roles = [f"{sensor}_{axis}" for sensor in ("acc", "gyro") for axis in "xyz"]
        missing = [role for role in roles if role not in found]
        if missing:
            names = ", ".join(header)
            if len(names) > 100:
                names = names[:99] + "…"
            advice = "name the columns acc_x, acc_y, acc_z, gyro_x, gyro_y, gyro_z"
            raise refuse(path, f"columns {names} (no {missing[0]})", self.expects, advice)
        if "time" in found:
            roles.insert(0, "time")
        return [found[role] for role in roles], units

    def _read_numpy(self, path: Path) -> tuple[np.ndarray, np.ndarray | None, dict[str, str], float | None]:
        """Return values [T, 6], times or None, units, and the stored rate or None."""
        arrays = read_arrays(path, _DECODED_BYTES, self.expects)
        acc, gyro = pick(arrays, "acc", "accel", "accelerometer"), pick(arrays, "gyro", "gyr", "gyroscope")
        rate = pick(arrays, "rate_hz", "rate", "fs", "sampling_rate")
        time = pick(arrays, "t", "time", "timestamp", "timestamps")
        if acc is not None and gyro is not None:
            parts = [_rows(part, (3,)) for part in (acc, gyro)]
            if any(part is None for part in parts) or len(parts[0]) != len(parts[1]):
                found = f"acc of shape {list(acc.shape)} and gyro of shape {list(gyro.shape)}"
                raise refuse(path, found, "both [T, 3]", "save them with equal lengths")
            table = np.concatenate(parts, axis=1)
        else:
            array = pick(arrays, "", "imu", "array", "data", "values", "arr_0")
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
        times_s = None
        if table.shape[1] == 7:
            times_s, table = table[:, 0] * _time_factor(table[:, 0], None), table[:, 1:]
        elif time is not None and time.shape == (len(table),):
            times_s = time.astype(np.float64) * _time_factor(time.astype(np.float64), None)
        rate_hz = float(rate.reshape(-1)[0]) if rate is not None and rate.size == 1 else None
        if rate_hz is not None and not 0.1 <= rate_hz <= 100_000:
            raise refuse(path, f"a rate of {rate_hz:g} Hz", "0.1 to 100,000 Hz", "correct rate_hz")
        return table.copy(), times_s, {}, rate_hz

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
        """Bring rows with times to even spacing at their median rate."""
        steps = np.diff(times_s)
        if not np.isfinite(times_s).all() or (steps < 0).any() or not (steps > 0).any():
            raise refuse(path, "times that do not rise", "a time column that rises", "sort the rows by time")
        step = float(np.median(steps[steps > 0]))
        rate_hz = 1 / step
        if not 0.1 <= rate_hz <= 100_000:
            raise refuse(path, f"a rate of {rate_hz:.3g} Hz by the time column", "0.1 to 100,000 Hz",
                         "name the time's unit in the header, such as time_ms")  # fmt: skip
        if np.abs(steps - step).max() <= 0.05 * step:
            return values, round((len(times_s) - 1) / float(times_s[-1] - times_s[0]), 6)
        count = int((times_s[-1] - times_s[0]) * rate_hz) + 1
        if count > LIMITS.imu_rows:
            raise refuse(path, f"gaps in time that make {count:,} rows", f"at most {LIMITS.imu_rows:,}", "cut it")
        even = times_s[0] + np.arange(count) * step
        values = np.stack([np.interp(even, times_s, values[:, column]) for column in range(6)], axis=1)
        notes.append("the rows are unevenly spaced in time and were evened out")
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


def _number(cell: str) -> float | None:
    """Read a cell; an empty one is not a number (NaN), text is None."""
    if not cell:
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        return None


def parse_title(title: str) -> tuple[str | None, str | None]:
    """Tell a column by its title.

    Args:
        title: such as "acc_x [g]".

    Returns:
        Its role (``time``, ``acc_x`` … ``gyro_z``) and its unit, or None.
    """
    text = title.strip().lower()[:_TITLE_CHARACTERS]
    unit = None
    bracket = re.search(r"[\[(]\s*([^\])]*?)\s*[\])]", text)
    if bracket:
        unit = _UNITS.get(bracket[1].replace(" ", ""))
        text = text[: bracket.start()] + text[bracket.end() :]
    words = [word for word in re.split(r"[\s_\-.:/]+", text) if word]
    while len(words) > 1 and words[-1] in ("raw", "value", "phone", "watch", "sensor"):
        words.pop()
    for tail in (2, 1):
        joined = "".join(words[-tail:])
        if unit is None and len(words) > tail and joined in _UNITS:
            unit, words = _UNITS[joined], words[:-tail]
            break
    name = "".join(words)
    if name in _TIMES or (name.startswith("time") and len(name) <= 12):
        return "time", unit
    for axis in "xyz":
        for sensor, spellings in _SENSORS.items():
            exact = any(name in (spelling + axis, axis + spelling) for spelling in spellings)
            if exact or any(name.endswith(spelling + axis) for spelling in spellings if len(spelling) > 2):
                return f"{sensor}_{axis}", unit
    return None, None


def _time_factor(times: np.ndarray, unit: str | None) -> float:
    """Return seconds a unit of time; an unnamed unit is guessed so that the rate suits a sensor."""
    if unit:
        return _FACTORS[unit]
    steps = np.diff(times[np.isfinite(times)])
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 1.0
    return next((factor for factor in (1.0, 1e-3, 1e-6, 1e-9) if step * factor <= 0.6), 1e-9)


def _guess_acc(values: np.ndarray, notes: list[str]) -> str:
    """Tell g from m/s² by the size of gravity."""
    size = float(np.median(np.linalg.norm(values, axis=1)))
    unit = "g" if size < 3.5 else "m/s2" if size < 100 else "mg"
    notes.append(f"the accelerometer's unit is not named: {unit} was assumed from its size ({size:.2f})")
    return unit


def _guess_gyro(values: np.ndarray, notes: list[str]) -> str:
    """Tell degrees from radians: people and devices seldom turn faster than 20 rad/s."""
    size = float(np.percentile(np.abs(values), 99))
    unit = "deg/s" if size > 20 else "rad/s"
    notes.append(f"the gyroscope's unit is not named: {unit} was assumed from its size ({size:.2f})")
    return unit
