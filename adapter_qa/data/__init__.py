"""Readers of questions, sentences and text, and the datasets, batches and metrics made from them."""
