"""Brain activity: [R, V] or [R, X, Y, Z] float32, R repetitions of a vector or a volume."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onellm.modalities.base import Coverage, Modality, Preview, Sample, megabytes, refuse, to_numpy
from onellm.modalities.plots import COLOURS, GREY, spread, style
from onellm.modalities.readers.arrays import pick, read_arrays
from onellm.modalities.readers.scans import Scan, header_of, layout_of, read_head, read_scan
from onellm.utils.limits import LIMITS

if TYPE_CHECKING:
    import torch

RUN_VOLUMES = 16  # a longer series is a run as it came from the scanner
_SLICES = 24  # steps of the preview's slider
# Colours that fade into the page, light or dark, towards 0.
_DIVERGING = [
    [0, "#1f5fd0"], [0.25, "#5b97e8"], [0.5, "rgba(138,143,152,0.15)"], [0.75, "#ee8a5a"], [1, "#d4232b"],
]  # fmt: skip
_RISING = [[0, "rgba(138,143,152,0.15)"], [0.4, "#7f6fb5"], [0.7, "#d9627d"], [1, "#f5b642"]]
_SIDE = 64  # points a side of a slice in the preview


class Fmri(Modality):
    """fMRI volumes, read with nibabel, and vectors of voxel responses.

    Canonical array: float32, [R, V] for vectors or [R, X, Y, Z] for volumes, whose axes go to the right, the front
    and the top of the head where the file says how it lies, and else are in the file's own order.

    What a file should hold: one response a voxel to one thing that was seen or done, without drift and
    divided by the voxel's spread over time (z-scores or beta weights). The published OneLLM takes the 15,724
    voxels of the Natural Scenes Dataset's "nsdgeneral" region of subject 1, [15724] or [R, 15724] with one
    row a repetition, which are averaged.

    NIfTI-1 and -2 (single files or pairs), Analyze and MGH files are [X, Y, Z] or [X, Y, Z, R], CIFTI files [R, V],
    told by their content and not by their name; npy and npz files [V], [R, V], [X, Y, Z] or [R, X, Y, Z]. A
    series of more than 16 volumes is taken for a raw run: each voxel is detrended (linear) and z-scored over
    the run, and the option `volumes` says which volumes show the thing in question.
    """

    name = "fmri"
    title = "fMRI"
    icon = "🧠"
    libraries = ("nibabel",)
    suffixes = (".nii", ".nii.gz", ".mgz", ".mgh", ".hdr", ".img", ".hdr.gz", ".img.gz", ".npy", ".npz")
    layout = ("[R, V] or [R, X, Y, Z]", None, None)
    unit = "the file's unit, z-scores for a raw run"
    expects = (
        "an fMRI volume (nii, nii.gz, mgz, hdr with img) or voxel vector (npy, npz) "
        f"of up to {megabytes(LIMITS.fmri_bytes)}, {megabytes(LIMITS.fmri_decoded_bytes)} decoded"
    )

    def read(self, path: Path, volumes: str | int | None = None, orientation: str | None = None) -> Sample:
        """Read volumes or vectors.

        Args:
            path: the file.
            orientation: "ras" (the default) turns a volume's axes to right, anterior, superior by the file's header;
                "file" leaves them as they are.
            volumes: which volumes of a series are averaged, counted from 0: "12", or "12:20" for 12 to 19.

        Returns:
            A sample whose array is [R, V] or [R, X, Y, Z] float32.
        """
        if orientation not in (None, "ras", "file"):
            raise refuse(path, f"the option orientation is {orientation!r}", "ras or file", "correct the option")
        if _is_numpy(path):
            scan = Scan(self._read_numpy(path))
        else:
            scan = read_scan(path, self.expects, orientation or "ras")
        array, interval_s, notes = scan.array, scan.interval_s, scan.notes
        array = self.clean(path, array, notes)
        count = len(array)
        if array.ndim == 4 and count > RUN_VOLUMES:
            _standardise(array)
            array = array[self._pick(path, array, volumes, notes)]
        elif volumes is not None:
            array = array[self._range(path, volumes, count)]
        elif _is_mask(array):
            notes.append("all values are whole and few: this looks like a mask or an atlas, not like responses")
        elif _looks_raw(array):
            notes.append("this looks like raw signal, not like responses: z-scores or beta weights are expected")
        shape = " × ".join(f"{side:,}" for side in array.shape[1:])
        summary = f"{shape} voxels" + (f", {count:,} repetitions" if count > 1 else "")
        if interval_s and count > RUN_VOLUMES:
            summary = f"{shape} voxels, {count:,} volumes, one each {interval_s:g} s"
        return Sample(self.name, path.name, np.ascontiguousarray(array), summary, notes=notes)

    def _read_numpy(self, path: Path) -> np.ndarray:
        """Return [R, V] or [R, X, Y, Z] float32."""
        arrays = read_arrays(path, LIMITS.fmri_decoded_bytes, self.expects)
        array = pick(arrays, "", "fmri", "voxels", "betas", "data", "array", "arr_0")
        if array is None and len(arrays) == 1:
            array = next(iter(arrays.values()))
        if array is None:
            found = f"arrays called {', '.join(arrays)[:100]}"
            raise refuse(path, found, "one array, or one called fmri", "rename it")
        self._check_size(path, array.shape, 4)
        while array.ndim > 4 and array.shape[0] == 1:
            array = array[0]
        if not 1 <= array.ndim <= 4:
            found = f"an array of shape {list(array.shape)}"
            raise refuse(path, found, "[V], [R, V], [X, Y, Z] or [R, X, Y, Z]", "save one of these")
        return (array[None] if array.ndim in (1, 3) else array).astype(np.float32)

    def _check_size(self, path: Path, shape: tuple[int, ...], item_bytes: int) -> None:
        count_bytes = item_bytes * int(np.prod([float(side) for side in shape]))
        if count_bytes > LIMITS.fmri_decoded_bytes:
            found = f"{' × '.join(map(str, shape))} values, which take {megabytes(count_bytes)} when read"
            raise refuse(path, found, f"at most {megabytes(LIMITS.fmri_decoded_bytes)}", "save fewer volumes")

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether a file is a scan, packed or not, or the values of a pair whose header lies beside them."""
        return layout_of(read_head(header_of(path))) is not None

    def from_memory(self, value: Any) -> Sample:
        """Turn responses [V], [R, V] or [R, X, Y, Z] into a sample."""
        return super().from_memory(np.atleast_2d(to_numpy(value)))

    def clean(self, path: Path, array: np.ndarray, notes: list[str]) -> np.ndarray:
        """Set values that are not numbers to 0; refuse a file without any signal."""
        finite = np.isfinite(array)
        if not finite.all():
            if not finite.any():
                raise refuse(path, "no value is a number", self.expects, "save or download it again")
            array[~finite] = 0
            notes.append(f"{1 - finite.mean():.1%} of the values are not numbers and count as 0")
        if array.size < 2 or float(array.max()) == float(array.min()):
            found = f"{array.size:,} values, all of them {float(array.flat[0]):g}"
            raise refuse(path, found, self.expects, "check that the right file was saved")
        largest = max(float(array.max()), -float(array.min()))  # not of abs(): that would be a copy
        if largest > 1e12:
            raise refuse(path, f"values up to {largest:.1e}", self.expects, "check how it was saved")
        return array

    def _pick(self, path: Path, run: np.ndarray, volumes: str | int | None, notes: list[str]) -> slice:
        """Choose volumes of a run [R, X, Y, Z] of z-scores."""
        notes.append(f"taken for a raw run of {len(run):,} volumes: each voxel was detrended and z-scored")
        if volumes is not None:
            return self._range(path, volumes, len(run))
        strongest = int(np.square(run).mean(axis=(1, 2, 3)).argmax())
        notes.append(
            f"volume {strongest} is shown and used, as it departs most from the run's mean; "
            "choose others with the option volumes, such as 12:20"
        )
        return slice(strongest, strongest + 1)

    def _range(self, path: Path, volumes: str | int, count: int) -> slice:
        """Read the option `volumes`: "12" or "12:20"."""
        match = re.fullmatch(r"\s*(\d{1,6})\s*(?::\s*(\d{1,6})\s*)?", str(volumes))
        if match:
            start = int(match[1])
            stop = int(match[2]) if match[2] else start + 1
            if start < stop <= count:
                return slice(start, stop)
        expected = f'"12" or "12:20", counted from 0, below {count:,}'
        raise refuse(path, f"the option volumes is {str(volumes)[:20]!r}", expected, "correct the option")

    def to_tensor(self, sample: Sample, voxels: int | None = None, grid: tuple[int, ...] | None = None) -> torch.Tensor:
        """Average the repetitions and flatten.

        Args:
            sample: what `load` returned.
            voxels: number of voxels the model takes; any if None.
            grid: shape [X, Y, Z] of the volumes the model takes; any if None.

        Returns:
            [V] float32, volumes flattened with Z fastest.

        Raises:
            FileError: if the sizes do not match.
        """
        import torch

        return torch.from_numpy(self._average(sample, voxels, grid))

    def coverage(self, sample: Sample, voxels: int | None = None, grid: tuple[int, ...] | None = None) -> Coverage:
        """Say how many voxels the model takes: all, or it refuses."""
        count = f"{self._average(sample, voxels, grid).size:,}"
        return Coverage(count, count, "voxels")

    def _average(self, sample: Sample, voxels: int | None, grid: tuple[int, ...] | None) -> np.ndarray:
        """Return [V] float32, see `to_tensor`."""
        mean = sample.array.mean(axis=0, dtype=np.float32)
        if grid is not None and mean.ndim == 3 and tuple(mean.shape) != tuple(grid):
            found = f"a volume of {' × '.join(map(str, mean.shape))} voxels"
            expected = f"{' × '.join(map(str, grid))}, the grid this model was trained on"
            raise refuse(sample.name, found, expected, "resample it, or use a model trained on such scans")
        if voxels is not None and mean.size != voxels:
            expected = f"{voxels:,}, the number this model was trained on"
            raise refuse(sample.name, f"{mean.size:,} voxels", expected, "give the model's own region of the brain")
        return np.ascontiguousarray(mean.reshape(-1))

    def preview(self, sample: Sample, **settings) -> Preview:
        """Show three planes with a slider; a flat volume's plane; a vector's voxels and their spread."""
        mean = sample.array.mean(axis=0)
        caption = f"{sample.name}: {sample.summary}"
        if mean.ndim == 1:
            return Preview("plot", _plot_vector(mean), caption)
        if min(mean.shape) == 1:
            return Preview("plot", _plot_plane(mean), caption)
        return Preview("plot", _plot_planes(mean), caption)


