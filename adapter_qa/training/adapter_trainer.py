"""The trainer under all three doors: `transformers.Trainer` that knows what of the model trains.

It is not the library's `AdapterTrainer`: that one adds the gradient of the fusion regulariser after the optimizer's
step, where resuming, gradient scaling and ZeRO go wrong, and its exemption of value matrices from decay never matches.

That its runs can be broken off and go on is `resumable_trainer`'s subject.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler
from transformers import PreTrainedModel
from transformers.trainer_utils import EvalLoopOutput

from adapter_qa.data.labels import IGNORED
from adapter_qa.data.samplers import BucketSampler
from adapter_qa.models.adapter_setup import AdapterSetup
from adapter_qa.models.build import cast_frozen_weights, frozen_adapters, fusion_values
from adapter_qa.models.fusion import fusion_regularization
from adapter_qa.training.deepspeed_weights import enable_deepspeed, gather_params, swap_weights
from adapter_qa.training.resumable_trainer import ResumableTrainer
from adapter_qa.training.training_args import TrainerArguments

EPS = 1e-12  # below every weight of a batch with anything labelled; keeps a batch without from dividing by 0


class AdapterTrainer(ResumableTrainer):
    """`ResumableTrainer` for a model with a `AdapterSetup`.

    Beyond that: the fusion regulariser is part of the training loss; value matrices are exempt from weight decay;
    batches hold examples of similar length; several processes compute the losses of one with the same batches, and
    DeepSpeed may divide the weights among them.

    Args:
        setup: the setup; None for full fine-tuning.
        regularize_fusion: add `fusion.fusion_regularization` to the training loss.
        decay_fusion_values: let weight decay act on the value matrices too. It pulls them to zero, the regulariser
            to the identity.
        bucketed: train on batches of similar length (`BucketSampler`); datasets tell with `lengths()`.
        others: as for `Trainer`.
    """

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        setup: AdapterSetup | None,
        regularize_fusion: bool = True,
        decay_fusion_values: bool = False,
        bucketed: bool = True,
        **others: Any,
    ):
        args: TrainerArguments = others["args"]
        if args.deepspeed is not None:
            enable_deepspeed(args)
        super().__init__(model=model, **others)
        self.bucketed = bucketed
        self.setup = setup
        self.decay_fusion_values = decay_fusion_values
        self.frozen: dict[str, torch.Tensor] = {}  # as they were before DeepSpeed rounds and divides them
        if self.is_deepspeed_enabled and self.args.should_save:
            self.frozen = {name: weight.clone() for name, weight in frozen_adapters(model).items()}
        elif setup is not None and not self.is_deepspeed_enabled and (self.args.bf16 or self.args.fp16):
            cast_frozen_weights(model, torch.bfloat16 if self.args.bf16 else torch.float16)
        self.regularized = [weight for _, weight in fusion_values(model)] if regularize_fusion else []
        self.evaluated: list[torch.Tensor] = []  # total and weight of each batch of an evaluation
        # The loss is a mean over the batch and is divided by the accumulation steps, whatever the model's signature.
        self.model_accepts_loss_kwargs = False

    def task_loss(self, model: torch.nn.Module, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """The loss of a batch as a total and its weight, scalars, whose quotient it is; and the model's output.

        Raises:
            NotImplementedError: the task's trainer has it.
        """
        raise NotImplementedError

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:
        """The task's loss; while training, over the batch of all processes and with the fusion regulariser."""
        total, weight, outputs = self.task_loss(model, inputs)
        if model.training:
            if self.args.world_size > 1:  # the gradient's mean over processes is then that of the whole batch
                weight = self.accelerator.reduce(weight, "mean")
            loss = total / weight.clamp(min=EPS)
            if self.regularized:
                loss = loss + self._fusion_regularization().to(loss)
        else:
            self.evaluated.append(torch.stack([total, weight]).detach())
            loss = total / weight.clamp(min=EPS)
        return (loss, outputs) if return_outputs else loss

    def _fusion_regularization(self) -> torch.Tensor:
        """The fusion regulariser, over whole matrices."""
        plugin = self.args.deepspeed_plugin
        divided = plugin is not None and plugin.zero_stage == 3
        return fusion_regularization(gather_params(self.regularized) if divided else self.regularized)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], Any]:
        """The library's; of several processes, the rows that fill up the last batch of an epoch do not count."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches:
            self._mask_duplicate_rows(batches[-1], self.args.train_batch_size)
        return batches, items

    def _mask_duplicate_rows(self, batch: dict[str, torch.Tensor], rows: int) -> None:
        """Takes the labels from rows that are there only to give every process a whole last batch.

        accelerate hands batches to processes in turn and fills the last round up from the beginning of the data.

        Args:
            batch: the last batch that was fetched.
            rows: of a whole batch of one process.
        """
        loading = self.accelerator.gradient_state
        if self.args.world_size == 1 or not loading.end_of_dataloader or loading.remainder <= 0:
            return
        own = max(loading.remainder - self.args.process_index * rows, 0)
        for name in self.label_names:
            if name in batch:
                batch[name][own:] = IGNORED

    def prediction_step(self, model: Any, inputs: Any, *others: Any, **named: Any) -> Any:
        """The library's, without the rows that fill up the last batch."""
        self._mask_duplicate_rows(inputs, self.args.eval_batch_size)
        return super().prediction_step(model, inputs, *others, **named)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The library's loop; the loss is the mean over all that is labelled, however it came into batches.

        It is 0 where nothing is labelled.
        """
        self.evaluated = []
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        pairs = torch.stack(self.evaluated).double().sum(0) if self.evaluated else torch.zeros(2)
        total, weight = self.accelerator.gather(pairs.float()[None]).double().sum(0).tolist()
        metrics = {**(output.metrics or {}), f"{metric_key_prefix}_loss": total / max(weight, EPS)}
        return output._replace(metrics=metrics)

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """Names that weight decay acts on."""
        names = super().get_decay_parameter_names(model)
        if self.decay_fusion_values:
            return names
        values = {name for name, _ in fusion_values(model)}
        return [name for name in names if name not in values]

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        """In buckets with --group_by_length, too: the library's way of it has another order in a resumed run."""
        if not self.bucketed and not self.args.group_by_length:
            return super()._get_train_sampler(train_dataset)
        dataset: Any = self.train_dataset
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return BucketSampler(dataset.lengths(), self.args.train_batch_size * self.args.world_size, seed)

    def _get_eval_sampler(self, eval_dataset: Dataset[Any]) -> Sampler[int] | None:
        """Evaluation in the order of the data, which predictions are matched with; `Trainer` itself would let
        --group_by_length shuffle it. Several processes share it out in order.
        """
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None  # type: ignore[arg-type]

    @contextmanager
    def full_model(self) -> Iterator[PreTrainedModel]:
        """The model as it is to be saved, by the process that saves; all processes must enter."""
        if self.deepspeed is None:
            yield self.model
            return
        with swap_weights(self.model, self.trained_weights() | self.frozen):
            yield self.model
