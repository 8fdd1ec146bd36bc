"""What is to stand in a model, decided from options and saved JSON alone, before a model exists.

All that cannot work is refused here: option pairs, folders that do not fit the base, adapters that cannot fuse.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from adapters import AdapterConfig, Fuse, Stack
from adapters.utils import ACTIVATION_RENAME

from adapter_qa.config.options import ADAPTER_CONFIGS, NEW, AdapterOptions, FusionOptions, LanguageAdapterOptions
from adapter_qa.config.validation import parse_fuse_adapters
from adapter_qa.core.errors import UserError, run_all
from adapter_qa.core.files import read_json
from adapter_qa.models.saved_adapters import (
    ACTIVATIONS,
    LANGUAGE,
    SMALLEST_REDUCTION,
    AdapterSource,
    SavedAdapterSetup,
    check_language_adapter,
    check_saved_files,
    config_of,
    find_folder,
    is_reduction,
    read_adapter,
    read_any_adapter,
    read_setup,
)

TASK_REDUCTION = 16  # Pfeiffer et al. (2021), section 3: the reduction the library defaults to
LANGUAGE_REDUCTION = 2  # MAD-X (Pfeiffer et al., 2020), section 4.2: language adapters of half the hidden size
LOCATIONS = ("mh_adapter", "output_adapter")
KIND = ("mh_adapter", "output_adapter", "inv_adapter")  # what tells pfeiffer, houlsby and their +inv apart
LONGEST_FUSION_NAME = 250  # it becomes a folder's, and file systems end at 255 bytes
WITHOUT = "none"  # in place of a language adapter's path


@dataclass(frozen=True)
class AdapterSetup:
    """A setup, decided.

    Attributes:
        task: "qa", "ner" or "mlm": names the head and the saved folder of an unfused setup.
        language: the frozen language adapter, if any.
        tasks: the task adapters; more than one are fused.
        composition: "stack" or "fuse", how the language adapter joins the fusion.
        layers: number of layers of the encoder.
        saved: the folder whose fusion and head are taken up, if any.
    """

    task: str
    language: AdapterSource | None
    tasks: tuple[AdapterSource, ...]
    composition: str
    layers: int
    saved: SavedAdapterSetup | None = None

    @property
    def fused(self) -> bool:
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
        inside = self.adapters if self.composition == "fuse" else self.tasks
        return Fuse(*[source.name for source in inside])

    @property
    def block(self) -> Stack | Fuse:
        """The composition as the library takes it, e.g. `Stack[mlm, Fuse[qa, ner]]`."""
        fusion = self.fusion
        if fusion is not None and (self.language is None or self.composition == "fuse"):
            return fusion
        return Stack(*([self.language.name] if self.language else []), fusion or self.tasks[0].name)

    @property
    def loads_saved_head(self) -> bool:
        """Whether the saved folder's head is one of this task."""
        return self.saved is not None and self.saved.head is not None and self.saved.head.task == self.task

    @property
    def notes(self) -> list[str]:
        """What a person should know of how the saved folders were read."""
        notes = [self.saved.note if self.saved and self.language else None, *[source.note for source in self.adapters]]
        return [note for note in notes if note is not None]

    @property
    def folder_name(self) -> str:
        """`adapters-fusion`, or `adapters-<task>` of a single adapter."""
        return f"adapters-{'fusion' if self.fused else self.task}"


def resolve_setup(
    task: str,
    base_config: dict[str, Any],
    adapter: AdapterOptions,
    lang: LanguageAdapterOptions | None = None,
    fusion: FusionOptions | None = None,
    *,
    random_init: bool = False,
) -> AdapterSetup | None:
    """Decides the setup from the options and the JSON of the saved folders they name.

    Returns:
        The plan; None for full fine-tuning.

    Raises:
        UserError: every problem found.
    """
    lang = lang or LanguageAdapterOptions()
    fusion = fusion or FusionOptions()
    problems = _option_clashes(adapter, lang, fusion)
    if problems:
        raise UserError(problems)
    if not fusion.train_adapter:
        return None
    layers = int(base_config["num_hidden_layers"])
    if adapter.load_adapter is not None:
        setup = setup_from_saved("--load_adapter", adapter.load_adapter, task, base_config)
    else:
        tasks = _task_sources(task, base_config, adapter, fusion, random_init=random_init)
        setup = AdapterSetup(task, None, tasks, fusion.adapter_composition, layers)
    setup = with_language(setup, base_config, lang, random_init=random_init)
    setup = _with_layer_options(setup, adapter)
    problems = _setup_problems(setup, adapter, lang)
    if problems:
        raise UserError(problems)
    return setup


