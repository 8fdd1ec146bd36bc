"""Decide which adapters a model gets and how they are composed, from options and saved JSON, before a model exists.

Everything that cannot work is rejected here: conflicting options, folders that do not fit the base model, adapters that
cannot be fused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from adapters import Fuse, Stack
from adapters.utils import ACTIVATION_RENAME

from adapter_qa.config.low_rank import NOT_FOR_LANGUAGE, NOT_FUSED, SETTINGS, is_low_rank, read_low_rank
from adapter_qa.config.options import (
    ADAPTER_CONFIGS,
    HEAD_FROM_QA,
    NEW,
    NO_LANGUAGE_ADAPTER,
    SMALLEST_REDUCTION,
    AdapterOptions,
    FusionOptions,
    LanguageAdapterOptions,
    TrainingOptions,
)
from adapter_qa.config.validation import parse_fuse_adapters, setup_problems
from adapter_qa.core.errors import UserError, raise_if_any, run_all
from adapter_qa.models.adapter_source import (
    ACTIVATIONS,
    KIND_KEYS,
    LANGUAGE_REDUCTION,
    LOCATIONS,
    TASK_REDUCTION,
    AdapterSite,
    AdapterSource,
    check_language_adapter,
    family_of,
    find_adapter,
    is_same_adapter,
    is_valid_reduction,
    kind_of,
    new_config,
    read_adapter,
    size_problems,
)
from adapter_qa.models.encoders import adapter_layers, encoder_of
from adapter_qa.models.file_names import HEAD_WEIGHTS
from adapter_qa.models.metadata import LanguageSwap
from adapter_qa.models.saved_adapters import (
    LANGUAGE_ADAPTER,
    TASK_NAMES,
    SavedAdapterSetup,
    SavedHead,
    check_saved_files,
    find_folder,
    read_setup,
)
from adapter_qa.models.weights import weight_names, weights_file

LONGEST_FUSION_NAME = 250  # it becomes the name of a folder, which file systems limit to 255 bytes


@dataclass(frozen=True)
class AdapterSetup:
    """The adapters of a model and their composition.

    Attributes:
        task: "qa", "ner" or "mlm"; decides the head and the name of the saved folder.
        language: the language adapter, which stays frozen.
        tasks: the task adapters; two or more are fused.
        composition: "stack" or "fuse", how the language adapter joins the fusion.
        layers: number of layers of the encoder.
        saved: the saved folder whose fusion and head are loaded.
        starting_head: the head from which that of a new fusion starts; None for random values.
        replaced: the saved language adapter whose place `language` takes; None without a language swap.
    """

    task: str
    language: AdapterSource | None
    tasks: tuple[AdapterSource, ...]
    composition: str
    layers: int
    saved: SavedAdapterSetup | None = None
    starting_head: SavedHead | None = None
    replaced: AdapterSource | None = None

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
    def replaced_sites(self) -> set[AdapterSite]:
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
        if self.saved is None or self.replaced is not None:
            return False
        return self.language is None or self.saved.language is not None

    @property
    def language_swap(self) -> LanguageSwap | None:
        """The record of the language swap, with absolute folders; None if there is none."""
        new, old = self.language, self.replaced
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
    def head_note(self) -> str | None:
        """For the user: where the head of a new fusion starts."""
        if not self.fused or self.saved is not None:
            return None
        names = [source.name for source in self.sources_of_head]
        if self.starting_head is not None:
            unused = f"; {', '.join(names[1:])} comes later and has one, too" if names[1:] else ""
            return f"fusion: the head starts from that of {names[0]}, {self.starting_head.folder}{unused}"
        fused = ", ".join(source.name for source in self.tasks)
        reason = "" if names else f", because none of {fused} was saved with a head for it"
        return f"fusion: the head starts from random values{reason}"

    @property
    def notes(self) -> list[str]:
        """For the user: assumptions that were made to read the saved folders."""
        assumed = self.saved.note if self.saved and self.language and self.replaced is None else None
        notes = [assumed, self._swap_note, *[source.note for source in self.adapters]]
        notes += self._notes_on_heads
        if self.replaced_sites:
            notes.append(f"{self.block}: one of the adapters is parallel, and the other has no effect where it stands")
        ignored = {"use_gating": "gate", "ln_after": "layer norm after the bottleneck"} if self.fused else {}
        notes += [
            f"{source.name}: its {part} ({key}) is left out by the fusion, which mixes the up-projections"
            for source in self.adapters
            if self.fusion is not None and source.name in self.fusion.children
            for key, part in ignored.items()
            if source.config[key]
        ]
        return [note for note in notes if note is not None]

    @property
    def _notes_on_heads(self) -> list[str | None]:
        """What becomes of the named heads in the saved folders.

        Of the heads of fused adapters, those for other tasks need no word.
        """
        if self.saved is not None:
            return [self.saved.head.note(self.task)] if self.saved.head is not None else []
        notes: list[str | None] = [self.starting_head.note(self.task)] if self.starting_head is not None else []
        for head in [source.head for source in self.tasks if source.head is not None]:
            if head.flexible is not None and head.flexible.purpose == self.task and head.task is None:
                notes.append(f"{head.folder}: {head.why_not_used}; it is left out")
        return notes

    @property
    def _swap_note(self) -> str | None:
        """Which language adapter replaces which, and where one of them has a part that the other lacks."""
        new, old = self.language, self.replaced
        if new is None or old is None:
            return None
        names = [f"{source.folder}{f' ({source.language})' if source.language else ''}" for source in (new, old)]
        note = f"language swap: {names[0]} replaces {names[1]} under {self.fusion or self.tasks[0].name}"
        for which, one, other in (("new", new, old), ("old", old, new)):
            parts = []
            sites = sorted(one.sites(self.layers) - other.sites(self.layers))
            if sites:
                more = f" and {len(sites) - 1} more" if sites[1:] else ""
                parts.append(f"a module at {sites[0]}{more}")
            if one.is_invertible and not other.is_invertible:
                parts.append("an invertible adapter")
            note += f"; only the {which} one has {' and '.join(parts)}" if parts else ""
        return note

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


# ---------------------------------------------------------------- decisions


def resolve_setup(
    task: str,
    base_config: dict[str, Any],
    adapter: AdapterOptions,
    lang: LanguageAdapterOptions | None = None,
    fusion: FusionOptions | None = None,
    *,
    random_init: bool = False,
) -> AdapterSetup | None:
    """Decide the setup of a run from its options and the saved folders that they name.

    Args:
        task: "qa", "ner" or "mlm".
        base_config: config.json of the base model.
        adapter: options of the task adapters, or of the language adapter that "mlm" trains.
        lang: None for the defaults.
        fusion: None for the defaults.
        random_init: whether the word "new" may replace the path of a saved adapter.

    Returns:
        The setup; None for full fine-tuning.

    Raises:
        UserError: if options conflict with each other or with the saved folders; lists every problem.
    """
    lang = lang or LanguageAdapterOptions()
    fusion = fusion or FusionOptions()
    values = _config_problems(ConfigOptions.of(adapter)) + _config_problems(ConfigOptions.of(lang))
    raise_if_any(setup_problems(adapter, lang, fusion) + values + _shared_layer_problems(adapter, base_config))
    if not fusion.train_adapter:
        return None
    if adapter.load_adapter is not None:
        setup = setup_from_saved("--load_adapter", adapter.load_adapter, task, base_config)
    else:
        tasks = _task_adapters(task, base_config, adapter, fusion, random_init=random_init)
        setup = AdapterSetup(task, None, tasks, fusion.adapter_composition, adapter_layers(base_config))
    setup = _with_language_adapter(setup, base_config, lang, random_init=random_init)
    setup = _with_layer_options(_with_one_inverse(setup), adapter)
    setup = _with_starting_head(setup, fusion)
    new = [source for source in setup.adapters if source.folder is None]
    raise_if_any(
        [problem for source in new for problem in size_problems(source, base_config)]
        + _setup_problems(setup, adapter, lang)
    )
    return setup


def setup_from_saved(option: str, path: str, task: str, base_config: dict[str, Any]) -> AdapterSetup:
    """Return the setup in an option's folder or hub id, of any library version; a single adapter is a setup, too.

    Raises:
        UserError: if there is no such folder, or it is damaged, or belongs to another encoder.
    """
    return setup_of_folder(read_setup(find_folder(option, path)), task, base_config)


def setup_of_folder(saved: SavedAdapterSetup, task: str, base_config: dict[str, Any]) -> AdapterSetup:
    """Return the setup that the files of a saved folder make; errors as in `setup_from_saved`."""

    def reader(name: str) -> Callable[[], AdapterSource]:
        return lambda: read_adapter(saved.adapters[name], name, base_config)

    names = [*saved.tasks, *([saved.language] if saved.language else [])]
    *sources, _ = run_all([*map(reader, names), lambda: check_saved_files(saved)])
    tasks = tuple(sources[: len(saved.tasks)])
    language = sources[-1] if saved.language else None
    setup = AdapterSetup(task, language, tasks, saved.composition, adapter_layers(base_config), saved)
    return _with_one_inverse(setup)


def setup_for_inference(option: str, path: str, base_config: dict[str, Any], language: str | None) -> AdapterSetup:
    """Return the setup that answers questions with a saved folder; `language` is the value of --load_lang_adapter.

    Raises:
        UserError: as in `setup_from_saved`, or if the adapters cannot be used together.
    """
    lang = LanguageAdapterOptions(load_lang_adapter=language)
    setup = _with_language_adapter(setup_from_saved(option, path, "qa", base_config), base_config, lang)
    setup = _with_one_inverse(setup)
    raise_if_any(_setup_problems(setup, AdapterOptions(), lang))
    return setup


def check_head(setup: AdapterSetup | None, training: TrainingOptions) -> None:
    """Refuse to evaluate or predict with an adapter that was saved without a head for the task.

    Raises:
        UserError: if there is no such head, and the run does not train one.
    """
    if setup is None or setup.loads_saved_head or training.do_train or training.dry_run:
        return
    folder = setup.tasks[0].folder
    if folder is None:
        return
    head = setup.saved.head if setup.saved is not None else None
    owner = f" ({head.why_not_used})" if head is not None else ""
    raise UserError(f"{folder}: comes without a {TASK_NAMES[setup.task]} head{owner}; add --do_train to train one")


# ---------------------------------------------------------------- adapters


def _task_adapters(
    task: str, base_config: dict[str, Any], adapter: AdapterOptions, fusion: FusionOptions, *, random_init: bool
) -> tuple[AdapterSource, ...]:
    """Return the adapters to fuse, or one new adapter to train."""
    kind, reduction = ("pfeiffer+inv", LANGUAGE_REDUCTION) if task == "mlm" else ("pfeiffer", TASK_REDUCTION)
    config = ConfigOptions.of(adapter).new_config(kind, reduction)
    if fusion.fuse_adapters is None:
        return (AdapterSource(task, config, language=adapter.language),)

    def reader(name: str, path: str) -> Callable[[], AdapterSource]:
        new = AdapterSource(name, config)
        return lambda: _saved_or_new(f"--fuse_adapters {name}", path, new, base_config, random_init=random_init)

    paths, _ = parse_fuse_adapters(fusion.fuse_adapters)
    return tuple(run_all(reader(name, path) for name, path in paths.items()))


def _with_language_adapter(
    setup: AdapterSetup, base_config: dict[str, Any], lang: LanguageAdapterOptions, *, random_init: bool = False
) -> AdapterSetup:
    """Return the setup with the language adapter of --load_lang_adapter, or without one."""
    path, option = lang.load_lang_adapter, f"--load_lang_adapter {lang.load_lang_adapter}"
    if path is None:
        return setup
    if path == NO_LANGUAGE_ADAPTER:
        if setup.language is not None and setup.composition == "fuse":
            raise UserError(f"{option}: {setup.language.name} is part of the fusion; leave the option out")
        return replace(setup, language=None)
    if setup.language is not None and setup.saved is not None:
        return _with_language_swap(setup, setup.language, path, base_config)
    config = ConfigOptions.of(lang).new_config("pfeiffer+inv", LANGUAGE_REDUCTION)
    new = AdapterSource(LANGUAGE_ADAPTER, config)
    language = _saved_or_new("--load_lang_adapter", path, new, base_config, random_init=random_init)
    if language.folder is not None:
        check_language_adapter("--load_lang_adapter", path)
    return replace(setup, language=language)


def _with_language_swap(
    setup: AdapterSetup, current: AdapterSource, path: str, base_config: dict[str, Any]
) -> AdapterSetup:
    """Return a saved setup with another language adapter in place of its current one; unchanged if it is the same."""
    option = f"--load_lang_adapter {path}"
    if setup.composition == "fuse":
        raise UserError(
            f"{option}: {current.name} is part of the fusion, which cannot take another one; leave the option out"
        )
    if path == NEW:
        raise UserError(f"{option}: only a saved language adapter can replace {current.folder}; give its folder")
    given = find_adapter("--load_lang_adapter", path, LANGUAGE_ADAPTER, base_config)
    check_language_adapter("--load_lang_adapter", path)
    if is_same_adapter(given, current):
        return replace(setup, language=current.with_note(f"{option}: the same language adapter as {current.folder}"))
    return replace(setup, language=given, replaced=current)


def _run_folder(source: AdapterSource) -> str:
    """Return the absolute path of the run that a saved adapter belongs to, or of the adapter itself."""
    folder = source.origin.folder if source.origin is not None else source.folder
    if folder is None:
        raise ValueError(f"{source.name}: is not saved")
    folder = folder.resolve()
    return str(folder.parent if folder.name.startswith("adapters-") else folder)


def _with_one_inverse(setup: AdapterSetup) -> AdapterSetup:
    """Return the setup without the invertible adapters that the library would not use: it takes the first adapter's."""
    first = setup.adapters[0]

    def without(source: AdapterSource) -> AdapterSource:
        if source is first or source.folder is None:
            return source
        return source.without_inverse(f"only that of the first adapter, {first.name}, is used")

    return replace(setup, tasks=tuple(map(without, setup.tasks)))


