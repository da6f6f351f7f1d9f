"""The device of a program: check `--ngpu` against the GPUs that torch sees."""

from pam.errors import PamError


def device_for(ngpu: int) -> str:
    """The device of `--ngpu`: "cpu" for 0, else "cuda". `PamError` if torch sees fewer GPUs.

    Every program with `--ngpu` calls this before it reads or writes anything. It turns TF32 on.
    """
    if ngpu < 0:
        raise PamError(f"--ngpu {ngpu}: expected 0 (the CPU) or more")
    if ngpu == 0:
        return "cpu"
    import torch  # takes seconds

    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if seen == 0:
        raise PamError(f"--ngpu {ngpu}: torch sees no GPU: use --ngpu 0 (the CPU)")
    if ngpu > seen:
        found = "1 GPU" if seen == 1 else f"{seen} GPUs"
        raise PamError(f"--ngpu {ngpu}: torch sees {found}: use --ngpu {seen} or less")
    allow_tf32()
    return "cuda"


def allow_tf32() -> None:
    """Let GPUs multiply float32 matrices as TF32, faster and with 10 bits of mantissa."""
    import torch

    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True


def cores() -> int:
    """Cores that this process may use, within affinity and cgroups (Slurm, containers)."""
    from joblib import cpu_count  # 0.1 s

    return cpu_count()
