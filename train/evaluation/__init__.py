"""Measuring answers on held-out files, beside chance and a linear probe on the same frozen features."""

from train.evaluation.naming import evaluate

__all__ = ["evaluate"]