def _with_starting_head(setup: AdapterSetup, fusion: FusionOptions) -> AdapterSetup:
    """Return the setup with the head from which that of a new fusion starts, as --fusion_head says."""
    if fusion.fuse_adapters is None or fusion.fusion_head == NEW:
        return setup
    sources = setup.sources_of_head
    if sources and (head := sources[0].head) is not None:
        weight_names(weights_file(head.folder, *HEAD_WEIGHTS))
        return replace(setup, starting_head=head)
    if fusion.fusion_head == HEAD_FROM_QA:
        names = ", ".join(source.name for source in setup.tasks)
        raise UserError(
            f"--fusion_head {HEAD_FROM_QA}: none of {names} was saved with a question answering head; fuse the "
            f"adapters-qa folder of a run, or give --fusion_head {NEW}"
        )
    return setup


def _saved_or_new(
    option: str, path: str, new: AdapterSource, base_config: dict[str, Any], *, random_init: bool
) -> AdapterSource:
    """Return the adapter saved at a path, or `new` if the path is the word "new"."""
    if path != NEW:
        return find_adapter(option, path, new.name, base_config)
    if not random_init:
        raise UserError(f"{option} {NEW}: a new adapter can replace a saved one only with --random_init True")
    return new


def _with_layer_options(setup: AdapterSetup, options: AdapterOptions) -> AdapterSetup:
    """Return the setup with --madx2 applied to every adapter, and --houlsby_MHA_lastlayer to new task adapters."""
    last = setup.layers - 1

    def with_options(source: AdapterSource) -> AdapterSource:
        if options.houlsby_MHA_lastlayer and source.folder is None and source is not setup.language:
            source = replace(source, attention_only_last_layer=True)
        leave_out = source.config["leave_out"]
        if options.madx2 and last not in leave_out:
            source = replace(source, config={**source.config, "leave_out": [*leave_out, last]})
        return source

    language = with_options(setup.language) if setup.language else None
    return replace(setup, language=language, tasks=tuple(map(with_options, setup.tasks)))


