"""slurm: cells run in the jobs of an array of Slurm. Needs `pip install 'decoderbench[slurm]'`."""

from decoderbench import hookimpl

from .executor import Slurm


@hookimpl
def register_executors() -> list[type[Slurm]]:
    """Register the executor of this package."""
    return [Slurm]
