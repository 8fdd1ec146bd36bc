"""What every other package builds on: errors, messages, files, signals, processes and the command line."""