# ---------------------------------------------------------------- problems with options


def _config_problems(options: ConfigOptions) -> list[str]:
    """Return the values that no adapter can have."""
    problems = []
    prefix, _, reduction_factor, non_linearity = options
    if non_linearity is not None and non_linearity.lower() not in ACTIVATIONS:
        problems.append(
            f"{prefix}_non_linearity {non_linearity}: no such activation; "
            "common ones are gelu, gelu_new, relu, swish, tanh"
        )
    if reduction_factor is not None and not is_valid_reduction(reduction_factor):
        problems.append(
            f"{prefix}_reduction_factor {reduction_factor:g}: must be a number of at least {SMALLEST_REDUCTION:g}"
        )
    return problems


def _shared_layer_problems(options: AdapterOptions, base_config: dict[str, Any]) -> list[str]:
    """Return the options that leave out an adapter of the last layer, if all layers have the same one."""
    given = {"--madx2": options.madx2, "--houlsby_MHA_lastlayer": options.houlsby_MHA_lastlayer}
    return [
        f"{option}: all layers of {base_config['model_type']} share their weights and their adapter, so that the last "
        "one cannot go without it; leave the option out"
        for option, value in given.items()
        if value and encoder_of(base_config).shares_layers
    ]


# ---------------------------------------------------------------- problems with saved adapters


