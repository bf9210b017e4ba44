"""What a terminal shows: one command a file."""
