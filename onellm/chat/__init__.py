"""Conversations: generation, streaming, traces and generated media."""
