"""Every problem that the options alone show, found before anything slow is imported, and all at once."""

from __future__ import annotations

from adapter_qa.config.adapter_validation import adapter_option_problems
from adapter_qa.config.data_validation import data_problems
from adapter_qa.config.hub_validation import hub_problems
from adapter_qa.config.optimizer_validation import optimizer_problems
from adapter_qa.config.option_effects import refused_problems
from adapter_qa.config.option_fields import field_problems
from adapter_qa.config.path_validation import path_problems
from adapter_qa.config.run_configs import RunConfig
from adapter_qa.config.trackio_validation import trackio_problems
from adapter_qa.config.training_validation import metric_problems, training_problems


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
