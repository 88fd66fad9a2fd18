"""Plugins of decoderbench: a Transformer decoder, and an adapter for a recognizer from another project."""

from decoderbench import hookimpl


@hookimpl
def plugin_modules() -> list[str]:
    """Return the modules of this package that register components."""
    return [f"{__name__}.{module}" for module in ("adapter", "transformer")]
