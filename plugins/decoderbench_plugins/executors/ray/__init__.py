"""ray: cells run on the machines of a Ray cluster. Needs `pip install 'decoderbench[ray]'`."""

from decoderbench import hookimpl

from .executor import Ray


@hookimpl
def register_executors() -> list[type[Ray]]:
    """Register the executor of this package."""
    return [Ray]
