"""One training step with and without --tokens_per_batch: its loss, its gradients and the parts of its batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from adapter_qa.training.adapter_trainer import AdapterTrainer


class Step(NamedTuple):
    """A training step.

    Attributes:
        loss: of the batch.
        gradients: of the weights that train, by name.
        shapes: (rows, length) of each forward pass.
    """

    loss: float
    gradients: dict[str, torch.Tensor]
    shapes: list[tuple[int, ...]]


def train_on(trainer: AdapterTrainer, batch: dict[str, torch.Tensor], tokens: int | None, *, seed: int = 5) -> Step:
    """Compute loss and gradients of a batch that is one of two accumulated; the weights stay as they are."""
    shapes: list[tuple[int, ...]] = []
    model: Any = trainer.model
    hook = model.get_input_embeddings().register_forward_pre_hook(
        lambda module, inputs: shapes.append(tuple(inputs[0].shape))
    )
    trainer.args.tokens_per_batch = tokens
    trainer.current_gradient_accumulation_steps = 2
    model.zero_grad()
    torch.manual_seed(seed)
    loss = trainer.training_step(model, dict(batch))
    hook.remove()
    assert trainer.part is None  # of the next batch, or of an evaluation, which are whole
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    assert gradients.keys() == {name for name, weight in model.named_parameters() if weight.requires_grad}
    return Step(loss.item(), gradients, shapes)


def assert_same_step(step: Step, expected: Step, *, relative: float = 1e-5) -> None:
    """Compare losses and gradients; small gradients with the largest of all, since they have its rounding noise."""
    assert abs(step.loss - expected.loss) <= relative * abs(expected.loss)
    largest = max(float(gradient.abs().max()) for gradient in expected.gradients.values())
    assert largest > 0
    for name, gradient in expected.gradients.items():
        torch.testing.assert_close(step.gradients[name], gradient, rtol=0, atol=relative * largest)
