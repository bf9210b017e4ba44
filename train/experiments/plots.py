"""Drawings for documents, as SVG that suits a light and a dark page."""

from html import escape

import numpy as np

from onellm.modalities.plots import COLOURS, GREY

WIDTH, HEIGHT = 320, 170  # of a panel
LEFT, TOP, GAP = 44, 40, 40
STEP = 0.05  # the scale ends at a multiple of it


def routing(models: dict[str, list]) -> str:
    """Draw what routers say of text alone and of text with files: a row a model, a panel each, a line a run.

    Args:
        models: name -> runs, each [layers, 2, 2]: the weights of both changes for text alone and with files.

    Returns:
        SVG.
    """
    values = np.concatenate([np.ravel(run) for runs in models.values() for run in runs])
    reach = max(STEP, STEP * np.ceil(np.abs(values - 0.5).max() / STEP - 1e-9))
    parts = []
    for row, (name, runs) in enumerate(models.items()):
        for column, what in enumerate(("text alone", "text with files")):
            x, y = LEFT + column * (WIDTH + 2 * GAP), TOP + row * (HEIGHT + 2 * GAP)
            lines = np.asarray(runs)[:, :, column]  # [runs, layers, changes]
            parts.append(f'<g transform="translate({x} {y})">{_panel(f"{name}: {what}", lines, reach)}</g>')
    width, height = LEFT + 2 * WIDTH + 3 * GAP, TOP + len(models) * (HEIGHT + 2 * GAP)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" '
        f'font-size="12" fill="{GREY}">\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _panel(title: str, runs: np.ndarray, reach: float) -> str:
    """Draw the weights of both changes, [runs, layers, 2], by layer; 0.5 is in the middle."""
    layers = runs.shape[1]

    def x(layer: int) -> float:
        return WIDTH * layer / max(1, layers - 1)

    def y(weight: float) -> float:
        return HEIGHT / 2 * (1 - (weight - 0.5) / reach)

    parts = [f'<text y="-10">{escape(title)}</text>']
    for weight in (0.5 - reach, 0.5, 0.5 + reach):
        parts.append(f'<path d="M0 {y(weight):.1f}h{WIDTH}" stroke="{GREY}" stroke-width="0.5"/>')
        parts.append(f'<text x="-6" y="{y(weight) + 4:.1f}" text-anchor="end">{weight:.2f}</text>')
    for layer in (0, layers - 1):
        parts.append(f'<text x="{x(layer):.1f}" y="{HEIGHT + 16}" text-anchor="middle">{layer + 1}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT + 16}" text-anchor="middle">layer</text>')
    for change, colour in enumerate((COLOURS[0], COLOURS[2])):
        for run in runs[:, :, change]:
            points = " ".join(f"{x(layer):.1f},{y(weight):.1f}" for layer, weight in enumerate(run))
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        last = runs[:, -1, change].mean()
        parts.append(f'<text x="{WIDTH + 4}" y="{y(last) + 4:.1f}" fill="{colour}">B{change}</text>')
    return "".join(parts)
