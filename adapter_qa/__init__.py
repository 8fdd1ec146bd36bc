"""Rooms of the trainer: one subject each, importable on a CPU, silent on import."""
