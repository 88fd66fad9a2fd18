"""Options as Markdown: name, type, limits, default, description."""

from collections.abc import Iterator

from pydantic.fields import FieldInfo

from decoderbench.registry.listing import default_of, type_of


def option_lines(name: str, option: FieldInfo, *, index: bool = True) -> Iterator[str]:
    """Yield an option, which the index and the search list if `index`."""
    default = default_of(option)
    shown = f"default `{default.removeprefix('= ')}`" if default.startswith("= ") else default.strip("()")
    yield f"````{{confval}} {name}"
    if not index:
        yield ":no-index:"
    yield f"\n`{type_of(option)}`, {shown}\n\n{option.description or ''}\n````\n"
