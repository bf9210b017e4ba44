"""Measured facts of point clouds, depth and normal maps: size, colours, nearest and farthest."""

import numpy as np

from onellm.modalities.base import Sample
from onellm.model.experts.base import Expert, Finding
from onellm.model.experts.colours import COLOURS, main_names, shares
from onellm.model.experts.wording import listed

ODD_SHARE = 0.15  # of known pixels; fewer are told
METRIC = (".glb",)  # glTF 2.0, section 3.4: "The units for all linear distances are meters"
OUTLIERS = 0.1  # per cent of the pixels at both ends that do not count as nearest and farthest


class Measures(Expert):
    """What can be computed of a shape or a map."""

    name = "measures"
    modalities = ("point", "depth", "normal")

    def find(self, sample: Sample) -> Finding | None:
        """Say the size and the colours of points, the distances of a depth map; None where there is nothing to say."""
        return {"point": self._points, "depth": self._depth, "normal": self._normals}[sample.modality](sample)

    def _points(self, sample: Sample) -> Finding:
        """Of the formats that are read, only glTF says its unit: metres."""
        size = np.ptp(sample.array[:, :3].astype(np.float64), axis=0)
        metres = sample.name.lower().endswith(METRIC)
        wide, deep, high = (_short(value) + (" metres" if metres else "") for value in size)
        text = f"Size: {wide} wide, {deep} deep and {high} high" + ("." if metres else " (units unknown).")
        details: tuple[dict, ...] = ({"size": [float(value) for value in size], "metres": metres},)
        if sample.coloured:
            share = shares(sample.array[:, 3:].clip(0, 1))
            text += f" Colours: {listed(main_names(share))}."
            details += ({"colours": {COLOURS[i]: round(float(share[i]), 3) for i in np.argsort(-share) if share[i]}},)
        return Finding(self.name, text + ("" if sample.coloured else " Colours: none in the file."), None, details)

    def _depth(self, sample: Sample) -> Finding:
        known = sample.array[np.isfinite(sample.array)]
        near, far = (float(value) for value in np.percentile(known, (OUTLIERS, 100 - OUTLIERS)))
        if sample.relative:
            times = _short(far / near)  # `clean` of the modality keeps what is above 0
            text = f"Distance: relative, not in metres; the farthest point is {times} times as far as the nearest."
        elif far - near < 1e-3 * far:
            text = f"Distance: {_short(near)} metres everywhere."
        else:
            text = f"Distance: the nearest point is {_short(near)} metres away, the farthest {_short(far)} metres."
        details = {"near": near, "far": far, "metres": not sample.relative}
        return self._map(text, known.size / sample.array.size, details)

    def _normals(self, sample: Sample) -> Finding | None:
        share = float((sample.array != 0).any(axis=2).mean())
        return self._map("", share, {}) if share < ODD_SHARE else None

    def _map(self, text: str, share: float, details: dict) -> Finding:
        if share < ODD_SHARE:
            text = f"{text} Only {share:.0%} of the pixels are known.".strip()
        return Finding(self.name, text, None, (details | {"known": round(share, 3)},))


def _short(value: float) -> str:
    """Return a number with three digits that count, in digits alone where people would write it so."""
    if value == 0 or 1e-3 <= abs(value) < 1000:
        return f"{value:.3g}"
    return f"{value:.0f}" if 1 <= abs(value) < 1e6 else f"{value:.2e}"