def _setup_problems(setup: AdapterSetup, adapter: AdapterOptions, lang: LanguageAdapterOptions) -> list[str]:
    """Return conflicts between options and saved adapters, and among the adapters."""
    problems = _composition_problems(setup)
    for source in setup.tasks:
        problems += _contradictions(ConfigOptions.of(adapter), source)
    if setup.language:
        problems += _contradictions(ConfigOptions.of(lang), setup.language)
        if adapter.language and setup.language.language and adapter.language != setup.language.language:
            problems.append(
                f"--language {adapter.language}: the language adapter was trained for {setup.language.language}"
            )
    else:
        prefix, *values = ConfigOptions.of(lang)
        problems += [
            f"{prefix}_{name} {value}: there is no language adapter; add --load_lang_adapter, or leave the option out"
            for name, value in zip(("config", "reduction_factor", "non_linearity"), values, strict=True)
            if value is not None
        ]
    if adapter.houlsby_MHA_lastlayer:
        problems += _last_layer_problems(setup, adapter)
    fusion = setup.fusion
    return problems + (_fusion_problems(setup, fusion) if fusion is not None else [])


def _composition_problems(setup: AdapterSetup) -> list[str]:
    """Return adapters, or parts of them, that would have no effect in the setup."""
    problems = []
    names = [source.name for source in setup.adapters]
    if len(set(names)) < len(names):
        problems.append(
            f"adapters need different names, given are {', '.join(names)}; {LANGUAGE_ADAPTER} is the language adapter"
        )
    by_folder: dict[Path, str] = {}
    for source in setup.adapters:
        if source.folder is not None:
            other = by_folder.setdefault(source.folder.resolve(), source.name)
            if other != source.name:
                problems.append(f"{other} and {source.name} are the same adapter, {source.folder}; give another one")
    problems += [
        f"{source.name}: {kind_of(source.config)}: {NOT_FOR_LANGUAGE}"
        for source in setup.adapters
        if source.is_low_rank and (source is setup.language or setup.task == "mlm")
    ]
    first, *others = setup.adapters
    for source in others:
        if source.is_invertible:
            problems.append(
                f"{source.name}: its invertible adapter would have no effect, because only that of the first adapter, "
                f"{first.name}, is used; give --adapter_config without +inv, such as pfeiffer or houlsby"
            )
    for source in setup.adapters:
        if not source.has_modules(setup.layers) and (setup.fused or source is not first or not source.is_invertible):
            problems.append(
                f"{source.name}: has no module in any of the {setup.layers} layers of the base model; leave out fewer "
                "layers (leave_out, --madx2)"
            )
    language = setup.language
    if language is not None and setup.replaced_sites and not setup.is_saved_composition:
        parallel, replaced = (
            (language.name, "the block itself")
            if language.is_parallel
            else (", ".join(source.name for source in setup.tasks if source.is_parallel), language.name)
        )
        problems.append(
            f"{setup.block}: {parallel} is parallel, and would leave {replaced} without effect at "
            f"{min(setup.replaced_sites)}; give an adapter that is not parallel, such as pfeiffer or houlsby, or no "
            "language adapter"
        )
    return problems


