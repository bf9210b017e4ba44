"""Motion windows cut from whole recordings, as published for Ego4D: one array a video, and its times.

`<video>.npy` is [T, 6] or [6, T]: accelerometer x, y, z in m/s², then gyroscope x, y, z in rad/s;
`<video>_timestamps.npy` is [T], milliseconds from the video's start. A window is two times in seconds.
"""

from pathlib import Path

import numpy as np

from onellm.utils.limits import LIMITS
from train.data.example import DataError

MARGIN_S = 4.0  # Ego4D's windows are used if the recording covers them to within this
LEAST_ROWS = 10


def load_window(folder: Path, video: str, start_s: float, end_s: float) -> tuple[np.ndarray, float]:
    """Cut a window out of a recording and bring its rows to even spacing.

    Args:
        folder: of the recordings.
        video: their name without a suffix.
        start_s: of the window.
        end_s: of the window.

    Returns:
        [T, 6] float32 in m/s² and rad/s, and the rate in Hz (by the median step).

    Raises:
        DataError: the recording is missing or has another shape, or does not cover the window.
    """
    values, times_s = _open(folder / f"{video}.npy"), _open(folder / f"{video}_timestamps.npy").reshape(-1)
    if values.ndim == 2 and values.shape[0] == 6 != values.shape[1]:
        values = values.T
    if values.ndim != 2 or values.shape[1] != 6 or len(values) != len(times_s):
        raise DataError(
            f"{video}: the recording has shape {list(values.shape)} and {len(times_s):,} times; expected [T, 6] and T; "
            "extract it again."
        )
    first, last = np.searchsorted(times_s, [start_s * 1000, end_s * 1000])
    times_s = np.asarray(times_s[first:last], np.float64) / 1000
    values = np.asarray(values[first:last], np.float64)
    named = f"{video}, {start_s:g} to {end_s:g} s"
    if len(times_s) < LEAST_ROWS:
        raise DataError(f"{named}: there are {len(times_s)} rows; expected {LEAST_ROWS}; leave the window out.")
    off_s = max(abs(times_s[0] - start_s), abs(times_s[-1] - end_s))
    if off_s > MARGIN_S:
        raise DataError(f"{named}: the rows miss {off_s:.1f} s of it; expected at most {MARGIN_S:g}; leave it out.")
    steps = np.diff(times_s)
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    if step == 0 or (steps < 0).any() or not np.isfinite(values).all():
        raise DataError(f"{named}: times do not rise, or values are no numbers; expected both; leave the window out.")
    count = int(round((times_s[-1] - times_s[0]) / step)) + 1
    if count > LIMITS.imu_rows:
        raise DataError(f"{named}: it has {count:,} rows; expected at most {LIMITS.imu_rows:,}; shorten it.")
    even = times_s[0] + step * np.arange(count)
    rows = np.stack([np.interp(even, times_s, values[:, column]) for column in range(6)], axis=1)
    return rows.astype(np.float32), 1 / step


def _open(path: Path) -> np.ndarray:
    """Open an array without reading it."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        found = "there is no such file" if isinstance(error, FileNotFoundError) else f"it cannot be read ({error})"
        raise DataError(f"{path.name}: {found}; expected an array of numbers; extract it again.") from error
