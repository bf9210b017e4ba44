"""Which models there are; fetching, converting and loading them."""