def setup_from_saved(option: str, given: str, task: str, base_config: dict[str, Any]) -> AdapterSetup:
    """The plan that takes up a saved folder, a single adapter's or a whole setup's, of whatever year.

    Raises:
        UserError: not found, damaged, or for another encoder.
    """
    saved = read_setup(find_folder(option, given))
    names = [*saved.tasks, *([saved.language] if saved.language else [])]
    steps = [partial(read_adapter, saved.adapters[name], name, base_config) for name in names]
    *sources, _ = run_all([*steps, partial(check_saved_files, saved)])
    tasks = tuple(sources[: len(saved.tasks)])
    language = sources[-1] if saved.language else None
    return AdapterSetup(task, language, tasks, saved.composition, int(base_config["num_hidden_layers"]), saved)


def setup_for_inference(option: str, given: str, base_config: dict[str, Any], language: str | None) -> AdapterSetup:
    """The plan that answers questions with a saved folder, and nothing else said.

    Args:
        option: its name, for messages.
        given: path or hub id.
        base_config: config.json of the base model.
        language: as --load_lang_adapter.

    Raises:
        UserError: as `setup_from_saved`, or the folder's adapters cannot stand together.
    """
    lang = LanguageAdapterOptions(load_lang_adapter=language)
    setup = with_language(setup_from_saved(option, given, "qa", base_config), base_config, lang)
    problems = _setup_problems(setup, AdapterOptions(), lang)
    if problems:
        raise UserError(problems)
    return setup


def with_language(
    setup: AdapterSetup, base_config: dict[str, Any], lang: LanguageAdapterOptions, *, random_init: bool = False
) -> AdapterSetup:
    """The plan with the language adapter that --load_lang_adapter names, or without any.

    Raises:
        UserError: the plan has one already, or the one that is named cannot be taken.
    """
    if lang.load_lang_adapter is None:
        return setup
    if lang.load_lang_adapter == WITHOUT:
        if setup.language is not None and setup.composition == "fuse":
            raise UserError(f"--load_lang_adapter {WITHOUT}: {setup.language.name} is a member of the fusion there")
        return replace(setup, language=None)
    if setup.language is not None:
        assert setup.saved is not None
        raise UserError(
            f"--load_lang_adapter {lang.load_lang_adapter}: {setup.saved.folder} already holds the language adapter "
            f"{setup.language.name}; leave the option out, or give {WITHOUT} to ask without one"
        )
    return replace(setup, language=_language_source(base_config, lang, random_init=random_init))


def _option_clashes(adapter: AdapterOptions, lang: LanguageAdapterOptions, fusion: FusionOptions) -> list[str]:
    """Pairs of options that cannot be together, whatever the files hold."""
    given = {
        "--load_adapter": adapter.load_adapter,
        "--load_lang_adapter": lang.load_lang_adapter,
        "--fuse_adapters": fusion.fuse_adapters,
    }
    problems = []
    if not fusion.train_adapter:
        problems += [
            f"{name} goes with --train_adapter True; full fine-tuning has no adapters"
            for name, value in given.items()
            if value is not None
        ]
    if fusion.fuse_adapters is not None:
        problems += parse_fuse_adapters(fusion.fuse_adapters)[1]
        if adapter.load_adapter is not None:
            problems.append(
                "--load_adapter and --fuse_adapters exclude each other; a saved fusion is taken up by the first"
            )
    without = lang.load_lang_adapter in (None, WITHOUT)
    if fusion.adapter_composition == "fuse" and (fusion.fuse_adapters is None or without):
        problems.append("--adapter_composition fuse needs --fuse_adapters and --load_lang_adapter")
    for option, value in (
        ("--adapter_non_linearity", adapter.adapter_non_linearity),
        ("--lang_adapter_non_linearity", lang.lang_adapter_non_linearity),
    ):
        if value is not None and value.lower() not in ACTIVATIONS:
            problems.append(f"{option} {value}: no such activation; common ones are gelu, gelu_new, relu, swish, tanh")
    for option, kind in (
        ("--adapter_config", adapter.adapter_config),
        ("--lang_adapter_config", lang.lang_adapter_config),
    ):
        if kind is not None and kind not in ADAPTER_CONFIGS and not Path(kind).is_file():
            problems.append(
                f"{option} {kind}: give {', '.join(ADAPTER_CONFIGS)}, or the path of an adapter_config.json"
            )
    for option, factor in (
        ("--adapter_reduction_factor", adapter.adapter_reduction_factor),
        ("--lang_adapter_reduction_factor", lang.lang_adapter_reduction_factor),
    ):
        if factor is not None and not is_reduction(factor):
            problems.append(f"{option} {factor:g}: must be a number of at least {SMALLEST_REDUCTION:g}")
    return problems


