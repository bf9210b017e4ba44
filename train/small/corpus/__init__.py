"""The small corpus: real, licensed data that Debian's and Python's package registries ship; see README.md."""
