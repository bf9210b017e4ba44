"""Experiments whose end is a table: ablations, adapters, transfer, forgetting."""
