"""The shell: one command a file, each with `add_options(parser)` and `run(options)`, which returns the exit code."""
