"""Comparison of finished runs: tables, pictures and the HTML report."""