def _task_sources(
    task: str, base_config: dict[str, Any], adapter: AdapterOptions, fusion: FusionOptions, *, random_init: bool
) -> tuple[AdapterSource, ...]:
    """The task adapters: those to fuse, or one fresh one."""
    fresh = fresh_config(
        adapter.adapter_config or ("pfeiffer+inv" if task == "mlm" else "pfeiffer"),
        adapter.adapter_reduction_factor,
        adapter.adapter_non_linearity,
        usual_reduction=LANGUAGE_REDUCTION if task == "mlm" else TASK_REDUCTION,
    )
    if fusion.fuse_adapters is None:
        return (AdapterSource(LANGUAGE if task == "mlm" else task, fresh, language=adapter.language),)
    wanted = parse_fuse_adapters(fusion.fuse_adapters)[0]
    return tuple(
        run_all(
            partial(_new_or_saved, f"--fuse_adapters {name}", path, name, fresh, base_config, random_init)
            for name, path in wanted.items()
        )
    )


def _language_source(base_config: dict[str, Any], lang: LanguageAdapterOptions, *, random_init: bool) -> AdapterSource:
    """The language adapter under the task."""
    fresh = fresh_config(
        lang.lang_adapter_config or "pfeiffer+inv",
        lang.lang_adapter_reduction_factor,
        lang.lang_adapter_non_linearity,
        usual_reduction=LANGUAGE_REDUCTION,
    )
    path = str(lang.load_lang_adapter)
    source = _new_or_saved("--load_lang_adapter", path, LANGUAGE, fresh, base_config, random_init)
    if source.folder is not None:
        check_language_adapter("--load_lang_adapter", path)
    return source


def _new_or_saved(
    option: str, path: str, name: str, fresh: dict[str, Any], base_config: dict[str, Any], random_init: bool
) -> AdapterSource:
    if path != NEW:
        return read_any_adapter(option, path, name, base_config)
    if not random_init:
        raise UserError(f"{option} {NEW}: a fresh adapter stands in for a saved one only with --random_init True")
    return AdapterSource(name, fresh)


def fresh_config(
    kind: str, reduction_factor: float | None, non_linearity: str | None, *, usual_reduction: int = TASK_REDUCTION
) -> dict[str, Any]:
    """Full configuration of a fresh adapter.

    Args:
        kind: a key of `ADAPTER_CONFIGS`, or the path of an adapter_config.json whose configuration is taken.
        reduction_factor: hidden size divided by bottleneck size; None keeps the file's, or takes the usual one.
        non_linearity: activation; None keeps the kind's own.
        usual_reduction: for the kinds that have a name.

    Raises:
        UserError: the file holds no bottleneck adapter.
    """
    if kind in ADAPTER_CONFIGS:
        named = {"reduction_factor": usual_reduction, "leave_out": []}
        config = AdapterConfig.load(ADAPTER_CONFIGS[kind], **named).to_dict()
    else:
        config = _config_in_file(Path(kind))
    wanted = {"reduction_factor": reduction_factor, "non_linearity": non_linearity}
    return config | {key: value for key, value in wanted.items() if value is not None}


def _config_in_file(path: Path) -> dict[str, Any]:
    """The configuration in an adapter_config.json, whole (under "config") or bare."""
    document = read_json(path)
    config = config_of(document if "config" in document else {"config": document, "version": None}, path)
    if not {*KIND, "non_linearity"} <= set(config):
        raise UserError(f"{path}: holds no configuration of a pfeiffer or houlsby adapter")
    return config


def _with_layer_options(setup: AdapterSetup, options: AdapterOptions) -> AdapterSetup:
    """MAD-X 2.0 leaves the last layer out of every adapter; the last-layer trick is for fresh adapters only."""
    last = setup.layers - 1
    sources = []
    for source in setup.adapters:
        left_out = source.config["leave_out"]
        if options.madx2 and last not in left_out:
            left_out = [*left_out, last]
        attention_only_last_layer = source.attention_only_last_layer or (
            options.houlsby_MHA_lastlayer and source in setup.tasks and source.folder is None
        )
        sources.append(
            replace(
                source,
                config={**source.config, "leave_out": left_out},
                attention_only_last_layer=attention_only_last_layer,
            )
        )
    language = sources.pop(0) if setup.language else None
    return replace(setup, language=language, tasks=tuple(sources))


