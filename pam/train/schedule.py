"""Learning rate: linear warm-up, then linear decay to a floor."""

from espnet2.schedulers.abs_scheduler import AbsBatchStepScheduler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class LinearWarmupDecay(LambdaLR):
    """Factor of every rate: rises to 1 in `warmup_steps`, falls to `floor` at `total_steps`."""

    def __init__(
        self, optimizer: Optimizer, warmup_steps: int, total_steps: int, floor: float = 0.02
    ):
        def factor(step: int) -> float:
            rise = (step + 1) / max(warmup_steps, 1)
            fall = (total_steps - step) / max(total_steps - warmup_steps, 1)
            return max(min(rise, fall, 1.0), floor if step >= warmup_steps else 0.0)

        super().__init__(optimizer, factor)


# ESPnet steps a scheduler after every batch if it is one of these.
AbsBatchStepScheduler.register(LinearWarmupDecay)
