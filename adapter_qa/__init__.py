"""Extractive question answering with language, task and fusion adapters: the packages behind the scripts."""

__version__ = "0.2.0"
