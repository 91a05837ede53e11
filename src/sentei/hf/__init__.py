"""Sentei with Hugging Face: the Trainer callback, tasks, data, metrics, and whole runs."""
