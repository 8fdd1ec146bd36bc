"""Checks of the options, a module for each subject; `config.validation` lists them."""