def _setup_problems(setup: AdapterSetup, adapter: AdapterOptions, lang: LanguageAdapterOptions) -> list[str]:
    """What the saved folders make impossible, and options that contradict them."""
    problems = []
    names = [source.name for source in setup.adapters]
    if len(set(names)) < len(names):
        problems.append(
            f"adapters need different names, given are {', '.join(names)}; {LANGUAGE} is the language adapter"
        )
    if not setup.fused:
        problems += _contradictions(
            "--adapter",
            setup.tasks[0],
            adapter.adapter_config,
            adapter.adapter_reduction_factor,
            adapter.adapter_non_linearity,
        )
    if setup.language:
        problems += _contradictions(
            "--lang_adapter",
            setup.language,
            lang.lang_adapter_config,
            lang.lang_adapter_reduction_factor,
            lang.lang_adapter_non_linearity,
        )
        if adapter.language and setup.language.language and adapter.language != setup.language.language:
            problems.append(
                f"--language {adapter.language}: the language adapter was trained for {setup.language.language}"
            )
    for source in setup.tasks:
        if adapter.houlsby_MHA_lastlayer and not (source.config["mh_adapter"] and source.config["output_adapter"]):
            problems.append(
                f"--houlsby_MHA_lastlayer: {source.name} is no houlsby adapter; give --adapter_config houlsby"
            )
        elif adapter.houlsby_MHA_lastlayer and not source.attention_only_last_layer:
            problems.append(
                f"--houlsby_MHA_lastlayer: {source.folder} was trained with one after the last feed-forward block; "
                "leave the option out"
            )
    if adapter.houlsby_MHA_lastlayer and adapter.madx2:
        problems.append(
            "--houlsby_MHA_lastlayer and --madx2 exclude each other: one halves the last layer, one empties it"
        )
    if setup.fused:
        problems += _fusion_problems(setup)
    return problems


def _contradictions(
    prefix: str, source: AdapterSource, kind: str | None, reduction: float | None, non_linearity: str | None
) -> list[str]:
    """Options that a loaded adapter contradicts, naming both values. A fresh adapter was made from them."""
    if source.folder is None:
        return []
    asked = {"reduction_factor": reduction, "non_linearity": non_linearity}
    wanted: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
    if kind is not None:
        full = fresh_config(kind, reduction, non_linearity)
        told = KIND if kind in ADAPTER_CONFIGS else (*KIND, "reduction_factor", "non_linearity")
        wanted |= {key: full[key] for key in told}
    return [
        f"{prefix}_* options ask for {key} {value}, but {source.folder} was trained with {source.config[key]}; "
        "leave the option out"
        for key, value in wanted.items()
        if value != source.config[key] and not _means(value, source, key)
    ]


def _means(value: Any, source: AdapterSource, key: str) -> bool:
    """Whether an activation's name is what an adapter of 2021 calls its own."""
    return source.old and key == "non_linearity" and ACTIVATION_RENAME.get(value) == source.config[key]


def _fusion_problems(setup: AdapterSetup) -> list[str]:
    """Setups that the library cannot run: different kinds, and places where the last fused adapter is missing.

    The library takes residual and query of a fusion from the last fused adapter, so wherever any adapter of the setup
    has a module, that one must have one too.
    """
    assert setup.fusion is not None
    fused = [source for source in setup.adapters if source.name in setup.fusion.children]
    if len(setup.fusion.name) > LONGEST_FUSION_NAME:
        return [f"the names of the fused adapters have {len(setup.fusion.name)} letters together; give shorter ones"]
    kinds = {one.name: (bool(one.config["mh_adapter"]), bool(one.config["output_adapter"])) for one in fused}
    if len(set(kinds.values())) > 1:
        words = {
            (True, True): "houlsby",
            (False, True): "pfeiffer",
            (True, False): "attention only",
            (False, False): "none",
        }
        listed = ", ".join(f"{name} {words[kind]}" for name, kind in kinds.items())
        return [f"adapters of different kinds cannot be fused: {listed}; train them with one --adapter_config"]
    key = fused[-1]
    for layer in range(setup.layers):
        for location in LOCATIONS:
            here = [source.name for source in setup.adapters if source.stands_at(layer, location, setup.layers)]
            if here and key.name not in here:
                return [
                    f"layer {layer} ({location}): {', '.join(here)} stand there but {key.name}, last in the fusion, "
                    "does not; add --madx2 True, or fuse adapters with the same layers"
                ]
    return []
