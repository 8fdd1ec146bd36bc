"""Every problem that the options alone show, found before anything slow is imported, and all at once."""

from __future__ import annotations

from adapter_qa.config.checks.adapter_options import adapter_option_problems
from adapter_qa.config.checks.data import data_problems
from adapter_qa.config.checks.hub import hub_problems
from adapter_qa.config.checks.optimizer import optimizer_problems
from adapter_qa.config.checks.paths import path_problems
from adapter_qa.config.checks.trackio_logging import trackio_problems
from adapter_qa.config.checks.training import metric_problems, training_problems
from adapter_qa.config.option_effects import refused_problems
from adapter_qa.config.option_fields import field_problems
from adapter_qa.config.run_configs import RunConfig


def validate_config(config: RunConfig) -> list[str]:
    """Return the problems of a script's options, resolved as `ConfigParser.parse` returns them."""
    return [
        *field_problems(config.groups()),
        *training_problems(config.training),
        *optimizer_problems(config),
        *trackio_problems(config.training),
        *hub_problems(config.training),
        *metric_problems(config),
        *refused_problems(config),
        *path_problems(config),
        *adapter_option_problems(config),
        *data_problems(config),
    ]
