"""The device of a program: check `--ngpu` and `--device` against the GPUs that torch sees."""

from collections.abc import Iterator
from contextlib import contextmanager

from pam.errors import PamError


def device_for(ngpu: int) -> str:
    """The device of `--ngpu`: "cpu" for 0, else "cuda". `PamError` if torch sees fewer GPUs.

    Every program with `--ngpu` calls this before it reads or writes anything. It turns TF32 on.
    """
    if ngpu < 0:
        raise PamError(f"--ngpu {ngpu}: expected 0 (the CPU) or more")
    if ngpu == 0:
        return "cpu"
    seen = gpus_seen()
    if seen == 0:
        raise PamError(f"--ngpu {ngpu}: {why_none()}: use --ngpu 0 (the CPU)")
    if ngpu > seen:
        found = "1 GPU" if seen == 1 else f"{seen} GPUs"
        raise PamError(f"--ngpu {ngpu}: torch sees {found}: use --ngpu {seen} or less")
    allow_tf32()
    return "cuda"


def device_called(name: str) -> str:
    """The device of `--device`: cpu, cuda or cuda:N. `PamError` if torch does not see it."""
    if name == "cpu":
        return name
    kind, colon, number = name.partition(":")
    if kind != "cuda" or (colon and not number.isdigit()):
        raise PamError(f"--device {name}: expected cpu, cuda or cuda:N (from 0)")
    if (seen := gpus_seen()) <= int(number or 0):
        if seen == 0:
            raise PamError(f"--device {name}: {why_none()}: use --device cpu")
        raise PamError(f"--device {name}: torch sees {seen} GPUs: use cuda:{seen - 1} or less")
    allow_tf32()
    return name


def why_none() -> str:
    """That torch sees no GPU, and why: without CUDA, without a driver, or with one too old."""
    import torch

    if torch.version.cuda is None:
        return "torch sees no GPU (it is built without CUDA)"
    reason = ""
    try:
        torch.cuda.init()
    except (AssertionError, RuntimeError) as error:
        reason = "; " + " ".join(str(error).split()).partition(". ")[0]
    return f"torch sees no GPU (it is built for CUDA {torch.version.cuda}{reason})"


def gpus_seen() -> int:
    import torch  # takes seconds

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def allow_tf32() -> None:
    """Let GPUs multiply float32 matrices as TF32, faster and with 10 bits of mantissa."""
    import torch

    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True


@contextmanager
def without_tf32() -> Iterator[None]:
    """Context in which GPUs multiply float32 matrices, those of convolutions too, as float32."""
    import torch

    chosen, of_cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(chosen)
        torch.backends.cudnn.allow_tf32 = of_cudnn


def cores() -> int:
    """Cores that this process may use, within affinity and cgroups (Slurm, containers)."""
    from joblib import cpu_count  # 0.1 s

    return cpu_count()
