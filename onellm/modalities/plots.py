"""What all plotted previews share: colours and layout that suit a light and a dark page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import plotly.graph_objects

__all__ = ["COLOURS", "GREY", "GRID", "spread", "style", "veil"]

GREY = "#8a8f98"  # text and axes: 3:1 or better on white and on near-black
GRID = "rgba(138,143,152,0.25)"
VEIL = "rgba(138,143,152,0.5)"
COLOURS = ("#e4572e", "#2a9d5c", "#3d7dd8")  # x, y, z


def style(figure: plotly.graph_objects.Figure, height: int = 320) -> plotly.graph_objects.Figure:
    """Give a figure the common look: transparent, grey text, thin grid, small margins.

    Args:
        figure: the figure, changed in place.
        height: its height in pixels.

    Returns:
        The same figure.
    """
    figure.update_layout(
        template="none",
        height=height,
        autosize=True,
        margin={"l": 56, "r": 16, "t": 28, "b": 44},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": GREY, "size": 12, "family": "system-ui, sans-serif"},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": COLOURS[2]},
    )
    axes = {"gridcolor": GRID, "linecolor": GRID, "zeroline": False, "tickcolor": GRID, "automargin": True}
    figure.update_xaxes(**axes)
    figure.update_yaxes(**axes)
    return figure


def veil(figure: plotly.graph_objects.Figure, taken: list[tuple[float, float]], duration_s: float) -> bool:
    """Cover what a model does not take of a recording.

    Args:
        figure: a figure whose x axes show seconds, changed in place.
        taken: start and end in seconds of what it takes, in order; nothing is covered if that is unknown (empty).
        duration_s: where the recording ends.

    Returns:
        Whether anything was covered.
    """
    edges = [0.0, *(edge for part in taken for edge in part), duration_s]
    gaps = [(left, right) for left, right in zip(edges[::2], edges[1::2], strict=True) if right - left > 0.02]
    for left, right in gaps if taken else ():
        figure.add_shape(
            type="rect", xref="x", yref="paper", x0=left, x1=right, y0=0, y1=1, line={"width": 0}, fillcolor=VEIL
        )
    return bool(taken and gaps)


def spread(length: int, count: int) -> np.ndarray:
    """Return at most `count` evenly spread indices below `length`, first and last included."""
    if length <= count:
        return np.arange(length)
    return np.linspace(0, length - 1, count).round().astype(int)
