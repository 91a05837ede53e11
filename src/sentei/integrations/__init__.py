"""Pruning inside training loops that are not ours."""
