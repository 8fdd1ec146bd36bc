"""What a training script does around its run, from before torch is imported to the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from adapter_qa.core.distributed import destroy_process_group_on_exit
from adapter_qa.core.library_notices import silenced_training
from adapter_qa.core.resource_errors import report_resource_errors
from adapter_qa.core.signals import raise_on_signal


@contextmanager
def training_process() -> Iterator[None]:
    """Decorate a training script's `execute`: signals, errors of memory and disk, notices, and the process group.

    Raises:
        Interrupted: a signal came.
        RunError: memory or a file operation failed.
    """
    with destroy_process_group_on_exit(), raise_on_signal(), report_resource_errors(), silenced_training():
        yield
