"""Who asks, and what a visitor may send and keep."""
