"""The page of commands: what `--help` prints."""

from typing import Any

import typer

from decoderbench.cli import app

WIDTH = 90


def help_texts() -> dict[str, str]:
    """Return what `--help` prints, by command; that of the command line itself by an empty name."""
    group: Any = typer.main.get_command(app)
    settings = {"terminal_width": WIDTH, "max_content_width": WIDTH, "resilient_parsing": True}
    whole = group.make_context("decoderbench", [], **settings)
    texts = {"": group.get_help(whole)}
    for name, command in group.commands.items():
        texts[name] = command.get_help(command.make_context(name, [], parent=whole, **settings))
    return texts


def commands_page() -> str:
    """Return the page."""
    heads = {name: f"## {name}\n\n" * bool(name) for name in help_texts()}
    blocks = [f"{heads[name]}```text\n{text.strip()}\n```\n" for name, text in help_texts().items()]
    return "\n".join(["# Commands\n", "What `--help` prints.\n", *blocks])
