"""The checkpoints of a stage: writing them whole, which is the newest, and that nothing in one runs when it is read.

What is written is decided by private methods of transformers' Trainer, which any version may change: they are
overridden here and nowhere else, and `check_trainer` compares them with what is relied on.
"""

import inspect
import pickle
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import Trainer
from transformers.trainer_utils import get_last_checkpoint

from onellm.errors import OneLLMError
from onellm.utils import atomic
from train.modules import SOLVED, matches

DESCRIBED = ".metadata"  # of a checkpoint in shards; PyTorch unpickles it, unlike its tensors, as it is
KNOWN = {
    "torch.distributed.checkpoint.metadata": None,  # every class of it
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch.serialization": ("_get_layout",),
    "torch": ("Size", *(name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype))),
    "pathlib": ("PosixPath", "WindowsPath", "Path"),
    "collections": ("OrderedDict",),
}

PRIVATE = {  # methods of the Trainer -> their parameters, as of transformers 5.23
    "_save": ["self", "output_dir", "state_dict"],
    "_save_checkpoint": ["self", "model", "trial"],
    "_save_optimizer_and_scheduler": ["self", "output_dir"],
    "_issue_warnings_after_load": ["self", "load_result"],
    "_get_output_dir": ["self", "trial"],
    "_prepare_inputs": ["self", "inputs"],
}


def check_trainer(trainer: type = Trainer, version: str = transformers.__version__) -> None:
    """Check that transformers' Trainer still has the private methods that are overridden or called here.

    Raises:
        OneLLMError: one is gone, or takes other arguments.
    """
    for name, expected in PRIVATE.items():
        method = getattr(trainer, name, None)
        found = None if method is None else list(inspect.signature(method).parameters)
        if found != expected:
            raise OneLLMError(
                f"transformers {version}: Trainer.{name} takes {found or 'nothing: it is gone'}; expected {expected}; "
                "install the version in requirements.lock."
            )


check_trainer()


def last_checkpoint(out: Path) -> tuple[str | None, int]:
    """Return the newest checkpoint of a stage and its step; None and 0 where there is none."""
    folder = out / "checkpoints"
    last = get_last_checkpoint(str(folder)) if folder.exists() else None
    return last, int(last.rpartition("-")[2]) if last else 0


def check_shards(checkpoint: str) -> None:
    """Check that what describes a checkpoint in shards builds nothing but descriptions.

    Raises:
        pickle.UnpicklingError: it asks for something else, which could run code.
    """
    for path in Path(checkpoint).rglob(DESCRIBED):
        with path.open("rb") as file:
            _Unpickler(file).load()


class _Unpickler(pickle.Unpickler):
    """Reads descriptions of shards; refuses anything else in a pickle."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a known class.

        Raises:
            pickle.UnpicklingError: any other.
        """
        names = KNOWN.get(module, ())
        found = super().find_class(module, name) if names is None or name in names else None
        if found is None or names is None and getattr(found, "__module__", None) != module:
            raise pickle.UnpicklingError(f"its {DESCRIBED} asks for {module}.{name}")
        return found


class CheckpointingTrainer(Trainer):
    """transformers' Trainer whose checkpoints hold what trains, and appear when they are whole; `keep` of them stay."""

    keep = 2

    def trained_state(self) -> dict[str, torch.Tensor]:
        """Gather what was trained or solved, whole, on the main process: name -> tensor."""
        return self.changed_state(self.accelerator.get_state_dict(self.model_wrapped))

    def changed_state(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Keep of a state what was trained or solved."""
        names = {n for n, value in self.model.named_parameters() if value.requires_grad or matches(n, SOLVED)}
        return {name: tensor for name, tensor in state.items() if name in names}

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if self.args.should_save:
            from safetensors.torch import save_file

            state = self.changed_state(self.model.state_dict() if state_dict is None else state_dict)
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in state.items()}
            save_file(tensors, Path(output_dir) / "model.safetensors", metadata={"format": "pt"})

    def _issue_warnings_after_load(self, load_result) -> None:
        """Say nothing of what a checkpoint lacks: it holds what trains."""

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_fsdp_enabled:  # whose loading asks for the state of every parameter
            complete(self.optimizer)
        super()._save_optimizer_and_scheduler(output_dir)

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        final = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        trained = sum(value.numel() * value.element_size() for value in self.model.parameters() if value.requires_grad)
        writes = self.args.should_save
        with (
            atomic.whole(final, 3 * trained) if writes else nullcontext(atomic.beside(final)) as part
        ):  # with two moments
            self.accelerator.wait_for_everyone()
            self._get_output_dir = lambda trial=None: str(part)
            try:
                super()._save_checkpoint(model, trial)
            finally:
                del self._get_output_dir
            self.accelerator.wait_for_everyone()
            if writes:
                for file in (part / final.name).iterdir():
                    file.rename(part / file.name)
                (part / final.name).rmdir()
        if writes:
            found = sorted(final.parent.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
            for old in found[: -self.keep]:
                atomic.discard(old)
        self.accelerator.wait_for_everyone()


def complete(optimizer: torch.optim.Optimizer) -> None:
    """Give parameters that never had a gradient the state that they would start with; to be called between steps."""
    optimizer = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
    rates = [group["lr"] for group in optimizer.param_groups]
    fresh = []
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            if parameter.requires_grad and parameter not in optimizer.state:
                parameter.grad = torch.zeros_like(parameter)
                fresh.append(parameter)
    optimizer.step()
    for parameter in fresh:
        parameter.grad = None
        if "step" in optimizer.state[parameter]:
            optimizer.state[parameter]["step"].zero_()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
