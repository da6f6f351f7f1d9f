"""Learning rate: linear warm-up, then linear decay to a floor."""

from espnet2.schedulers.abs_scheduler import AbsBatchStepScheduler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class LinearWarmupDecay(LRScheduler, AbsBatchStepScheduler):
    """The factor of every rate rises to 1 in `warmup_steps` and falls to `floor` at `total_steps`.

    Steps are updates of the optimizer, not batches: ESPnet steps an `AbsBatchStepScheduler` after
    each update. (It would step a LambdaLR after every epoch too.)
    """

    def __init__(
        self, optimizer: Optimizer, warmup_steps: int, total_steps: int, floor: float = 0.02
    ):
        self.warmup_steps, self.total_steps, self.floor = warmup_steps, total_steps, floor
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        return [rate * self.factor(self.last_epoch) for rate in self.base_lrs]

    def factor(self, step: int) -> float:
        rise = (step + 1) / max(self.warmup_steps, 1)
        fall = (self.total_steps - step) / max(self.total_steps - self.warmup_steps, 1)
        return max(min(rise, fall, 1.0), self.floor if step >= self.warmup_steps else 0.0)

    def skip(self) -> None:
        """Count an update that ESPnet skipped: the run has one fewer, so the rates fall sooner."""
        self.total_steps -= 1
