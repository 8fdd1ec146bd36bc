"""Hyperparameter search: the file of a sweep, its trials, and the workers that run them."""
