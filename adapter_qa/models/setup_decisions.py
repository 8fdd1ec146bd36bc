"""Decide which adapters a model gets and how they are composed, from options and saved JSON, before a model exists.

Everything that cannot work is rejected here: conflicting options, folders that do not fit the base model, adapters that
cannot be fused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from adapter_qa.config.checks.adapter_options import parse_fuse_adapters, setup_problems
from adapter_qa.config.options import (
    HEAD_FROM_QA,
    NEW,
    NO_LANGUAGE_ADAPTER,
    AdapterOptions,
    FusionOptions,
    LanguageAdapterOptions,
    TrainingOptions,
)
from adapter_qa.core.errors import UserError, raise_if_any, run_all, run_each
from adapter_qa.models.adapter_config import LANGUAGE_REDUCTION, TASK_REDUCTION
from adapter_qa.models.adapter_setup import AdapterSetup, ConfigOptions
from adapter_qa.models.adapter_source import (
    AdapterSource,
    check_language_adapter,
    find_adapter,
    is_same_adapter,
    read_adapter,
    size_problems,
)
from adapter_qa.models.encoders import adapter_layers
from adapter_qa.models.file_names import HEAD_WEIGHTS
from adapter_qa.models.saved_adapters import (
    LANGUAGE_ADAPTER,
    SavedAdapterSetup,
    check_saved_files,
    read_setup,
)
from adapter_qa.models.saved_folders import find_folder
from adapter_qa.models.setup_problems import adapter_problems, option_problems, shared_layer_problems
from adapter_qa.models.tasks import TASKS, Task
from adapter_qa.models.weights import find_weights, weight_names

# ---------------------------------------------------------------- decisions


def resolve_setup(
    task: Task,
    base_config: dict[str, Any],
    adapter: AdapterOptions,
    lang: LanguageAdapterOptions | None = None,
    fusion: FusionOptions | None = None,
    *,
    random_init: bool = False,
) -> AdapterSetup | None:
    """Decide the setup of a run from its options and the saved folders that they name.

    Args:
        task: what the model is for.
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
    values = option_problems(ConfigOptions.of(adapter)) + option_problems(ConfigOptions.of(lang))
    raise_if_any(setup_problems(adapter, lang, fusion) + values + shared_layer_problems(adapter, base_config))
    if not fusion.train_adapter:
        return None

    def without_language_option() -> AdapterSetup:
        if adapter.load_adapter is not None:
            check_task(adapter.load_adapter, task)
            return setup_from_saved("--load_adapter", adapter.load_adapter, task, base_config)
        tasks = _task_adapters(task, base_config, adapter, fusion, random_init=random_init)
        return AdapterSetup(task, None, tasks, fusion.adapter_composition, adapter_layers(base_config))

    setup, language = run_all(
        without_language_option, lambda: _given_language_adapter(lang, base_config, random_init=random_init)
    )
    setup = _with_language_adapter(setup, language, lang)
    setup = _with_layer_options(_with_one_inverse(setup), adapter)
    setup = _with_starting_head(_with_notes_on_language(setup, fusion, base_config), fusion)
    new = [source for source in setup.adapters if source.folder is None]
    raise_if_any(
        [problem for source in new for problem in size_problems(source, base_config)]
        + adapter_problems(setup, adapter, lang)
    )
    return setup


def setup_from_saved(option: str, path: str, task: Task, base_config: dict[str, Any]) -> AdapterSetup:
    """Return the setup in an option's folder or hub id, of any library version; a single adapter is a setup, too.

    Raises:
        UserError: if there is no such folder, or it is damaged, or belongs to another encoder.
    """
    return setup_of_folder(read_setup(find_folder(option, path)), task, base_config)


def check_task(path: str, task: Task) -> None:
    """Refuse to train a language adapter for another task, or another adapter for masked language modelling.

    Raises:
        UserError: if --load_adapter asks for that, or there is no such folder.
    """
    option = "--load_adapter"
    saved = read_setup(find_folder(option, path))
    trained_for = saved.metadata.task
    if task != "mlm":
        if trained_for == "mlm" or (saved.head is not None and saved.head.task == "mlm"):
            raise UserError(
                f"{option} {path}: is a language adapter; give it as --load_lang_adapter, which puts an adapter for "
                f"{TASKS[task].name} on it"
            )
        return
    if saved.language is None and trained_for in (None, "mlm"):
        check_language_adapter(option, path)
        return
    others = " and ".join(saved.tasks)
    advice = saved.adapters[saved.language] if saved.language is not None else "the folder of a language adapter"
    raise UserError(f"{option} {path}: would train {others}, which is not a language adapter; give {advice}")


