"""local: cells run side by side in long-lived worker processes of this machine. The default."""

from decoderbench import hookimpl

from .executor import Local


@hookimpl
def register_executors() -> list[type[Local]]:
    """Register the executor of this package."""
    return [Local]
