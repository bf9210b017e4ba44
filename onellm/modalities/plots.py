"""What all plotted previews share: colours and layout that suit a light and a dark page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import plotly.graph_objects

__all__ = ["COLOURS", "GREY", "GRID", "spread", "style"]

GREY = "#8a8f98"  # text and axes: 3:1 or better on white and on near-black
GRID = "rgba(138,143,152,0.25)"
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


def spread(length: int, count: int) -> np.ndarray:
    """Return at most `count` evenly spread indices below `length`, first and last included."""
    if length <= count:
        return np.arange(length)
    return np.linspace(0, length - 1, count).round().astype(int)
