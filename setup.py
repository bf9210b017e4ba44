"""What pyproject.toml cannot say: the examples at the top of the tree are installed inside the package."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["onellm*", "train*"]), "onellm.examples"],
    package_dir={"onellm.examples": "examples"},
)
