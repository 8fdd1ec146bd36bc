"""Readers: files and data sets become questions, sentences or texts."""
