"""The trainer of all three tasks: `transformers.Trainer` for a model with an `AdapterSetup`.

It does not derive from the library's `AdapterTrainer`. That class adds the gradient of the fusion regulariser after
the optimizer step, which breaks resuming, gradient scaling and ZeRO. It also applies weight decay to the value
matrices, because the names that it exempts match none of them.

| override | replaces in `transformers.Trainer` | guarded by (tests/training) |
| --- | --- | --- |
| `compute_loss` | loss by the model's forward pass | `test_trainer.py`, `test_processes.py`: losses by hand |
| `get_batch_samples` | batches of a step | `test_processes.py`: rows repeated in the last batch |
| `prediction_step` | one batch of an evaluation | `test_processes.py`: predictions of two processes |
| `evaluation_loop` | mean of the batches' losses | `test_trainer.py`: loss of an evaluation |
| `get_decay_parameter_names` | names that weight decay acts on | `test_trainer.py`: value matrices |
| `create_optimizer` | groups of weights with one rate | `test_head_rate.py`: --head_learning_rate |
| `_get_learning_rate`, `log` | the logged rate | `test_head_rate.py`: that of the head beside it |
| `_get_train_sampler` | random order, --group_by_length | `test_resuming.py`: buckets resume |
| `_get_eval_sampler` | order of an evaluation | `test_ner.py`: --group_by_length |
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler
from transformers import PreTrainedModel
from transformers.trainer_utils import EvalLoopOutput

from adapter_qa.config.options import FusionOptions
from adapter_qa.data.labels import IGNORE_INDEX
from adapter_qa.data.samplers import BucketSampler
from adapter_qa.data.token_budget import split_batch
from adapter_qa.models.adapter_setup import AdapterSetup
from adapter_qa.models.build import cast_frozen_weights
from adapter_qa.models.encoders import ENCODERS
from adapter_qa.models.fast_step import has_fast_step, use_fast_step
from adapter_qa.models.fusion import fusion_regularization
from adapter_qa.models.parameters import fusion_values, head_names
from adapter_qa.models.save import frozen_adapters
from adapter_qa.training.deepspeed_weights import enable_deepspeed, gather_params, swap_weights
from adapter_qa.training.resumable_trainer import ResumableTrainer
from adapter_qa.training.training_args import TrainerArguments

EPS = 1e-12  # smaller than the weight of any batch with a label; the divisor for batches without labels


class TaskLoss(NamedTuple):
    """The loss of a batch as a fraction, so that fractions of several batches can be added.

    Attributes:
        total: sum of the losses of all labels, scalar float32.
        weight: number of all labels, or sum of their class weights, scalar float32.
        outputs: of the model; the class depends on its head.
    """

    total: torch.Tensor
    weight: torch.Tensor
    outputs: Any


class BatchPart(NamedTuple):
    """Which part of a batch a loss is computed of, if --tokens_per_batch splits batches.

    Attributes:
        weight: weight of the whole batch, mean over the processes, scalar float32.
        is_last: whether it is the last part of the batch.
    """

    weight: torch.Tensor
    is_last: bool


class AdapterTrainer(ResumableTrainer):
    """`ResumableTrainer` for a model with an `AdapterSetup`.

    The fusion regulariser is a part of the training loss. Value matrices of a fusion are exempt from weight decay.
    Batches hold examples of similar length. Several processes compute the same losses as one process with the same
    batches. DeepSpeed may partition the weights.

    Args:
        model: with its adapters, after `models.build.build_setup`.
        setup: the adapters; None for full fine-tuning.
        fusion: whether the regulariser is added, and whether weight decay acts on value matrices. Decay pulls them
            towards zero, the regulariser towards the identity.
        bucketed: train on batches of similar length (`BucketSampler`); datasets give lengths by `lengths()`.
        kwargs: as for `Trainer`.
    """

    args: TrainerArguments

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        setup: AdapterSetup | None,
        fusion: FusionOptions | None = None,
        bucketed: bool = True,
        **kwargs: Any,
    ):
        args: TrainerArguments = kwargs["args"]
        if args.deepspeed is not None:
            enable_deepspeed(args)
        super().__init__(model=model, **kwargs)
        # Otherwise each process would shuffle the data with the seed of its own random generator.
        self.accelerator.dataloader_config.data_seed = args.seed if args.data_seed is None else args.data_seed
        fusion = fusion or FusionOptions()
        self.setup = setup
        self.mask_dimensions = ENCODERS[model.config.model_type].mask_dimensions
        self.bucketed = bucketed
        self.decay_fusion_values = fusion.fusion_decay_values
        self.regularized = [weight for _, weight in fusion_values(model)] if fusion.fusion_regularization else []
        self.frozen: dict[str, torch.Tensor] = {}  # frozen adapters before DeepSpeed rounds and partitions them
        if self.is_deepspeed_enabled and args.should_save:
            self.frozen = {name: weight.clone() for name, weight in frozen_adapters(model).items()}
        elif setup is not None and not self.is_deepspeed_enabled and (args.bf16 or args.fp16):
            cast_frozen_weights(model, torch.bfloat16 if args.bf16 else torch.float16)
        if args.do_train and args.fast_step and has_fast_step(model.config):
            use_fast_step(model)
        self.part: BatchPart | None = None  # None: losses are of whole batches
        self.head_rate = 0.0  # learning rate of the last group in the current step
        self.eval_losses: list[torch.Tensor] = []  # (2,) total and weight of each batch of an evaluation
        # The loss is a mean over the batch. `Trainer` divides it by the accumulation steps only if this is False.
        self.model_accepts_loss_kwargs = False

    def smoothing(self, model: torch.nn.Module) -> float:
        """Return the label smoothing of a model's losses: none in evaluation, so that its losses stay comparable."""
        return float(self.args.label_smoothing_factor) if model.training else 0.0

    def task_loss(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> TaskLoss:
        """Return the loss of a batch; the trainer of each task defines it."""
        raise NotImplementedError

    def loss_weight(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the weight of a batch's `TaskLoss`, given its labels; the trainer of each task defines it."""
        raise NotImplementedError

    def with_labels(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return a batch with its labels, which may have to be drawn."""
        return inputs

    def loss_mask(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor | None:
        """Return (batch, length), 0 at padding that is not in the loss; None if there is no such padding."""
        return inputs.get("attention_mask")

    def forward_and_backward(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | None
    ) -> torch.Tensor:
        """Add the gradient of a batch's loss to the gradients, part by part with --tokens_per_batch.

        Processes may have different numbers of parts. They exchange the weight of the batch before the first part, and
        gradients in the last part.
        """
        if self.args.tokens_per_batch is None:
            return super().forward_and_backward(model, inputs, num_items_in_batch)
        inputs = self.with_labels(self._prepare_inputs(inputs))
        weight = self._mean_over_processes(self.loss_weight(inputs))
        parts = split_batch(inputs, self.loss_mask(inputs), self.args.tokens_per_batch, self.args.padding_multiple)
        losses = []
        for number, part in enumerate(parts, 1):
            self.part = BatchPart(weight, is_last=number == len(parts))
            with nullcontext() if self.part.is_last else self.accelerator.no_sync(model):
                losses.append(super().forward_and_backward(model, part, num_items_in_batch))
        self.part = None
        return torch.stack(losses).sum()

    def _mean_over_processes(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the mean weight, so that the mean gradient of the processes is the gradient of all their rows."""
        if self.args.world_size == 1:
            return weight
        mean: torch.Tensor = self.accelerator.reduce(weight, "mean")
        return mean

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:
        """Return the task's loss; in training over the batch of all processes and with the fusion regulariser."""
        total, weight, outputs = self.task_loss(model, inputs)
        if model.training:
            part = self.part or BatchPart(self._mean_over_processes(weight), is_last=True)
            loss = total / part.weight.clamp(min=EPS)
            if self.regularized and part.is_last:
                loss = loss + self._fusion_regularization().to(loss)
        else:
            self.eval_losses.append(torch.stack([total, weight]).detach())
            loss = total / weight.clamp(min=EPS)
        return (loss, outputs) if return_outputs else loss

    def _fusion_regularization(self) -> torch.Tensor:
        """Return the fusion regulariser; under ZeRO-3 partitioned matrices are gathered for it."""
        plugin = self.args.deepspeed_plugin
        partitioned = plugin is not None and plugin.zero_stage == 3
        return fusion_regularization(gather_params(self.regularized) if partitioned else self.regularized)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], Any]:
        """Fetch the batches of a step; ignore repeated rows in the last batch of an epoch."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches:
            self._mask_duplicate_rows(batches[-1], self.args.train_batch_size)
        return batches, items

    def _mask_duplicate_rows(self, batch: dict[str, torch.Tensor], batch_size: int) -> None:
        """Set the labels of repeated rows in the last batch to `IGNORE_INDEX`.

        accelerate gives the batches to the processes in turn. It repeats rows from the beginning of the data so that
        every process gets a full last batch (`batch_size` rows).
        """
        own_rows = self.own_rows(batch_size)
        if own_rows is not None:
            for name in self.label_names:
                if name in batch:
                    batch[name][own_rows:] = IGNORE_INDEX

    def own_rows(self, batch_size: int) -> int | None:
        """Return the rows of the current batch that accelerate has not repeated; None: all."""
        gradient_state = self.accelerator.gradient_state
        if self.args.world_size == 1 or not gradient_state.end_of_dataloader or gradient_state.remainder <= 0:
            return None
        own_rows: int = max(gradient_state.remainder - self.args.process_index * batch_size, 0)
        return own_rows

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor | None, Any, Any]:
        """Evaluate a batch; ignore repeated rows in it."""
        self._mask_duplicate_rows(inputs, self.args.eval_batch_size)
        step: tuple[torch.Tensor | None, Any, Any] = super().prediction_step(
            model, inputs, prediction_loss_only, ignore_keys
        )
        return step

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Run an evaluation. Its loss is the mean over all labels of all batches, or 0 without labels."""
        self.eval_losses = []
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        pairs = torch.stack(self.eval_losses).double().sum(0) if self.eval_losses else torch.zeros(2)
        total, weight = self.accelerator.gather(pairs.float()[None]).double().sum(0).tolist()
        scores = self.loss_scores(total / max(weight, EPS))
        named = {f"{metric_key_prefix}_{name}": value for name, value in scores.items()}
        return output._replace(metrics={**(output.metrics or {}), **named})

    def loss_scores(self, loss: float) -> dict[str, float]:
        """Return the metrics of an evaluation that follow from its loss, which is one of them."""
        return {"loss": loss}

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """Return the names of the weights that weight decay acts on."""
        names: list[str] = super().get_decay_parameter_names(model)
        if self.decay_fusion_values:
            return names
        values = {name for name, _ in fusion_values(model)}
        return [name for name in names if name not in values]

    def create_optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer; with --head_learning_rate the head's weights are in groups of their own, the last."""
        is_new = self.optimizer is None
        optimizer: torch.optim.Optimizer = super().create_optimizer()
        if is_new and self.args.head_learning_rate is not None:
            names = head_names(self.model)
            head = {id(weight) for name, weight in self.model.named_parameters() if name in names}
            for group in list(optimizer.param_groups):
                weights = [weight for weight in group["params"] if id(weight) in head]
                group["params"] = [weight for weight in group["params"] if id(weight) not in head]
                optimizer.add_param_group(group | {"params": weights, "lr": self.args.head_learning_rate})
            if self.is_deepspeed_enabled:  # it removes empty groups after the schedule has counted them
                optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
        return optimizer

    def _get_learning_rate(self) -> float:
        """Return the learning rate of a step, and keep that of the head for the log."""
        optimizer: Any = self.optimizer  # not None while training
        self.head_rate = float(optimizer.param_groups[-1]["lr"])
        rate: float = super()._get_learning_rate()
        return rate

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log metrics; with --head_learning_rate that rate beside the other."""
        if "learning_rate" in logs and self.args.head_learning_rate is not None:
            logs["head_learning_rate"] = self.head_rate
        super().log(logs, start_time)

    def label_entropy(self) -> float:
        """Return the training loss, in nats, of a model that ignores its input; the trainer of each task defines it."""
        raise NotImplementedError

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[int] | None:
        """Return the order of training.

        --group_by_length gives buckets, too: the library's own grouping has another order in a resumed run.
        """
        if not self.bucketed and not self.args.group_by_length:
            sampler: Sampler[int] | None = super()._get_train_sampler(train_dataset)
            return sampler
        dataset: Any = self.train_dataset
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return BucketSampler(dataset.lengths(), self.args.train_batch_size * self.args.world_size, seed)

    def _get_eval_sampler(self, eval_dataset: Dataset[Any]) -> Sampler[int] | None:
        """Return the order of the data, which predictions must have, too; with several processes none is needed.

        The library would let --group_by_length shuffle the data.
        """
        if self.args.world_size > 1:
            return None
        return SequentialSampler(eval_dataset)  # type: ignore[arg-type]  # ours have a length

    @contextmanager
    def full_model(self) -> Iterator[PreTrainedModel]:
        """Give the model with full float32 weights, to be saved; all processes must enter."""
        if self.deepspeed is None:
            yield self.model
            return
        with swap_weights(self.model, self.trained_weights() | self.frozen):
            yield self.model
