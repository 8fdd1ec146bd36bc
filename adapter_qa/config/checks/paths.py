"""The problems of paths: of data files, of the base model, and of saved adapters."""

from __future__ import annotations

from adapter_qa.config.checks.adapter_options import parse_fuse_adapters
from adapter_qa.config.folder_names import adapter_problem, model_problem
from adapter_qa.config.options import NEW, NO_LANGUAGE_ADAPTER
from adapter_qa.config.run_configs import MLMRunConfig, QARunConfig, RunConfig
from adapter_qa.core.errors import UserError, run_each


def path_problems(config: RunConfig) -> list[str]:
    """Return the problems with the paths of data, base model and saved adapters, such as files that do not exist."""
    problems = []
    try:
        run_each(split.paths for split in config.all_splits())
    except UserError as error:
        problems += error.problems
    models = {"--model_name_or_path": config.model.model_name_or_path, "--config_name": config.model.config_name}
    found = [model_problem(option, name) for option, name in models.items() if name is not None]
    found += [adapter_problem(option, name) for option, name in adapter_names(config).items()]
    return problems + [problem for problem in found if problem is not None]


def adapter_names(config: RunConfig) -> dict[str, str]:
    """Return the folders or hub ids of saved adapters by the option that names them."""
    names = {"--load_adapter": config.adapter.load_adapter}
    if not isinstance(config, MLMRunConfig):
        names["--load_lang_adapter"] = config.language_adapter.load_lang_adapter
    if isinstance(config, QARunConfig) and config.fusion.fuse_adapters is not None:
        fused, _ = parse_fuse_adapters(config.fusion.fuse_adapters)
        names |= {f"--fuse_adapters {name}": path for name, path in fused.items()}
    return {option: name for option, name in names.items() if name not in (None, NO_LANGUAGE_ADAPTER, NEW)}
