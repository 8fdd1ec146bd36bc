"""The label that excludes a token or a window from the loss."""

IGNORE_INDEX = -100  # the default `ignore_index` of PyTorch's cross entropy
