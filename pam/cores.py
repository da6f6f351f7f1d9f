"""The number of cores that a process may use."""


def cores() -> int:
    """Cores within the limits of affinity and cgroups, so of Slurm and of containers."""
    from joblib import cpu_count  # a tenth of a second: only for those who ask

    return cpu_count()
