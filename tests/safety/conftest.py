"""What hostile files, many visitors and a long life are measured with: figures, and a short and a long form."""

import os

import pytest
from toy_recipe import scans, settings, toy  # noqa: F401

SOAK = bool(os.environ.get("SOAK"))
FIGURES: list[str] = []


@pytest.fixture
def figure(request):
    """Print what was measured, now and in a section at the end of the run."""

    def tell(what, value, expected):
        line = f"{what}: {value} (expected: {expected})"
        FIGURES.append(line)
        print(line)

    return tell


@pytest.fixture
def soak():
    """Choose between the numbers of the short form, in the suite, and the long one, `make soak`."""
    return lambda short, long: long if SOAK else short


def pytest_terminal_summary(terminalreporter):
    if FIGURES:
        terminalreporter.section("figures")
        for line in FIGURES:
            terminalreporter.line(line)