def setup_of_folder(saved: SavedAdapterSetup, task: Task, base_config: dict[str, Any]) -> AdapterSetup:
    """Return the setup that the files of a saved folder make; errors as in `setup_from_saved`."""

    def reader(name: str) -> Callable[[], AdapterSource]:
        return lambda: read_adapter(saved.adapters[name], name, base_config)

    names = [*saved.tasks, *([saved.language] if saved.language else [])]
    sources, _ = run_all(lambda: run_each(map(reader, names)), lambda: check_saved_files(saved))
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
    setup, given = run_all(
        lambda: setup_from_saved(option, path, "qa", base_config), lambda: _given_language_adapter(lang, base_config)
    )
    setup = _with_one_inverse(_with_language_adapter(setup, given, lang))
    raise_if_any(adapter_problems(setup, AdapterOptions(), lang))
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
    raise UserError(f"{folder}: comes without a {TASKS[setup.task].name} head{owner}; add --do_train to train one")


# ---------------------------------------------------------------- adapters


def _task_adapters(
    task: Task, base_config: dict[str, Any], adapter: AdapterOptions, fusion: FusionOptions, *, random_init: bool
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
    return tuple(run_each(reader(name, path) for name, path in paths.items()))


def _given_language_adapter(
    lang: LanguageAdapterOptions, base_config: dict[str, Any], *, random_init: bool = False
) -> AdapterSource | None:
    """Return the adapter that --load_lang_adapter names; None if it is not given or "none"."""
    path = lang.load_lang_adapter
    if path in (None, NO_LANGUAGE_ADAPTER):
        return None
    new = AdapterSource(LANGUAGE_ADAPTER, ConfigOptions.of(lang).new_config("pfeiffer+inv", LANGUAGE_REDUCTION))
    language = _saved_or_new("--load_lang_adapter", path, new, base_config, random_init=random_init)
    if language.folder is not None:
        check_language_adapter("--load_lang_adapter", path)
    return language


def _with_language_adapter(
    setup: AdapterSetup, language: AdapterSource | None, lang: LanguageAdapterOptions
) -> AdapterSetup:
    """Return the setup with the given language adapter, or without one, as --load_lang_adapter says.

    In a saved setup it takes the place of the current one, unless it is the same.
    """
    current, option = setup.language, f"--load_lang_adapter {lang.load_lang_adapter}"
    if lang.load_lang_adapter is None:
        return setup
    if current is None:
        return replace(setup, language=language)
    if setup.composition == "fuse":
        raise UserError(f"{option}: {current.name} is part of the saved fusion, and stays; leave it out")
    if language is None:
        return replace(setup, language=None)
    if language.folder is None:
        raise UserError(f"{option}: only a saved language adapter can replace {current.folder}; give its folder")
    if is_same_adapter(language, current):
        return replace(setup, language=current.with_note(f"{option}: the same language adapter as {current.folder}"))
    return replace(setup, language=language, swapped_out=current)


def _with_notes_on_language(setup: AdapterSetup, fusion: FusionOptions, base_config: dict[str, Any]) -> AdapterSetup:
    """Return a new fusion with notes on adapters whose language adapter is missing or another one."""
    if fusion.fuse_adapters is None or setup.composition == "fuse":
        return setup
    paths, _ = parse_fuse_adapters(fusion.fuse_adapters)

    def noted(source: AdapterSource) -> AdapterSource:
        note = None if source.folder is None else _language_note(paths[source.name], setup.language, base_config)
        return source if note is None else source.with_note(f"{source.name}: was trained {note}")

    return replace(setup, tasks=tuple(map(noted, setup.tasks)))


def _language_note(path: str, language: AdapterSource | None, base_config: dict[str, Any]) -> str | None:
    """Return how the language adapter under a fused adapter differs from that of its own run.

    None if it does not, or if that run had none: a NER adapter is as good on a language adapter that it was not trained
    on (docs/results.md).
    """
    saved = read_setup(find_folder("--fuse_adapters", path))
    if saved.language is None or not saved.metadata.tasks:  # other programs do not record it
        return None
    current = read_adapter(saved.adapters[saved.language], saved.language, base_config)
    if language is None:
        return f"on the language adapter {current.folder}; here none is under it"
    if is_same_adapter(language, current):
        return None
    return f"on the language adapter {current.folder}; here {language.folder or 'a new one'} is under it"


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
        weight_names(find_weights(head.folder, *HEAD_WEIGHTS))
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
