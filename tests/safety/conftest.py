"""What hostile files, many visitors and a long life are measured with: figures, and a short and a long form."""

import os

import pytest
from toy_recipe import scans, settings, toy  # noqa: F401

SOAK = bool(os.environ.get("SOAK"))


@pytest.fixture
def figure(request):
    """Print what was measured, now and in a section at the end of the run."""

    def tell(what, value, expected):
        line = f"{what}: {value} (expected: {expected})"
        request.node.user_properties.append(("figure", line))
        print(line)

    return tell


@pytest.fixture
def soak():
    """Choose between the numbers of the short form, in the suite, and the long one, `make soak`."""
    return lambda short, long: long if SOAK else short


def pytest_collection_modifyitems(config, items):
    """Leave out of the short form what only the long one has time for."""
    if not SOAK:
        long = [item for item in items if item.get_closest_marker("soak")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)
