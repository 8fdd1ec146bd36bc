"""What a model gets: its adapters and their composition, decided before it exists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from adapters import Fuse, Stack

from adapter_qa.config.options import AdapterOptions, LanguageAdapterOptions
from adapter_qa.models.adapter_config import new_config
from adapter_qa.models.adapter_source import AdapterSite, AdapterSource
from adapter_qa.models.metadata import LanguageSwap
from adapter_qa.models.saved_adapters import SavedAdapterSetup, SavedHead
from adapter_qa.models.tasks import Task


@dataclass(frozen=True)
class AdapterSetup:
    """The adapters of a model and their composition.

    Attributes:
        task: decides the head and the name of the saved folder.
        language: the language adapter, which stays frozen.
        tasks: the task adapters; two or more are fused.
        composition: "stack" or "fuse", how the language adapter joins the fusion.
        layers: number of layers of the encoder.
        saved: the saved folder whose fusion and head are loaded.
        starting_head: the head from which that of a new fusion starts; None for random values.
        swapped_out: the saved language adapter whose place `language` takes; None without a language swap.
    """

    task: Task
    language: AdapterSource | None
    tasks: tuple[AdapterSource, ...]
    composition: str
    layers: int
    saved: SavedAdapterSetup | None = None
    starting_head: SavedHead | None = None
    swapped_out: AdapterSource | None = None

    @property
    def fused(self) -> bool:
        """Whether the task adapters are fused."""
        return len(self.tasks) > 1

    @property
    def adapters(self) -> tuple[AdapterSource, ...]:
        """All adapters, the language adapter first."""
        return ((self.language,) if self.language else ()) + self.tasks

    @property
    def fusion(self) -> Fuse | None:
        """The fusion block, if the setup has one."""
        if not self.fused:
            return None
        return Fuse(*[source.name for source in (self.adapters if self.composition == "fuse" else self.tasks)])

    @property
    def block(self) -> Stack | Fuse:
        """The composition for the library, e.g. `Stack[mlm, Fuse[qa, ner]]`."""
        fusion = self.fusion
        if fusion is not None and (self.language is None or self.composition == "fuse"):
            return fusion
        return Stack(*([self.language.name] if self.language else []), fusion or self.tasks[0].name)

    @property
    def overridden_sites(self) -> set[AdapterSite]:
        """The sites where a parallel adapter and another one are stacked.

        A parallel adapter takes the input of the block. So the module below a parallel task adapter has no effect, and
        below a sequential task adapter a parallel language adapter removes the output of the block itself.
        """
        if self.language is None or self.composition == "fuse":
            return set()
        stacked = [source for source in self.tasks if source.is_parallel or self.language.is_parallel]
        return self.language.sites(self.layers) & set().union(*(source.sites(self.layers) for source in stacked))

    @property
    def is_saved_composition(self) -> bool:
        """Whether the adapters are composed as in the saved folder, without a language adapter from elsewhere."""
        if self.saved is None or self.swapped_out is not None:
            return False
        return self.language is None or self.saved.language is not None

    @property
    def language_swap(self) -> LanguageSwap | None:
        """The record of the language swap, with absolute folders; None if there is none."""
        new, old = self.language, self.swapped_out
        if new is None or old is None:
            return None
        return LanguageSwap(_run_folder(new), _run_folder(old), new.language, old.language)

    @property
    def language_swaps(self) -> tuple[LanguageSwap, ...]:
        """The language swaps of all runs that trained the task adapters, this one last."""
        earlier = self.saved.metadata.language_swaps if self.saved is not None else ()
        return earlier if self.language_swap is None else (*earlier, self.language_swap)

    @property
    def loads_saved_head(self) -> bool:
        """Whether the saved folder has a head for this task."""
        return self.saved is not None and self.saved.head is not None and self.saved.head.task == self.task

    @property
    def sources_of_head(self) -> list[AdapterSource]:
        """The fused adapters that were saved with a head for this task."""
        return [source for source in self.tasks if source.head is not None and source.head.task == self.task]

    @property
    def folder_name(self) -> str:
        """Name of the folder to save to: `adapters-fusion`, or `adapters-<task>` for a single adapter."""
        return f"adapters-{'fusion' if self.fused else self.task}"


class ConfigOptions(NamedTuple):
    """The options that describe the configuration of one adapter; the names of the options start with `prefix`."""

    prefix: str
    kind: str | None
    reduction_factor: float | None
    non_linearity: str | None

    @classmethod
    def of(cls, options: AdapterOptions | LanguageAdapterOptions) -> ConfigOptions:
        """Select the options of the task adapters or of the language adapter."""
        if isinstance(options, AdapterOptions):
            reduction, non_linearity = options.adapter_reduction_factor, options.adapter_non_linearity
            return cls("--adapter", options.adapter_config, reduction, non_linearity)
        reduction, non_linearity = options.lang_adapter_reduction_factor, options.lang_adapter_non_linearity
        return cls("--lang_adapter", options.lang_adapter_config, reduction, non_linearity)

    def new_config(self, kind: str, reduction: int) -> dict[str, Any]:
        """Return the configuration of a new adapter, with defaults for the kind and its reduction factor."""
        return new_config(self.kind or kind, self.reduction_factor, self.non_linearity, reduction)


def _run_folder(source: AdapterSource) -> str:
    """Return the absolute path of the run that a saved adapter belongs to, or of the adapter itself."""
    folder = source.origin.folder if source.origin is not None else source.folder
    if folder is None:
        raise ValueError(f"{source.name}: is not saved")
    folder = folder.resolve()
    return str(folder.parent if folder.name.startswith("adapters-") else folder)