def _contradictions(options: ConfigOptions, source: AdapterSource) -> list[str]:
    """Return the options that contradict the configuration of a saved adapter; a new adapter contradicts none."""
    if source.folder is None:
        return []
    values = {"reduction_factor": options.reduction_factor, "non_linearity": options.non_linearity}
    expected: dict[str, Any] = {key: value for key, value in values.items() if value is not None}
    trained = kind_of(source.config)
    if expected and source.is_low_rank:
        return [
            f"{options.prefix}_{key} {value}: {source.folder} was trained with {trained}, which has none; leave the "
            "option out"
            for key, value in expected.items()
        ]
    if options.kind is not None:
        config = options.new_config(options.kind, TASK_REDUCTION)
        if family_of(config) != family_of(source.config):
            return [
                f"{options.prefix}_config {options.kind}: {source.folder} was trained with {trained}; leave the option "
                "out"
            ]
        # A kind's name leaves reduction and activation open, a file does not.
        keys: Iterable[str] = KIND_KEYS if options.kind in ADAPTER_CONFIGS else (*KIND_KEYS, *values)
        if source.is_low_rank:
            keys = read_low_rank(options.kind)[0] if is_low_rank(options.kind) else SETTINGS
        expected |= {key: config[key] for key in keys}

    def is_legacy_name(key: str, value: object) -> bool:
        return source.is_legacy and key == "non_linearity" and ACTIVATION_RENAME.get(value) == source.config[key]

    return [
        f"{options.prefix}_* options ask for {key} {value}, but {source.folder} was trained with {source.config[key]}; "
        "leave the option out"
        for key, value in expected.items()
        if value != source.config[key] and not is_legacy_name(key, value)
    ]


