"""The folder of a run: names, lock, record, checkpoints, model card and upload to the hub."""