def _is_numpy(path: Path) -> bool:
    """Tell NumPy files and archives of them by their first bytes."""
    with open(path, "rb") as file:
        return file.read(6).startswith((b"\x93NUMPY", b"PK\x03\x04"))


def _standardise(run: np.ndarray) -> None:
    """Detrend (linear) and z-score each voxel of a run [R, …] over R, in place; constant voxels become 0."""
    flat = run.reshape(len(run), -1)
    time = np.linspace(-1, 1, len(run), dtype=np.float32)[:, None]
    time /= np.linalg.norm(time)
    for start in range(0, flat.shape[1], 65_536):
        part = flat[:, start : start + 65_536]
        level = np.abs(part).max(axis=0)
        part -= part.mean(axis=0)
        part -= time * (time.T @ part)
        spread_ = part.std(axis=0)
        part *= np.where(spread_ > 1e-5 * level, 1 / np.maximum(spread_, 1e-30), 0)


def _is_mask(array: np.ndarray) -> bool:
    """Tell labels of places, such as 0 and 1, from responses."""
    values = np.unique(array.reshape(-1)[:: max(1, array.size // 100_000)])
    return array.ndim == 4 and len(values) <= 3 and bool((values == np.round(values)).all())


def _looks_raw(array: np.ndarray) -> bool:
    """Tell scanner units, all positive and far from 0, from responses around 0."""
    values = array[array != 0]
    return bool(values.size and abs(values.mean()) > 5 * values.std()) or bool(
        values.size and values.min() >= 0 and values.max() > 100
    )


def _levels(values: np.ndarray) -> tuple[np.ndarray, dict]:
    """Reduce values to int8 for a small plot; return them with the heatmap's colour settings."""
    signed = values.min() < 0
    top = max(float(np.percentile(np.abs(values[values != 0]), 99.5)), 1e-12) if (values != 0).any() else 1.0
    levels = np.clip(np.round(values / top * 100), -127, 127).astype(np.int8)
    ticks = [-100, 0, 100] if signed else [0, 50, 100]
    colours = {
        "zmin": -100 if signed else 0,
        "zmax": 100,
        "colorscale": _DIVERGING if signed else _RISING,
        "colorbar": {
            "orientation": "h", "thickness": 10, "len": 0.7, "y": -0.04, "yanchor": "top", "outlinewidth": 0,
            "tickvals": ticks, "tickangle": 0,
            "ticktext": [f"{tick * top / 100:.3g}" for tick in ticks], "tickfont": {"color": GREY},
        },
    }  # fmt: skip
    return levels, colours


def _plot_planes(volume: np.ndarray):
    """Three planes of a volume [X, Y, Z]; one slider moves through all of them."""
    from plotly import graph_objects
    from plotly.subplots import make_subplots

    steps = [spread(side, _SIDE) for side in volume.shape]
    levels, colours = _levels(volume)
    planes = (("y, z", 0, 1, 2), ("x, z", 1, 0, 2), ("x, y", 2, 0, 1))
    figure = make_subplots(rows=1, cols=3, horizontal_spacing=0.03, subplot_titles=[p[0] for p in planes])
    count = min(_SLICES, max(volume.shape))
    for position in range(count):
        for column, (_, through, across, up) in enumerate(planes):
            index = round(position * (volume.shape[through] - 1) / max(count - 1, 1))
            plane = np.take(levels, index, axis=through)[np.ix_(steps[across], steps[up])]
            figure.add_trace(
                graph_objects.Heatmap(
                    x=steps[across].astype(np.int16), y=steps[up].astype(np.int16),
                    z=np.ascontiguousarray(plane.T), visible=position == count // 2, hoverinfo="x+y",
                    showscale=column == 2, **colours,
                ),
                row=1, col=column + 1,
            )  # fmt: skip
    slider = [
        {
            "method": "restyle",
            "label": f"{position / max(count - 1, 1):.0%}",
            "args": [{"visible": [i // 3 == position for i in range(3 * count)]}],
        }
        for position in range(count)
    ]
    style(figure, 280).update_layout(
        margin={"l": 8, "r": 8, "t": 30, "b": 48},
        sliders=[
            {
                "active": count // 2, "steps": slider, "currentvalue": {"prefix": "position: "},
                "pad": {"t": 64},
                "bgcolor": "rgba(138,143,152,0.35)", "activebgcolor": COLOURS[2], "borderwidth": 0,
                "tickcolor": GREY, "font": {"color": GREY, "size": 11}, "minorticklen": 0, "ticklen": 0,
            }
        ],
    )  # fmt: skip
    figure.update_annotations(font={"color": GREY, "size": 13})
    figure.update_xaxes(showgrid=False, showticklabels=False, ticks="", constrain="domain")
    figure.update_yaxes(showgrid=False, showticklabels=False, ticks="", constrain="domain")
    for column in (1, 2, 3):
        figure.update_yaxes(scaleanchor="x" if column == 1 else f"x{column}", row=1, col=column)
    return figure


def _plot_plane(volume: np.ndarray):
    """Draw the only plane of a volume with one side of length 1."""
    from plotly import graph_objects

    flat = int(np.argmin(volume.shape))
    plane = np.take(volume, 0, axis=flat)
    plane = plane[np.ix_(spread(plane.shape[0], 256), spread(plane.shape[1], 256))]
    levels, colours = _levels(plane)
    figure = graph_objects.Figure(graph_objects.Heatmap(z=np.ascontiguousarray(levels.T), hoverinfo="x+y", **colours))
    style(figure, 320)
    names = [axis for i, axis in enumerate("xyz") if i != flat]
    figure.update_xaxes(title=f"{names[0]}, voxels", showgrid=False, constrain="domain")
    figure.update_yaxes(title=f"{names[1]}, voxels", showgrid=False, scaleanchor="x", constrain="domain")
    return figure


def _plot_vector(vector: np.ndarray):
    """Voxel by voxel above, how often each value occurs below."""
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=2, cols=1, vertical_spacing=0.24)
    shown = spread(len(vector), 4000)
    figure.add_scatter(
        x=shown.astype(np.int32), y=vector[shown], mode="lines", line={"width": 0.8, "color": COLOURS[2]},
        hovertemplate="voxel %{x}: %{y:.3g}<extra></extra>", showlegend=False, row=1, col=1,
    )  # fmt: skip
    # float32 cannot tell the edges of 60 bins apart where all values are nearly the same
    counts, edges = np.histogram(vector.astype(np.float64), bins=60)
    figure.add_bar(
        x=((edges[:-1] + edges[1:]) / 2).astype(np.float32), y=counts, marker={"color": COLOURS[2]},
        hovertemplate="%{y} voxels near %{x:.3g}<extra></extra>", showlegend=False, row=2, col=1,
    )  # fmt: skip
    style(figure, 360).update_layout(bargap=0.05)
    figure.update_xaxes(title="voxel", row=1, col=1)
    figure.update_yaxes(title="response", nticks=5, row=1, col=1)
    figure.update_xaxes(title="response", row=2, col=1)
    figure.update_yaxes(title="voxels", nticks=5, row=2, col=1)
    return figure
