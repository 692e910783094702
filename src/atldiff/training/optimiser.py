"""Optimiser step with float32 master weights, averaged weights and a schedule that is a function of the step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn

    from atldiff.config import TrainConfig

MUON_MIN_SIDE = 32
"""Weights whose flattened matrix has a side below this are left to AdamW."""


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the learning rate of a step: linear warm-up, constant, linear decay to zero at the end."""
    up = (step + 1) / max(1, config.warmup_steps)
    down = (config.steps - step) / max(1.0, config.decay_share * config.steps)
    return config.learning_rate * min(1.0, up, down)


class MasterOptimiser:
    """Muon for hidden weights, AdamW for the rest, on float32 copies of a module's parameters; and their average.

    Muon (Jordan et al., 2024; step size matched to AdamW's as in arXiv 2502.16982) orthogonalises the momentum of each
    weight, convolutions as (out, in * taps) matrices. The module itself may hold bfloat16 parameters; they are
    refreshed from the masters after each step.

    Gradients are added up and averaged over processes in float32 on the masters. DistributedDataParallel would do both
    in the parameters' bfloat16, through a module's `forward`, which a loss need not call.

    average: keep the averaged weights; processes that write nothing have no use for them. betas: of AdamW.
    """

    def __init__(
        self,
        module: nn.Module,
        config: TrainConfig,
        *,
        average: bool = True,
        betas: tuple[float, float] = (0.9, 0.98),
    ) -> None:
        self.config = config
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        self.names = [name for name, _ in named]
        self.parameters = [p for _, p in named]
        # Matrices: Muon works on (out, in * taps); vectors keep their shape.
        self.masters = [
            p.detach().float().clone(memory_format=torch.contiguous_format).flatten(1 if p.ndim > 1 else 0)
            for p in self.parameters
        ]
        self.averages = [p.clone() for p in self.masters] if average else []
        muon = [m for m in self.masters if self._is_hidden(m)]
        hidden = {id(m) for m in muon}
        rest = [m for m in self.masters if id(m) not in hidden]
        groups = [
            {"params": [m for m in rest if m.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [m for m in rest if m.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimisers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, betas=betas, fused=True)]
        if muon:
            self.optimisers.append(
                torch.optim.Muon(muon, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw")
            )

    def _is_hidden(self, master: torch.Tensor) -> bool:
        return self.config.optimiser == "muon" and master.ndim > 1 and min(master.shape) >= MUON_MIN_SIDE

    def accumulate(self) -> None:
        """Add the module's gradients to those of the step, in float32, and take them off the module."""
        for master, parameter in zip(self.masters, self.parameters, strict=True):
            gradient, parameter.grad = parameter.grad, None
            if gradient is None:
                if master.grad is None:
                    master.grad = torch.zeros_like(master)
            elif master.grad is None:
                master.grad = gradient.float().reshape(master.shape)
            else:
                master.grad += gradient.reshape(master.shape)

    def gradients(self) -> list[torch.Tensor]:
        """Return the gradients added up for this step, one a master."""
        return [master.grad for master in self.masters if master.grad is not None]

    def step(self, step: int) -> float:
        """Apply the gradients added up since the last step and return their norm before clipping."""
        self.accumulate()
        norm = torch.nn.utils.clip_grad_norm_(self.masters, self.config.clip_norm)
        rate = learning_rate(self.config, step)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
        decay = min(self.config.ema, (1 + step) / (10 + step))  # a young average forgets its start sooner
        for average, master in zip(self.averages, self.masters, strict=False):  # none where none are kept
            average.lerp_(master, 1 - decay)
        for master in self.masters:
            master.grad = None
        self.load_masters()
        return float(norm)

    @torch.no_grad()
    def _refresh(self, values: list[torch.Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value.view(parameter.shape))

    def load_averages(self) -> None:
        """Put the averaged weights into the module (for a probe or for shipping)."""
        self._refresh(self.averages)

    def load_masters(self) -> None:
        """Put the weights in training back into the module."""
        self._refresh(self.masters)

    def _states(self, master: torch.Tensor) -> dict[str, torch.Tensor]:
        for optimiser in self.optimisers:
            if master in optimiser.state:
                return {k: v for k, v in optimiser.state[master].items() if isinstance(v, torch.Tensor)}
        return {}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return everything a resumed run needs, by name, on the CPU: it may go on elsewhere."""
        out = {}
        for name, master, average in zip(self.names, self.masters, self.averages, strict=True):
            out[f"master/{name}"] = master
            out[f"average/{name}"] = average
            for key, value in self._states(master).items():
                out[f"{key}/{name}"] = value
        return {key: value.cpu().contiguous() for key, value in out.items()}

    @torch.no_grad()
    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Restore what `tensors` returned."""
        keys = sorted({key.partition("/")[0] for key in tensors} - {"master", "average"})
        for name, master in zip(self.names, self.masters, strict=True):
            master.copy_(tensors[f"master/{name}"])
            state = {
                key: tensors[f"{key}/{name}"].to(master.device, copy=True) for key in keys if f"{key}/{name}" in tensors
            }
            if state:
                hidden = self._is_hidden(master)
                self.optimisers[1 if hidden else 0].state[master] = state
        for name, average in zip(self.names, self.averages, strict=False):
            average.copy_(tensors[f"average/{name}"])
        self.load_masters()
