"""`python -m onellm models`: which models are here or could be."""

import argparse

from onellm.cli import tables
from onellm.hub import catalogue


def add_options(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def run(options: argparse.Namespace) -> int:
    """List the known models."""
    print(tables.catalogue(catalogue.asked(catalogue.entries())))
    return 0
