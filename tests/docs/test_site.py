"""What the documentation site generates from the code; nothing is built here."""

import re
from pathlib import Path

import pytest
import typer

import decoderbench
from decoderbench.cli import app
from decoderbench.config.experiment import Experiment
from decoderbench.registry.registry import Registry

pytest.importorskip("sphinx")

from sitegen.docstrings import to_rst
from sitegen.links import page_of
from sitegen.pages import GENERATED, generated_pages, write_pages

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return generated_pages()


def text_of(pages: dict[str, str], folder: str) -> str:
    return "\n".join(text for name, text in pages.items() if name.startswith(folder))


def test_reference_has_every_public_name_once(pages: dict[str, str]) -> None:
    text = text_of(pages, "reference/python/")
    documented = re.findall(r"^\.\. (?:autoclass|autofunction|py:data):: (?:decoderbench\.)?(\w+)$", text, re.MULTILINE)
    assert len(documented) > 90
    assert sorted(documented) == sorted(decoderbench.__all__)


def test_reference_has_value_and_docstring_of_constants(pages: dict[str, str]) -> None:
    assert "   :value: Literal['train', 'val', 'test']\n\n   The part of the data" in pages["reference/python/datasets"]


def test_reference_has_the_help_of_every_command(pages: dict[str, str]) -> None:
    text = pages["reference/commands"]
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert re.findall(r"^## (\S+)$", text, re.MULTILINE) == list(commands)
    for name, command in commands.items():
        assert f"Usage: decoderbench {name} [OPTIONS]" in text
        assert " ".join(command.help.split("\n\n")[0].split()) in " ".join(text.split())


def test_reference_has_every_table_and_option_of_an_experiment(pages: dict[str, str]) -> None:
    text = pages["reference/experiment"]
    options = re.findall(r"^`+\{confval\} (\S+)$", text, re.MULTILINE)
    assert {option.partition(".")[0] for option in options} == set(Experiment.model_fields)
    assert len(set(options)) == len(options)
    assert {"training.steps", "dataset.folds", "grid.settings.LABEL.training", "labels.normalize.case"} <= set(options)
    assert "`int, >= 1`, default `2000`\n\nOptimizer steps." in text


def test_reference_has_every_built_in_component_with_its_options(pages: dict[str, str], registry: Registry) -> None:
    for kind, components in registry.items():
        for name, one in components.items():
            (section,) = re.findall(
                rf"^## {name}$(.*?)(?=^## |\Z)", pages[f"reference/components/{kind}"], re.MULTILINE | re.DOTALL
            )
            for option in one.config_class.model_fields:
                assert f"{{confval}} {option}\n" in section


def test_site_has_the_pages_of_the_repository_at_their_paths(pages: dict[str, str]) -> None:
    assert page_of("README.md") == "index"
    assert page_of("framework/decisions") == "framework/decisions/index"
    assert page_of("pyproject.toml") is None
    for file in (*ROOT.glob("framework/**/*.md"), *ROOT.glob("plugins/*.md"), ROOT / "results" / "LOG.md"):
        page = page_of(file.relative_to(ROOT).as_posix())
        assert page is not None
        (included,) = re.findall(r"^```\{include\} (\S+)$", pages[page], re.MULTILINE)
        assert (ROOT / "docs" / f"{page}.md").parent.joinpath(included).resolve() == file


def test_written_pages_replace_generated_ones_only(tmp_path: Path) -> None:
    (tmp_path / "framework").mkdir()
    stale, own = tmp_path / "framework" / "gone.md", tmp_path / "index.md"
    stale.write_text(GENERATED + "# Gone\n")
    own.write_text("# By hand\n")
    write_pages(tmp_path)
    assert not stale.exists()
    assert own.read_text() == "# By hand\n"
    page = tmp_path / "reference" / "commands.md"
    assert page.read_text().startswith(GENERATED)
    written = page.stat().st_mtime_ns
    write_pages(tmp_path)
    assert page.stat().st_mtime_ns == written  # so that Sphinx does not read it again


def test_docstrings_become_restructured_text() -> None:
    lines = ["`h_t` is decay_t h_{t-1} * |x|:", "", "    a = b * c", "", "Args:", "    log_probs: (B, T, `V`)."]
    to_rst(lines)
    assert lines == [
        "``h_t`` is decay_t h\\_{t-1} \\* \\|x\\|::",
        "",
        "    a = b * c",
        "",
        "Args:",
        "    log_probs: (B, T, ``V``).",
    ]