def _last_layer_problems(setup: AdapterSetup, adapter: AdapterOptions) -> list[str]:
    """Return what prevents --houlsby_MHA_lastlayer."""
    problems = []
    for source in setup.tasks:
        if not all(source.config.get(location) for location in LOCATIONS):
            problems.append(
                f"--houlsby_MHA_lastlayer: {source.name} is not a houlsby adapter; give --adapter_config houlsby"
            )
        elif not source.attention_only_last_layer:
            problems.append(
                f"--houlsby_MHA_lastlayer: {source.folder} was trained with an adapter after the last feed-forward "
                "block; leave the option out"
            )
    if adapter.madx2:
        problems.append(
            "--houlsby_MHA_lastlayer and --madx2 exclude each other: in the last layer, the first removes one of two "
            "modules, the second removes both"
        )
    return problems


def _fusion_problems(setup: AdapterSetup, fusion: Fuse) -> list[str]:
    """Return what prevents the library from running a fusion.

    Fused adapters must be of the same kind. The library takes residual and query of the fusion from the last fused
    adapter, which therefore needs a module at every site where any adapter of the setup has one.
    """
    low_rank = [f"{source.name} is {kind_of(source.config)}" for source in setup.adapters if source.is_low_rank]
    if low_rank:
        return [f"{setup.block}: {', '.join(low_rank)}; {NOT_FUSED}"]
    if len(fusion.name) > LONGEST_FUSION_NAME:
        return [f"the fused adapters' names have {len(fusion.name)} letters; give at most {LONGEST_FUSION_NAME} in all"]
    fused = [source for source in setup.adapters if source.name in fusion.children]
    # A fusion that was saved by an earlier version was trained with the inputs that its adapters get in it.
    kinds = {source.name: _kind_name(source, with_input=setup.saved is None) for source in fused}
    if len(set(kinds.values())) > 1:
        listed = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
        return [f"adapters of different kinds cannot be fused: {listed}; train them with one --adapter_config"]
    sites = {source.name: source.sites(setup.layers) for source in setup.adapters}
    last = fused[-1].name
    missing = sorted(set().union(*sites.values()) - sites[last])
    if missing:
        names = [name for name in sites if missing[0] in sites[name]]
        advice = "add --madx2 True, or fuse adapters with the same layers"
        if setup.saved is not None:  # a script that asks has no --madx2
            advice = "give a language adapter without one, as --madx2 True trains it"
        return [
            f"{missing[0]}: {', '.join(names)} {'has' if len(names) == 1 else 'have'} a module there, but {last}, the "
            f"last adapter in the fusion, has none; {advice}"
        ]
    return []


def _kind_name(source: AdapterSource, *, with_input: bool) -> str:
    """Return in words what fused adapters must have in common: the locations, and what the modules take as input."""
    config = source.config
    names = {(True, True): "houlsby", (False, True): "pfeiffer", (True, False): "attention only"}
    name = names.get((bool(config["mh_adapter"]), bool(config["output_adapter"])), "none")
    if not with_input:
        return name
    if source.is_parallel:
        return f"{name} parallel"
    takes_norm = bool(config["original_ln_before"])
    return name if takes_norm == (name != "houlsby") else f"{name} with original_ln_before {str(takes_norm).lower()}"
