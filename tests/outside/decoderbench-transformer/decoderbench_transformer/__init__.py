"""A Transformer decoder, and somebody else's recognizer behind an adapter, as plugins of decoderbench."""

from decoderbench import hookimpl


@hookimpl
def plugin_modules() -> list[str]:
    """Each module of this package that registers something."""
    return [f"{__name__}.{module}" for module in ("adapter", "transformer")]
