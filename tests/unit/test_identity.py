"""Cell ids: which options and sources they depend on, and ids that must not change by accident."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from helpers.experiments import PlanCells
from helpers.recording import make_cell, make_record, publish
from pydantic import Field

from decoderbench import Experiment, prepare
from decoderbench.errors import DataError
from decoderbench.identity import Introduced, NotDecisive, identity_of
from decoderbench.kinds import AXES
from decoderbench.options import Options
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.registry.registry import Registry
from decoderbench.runs.runner import run
from decoderbench.sources import source_digest
from decoderbench.training.building import build_recognizer

IDS = {
    "timm-cnn-mean-height-lstm-cell-seed-0-7a83e8ad9956",
    "timm-cnn-mean-height-lstm-ctc-seed-0-c4b1961642bc",
    "timm-cnn-mean-height-attention-lstm-seed-0-d99feab848ae",
    "timm-cnn-mean-height-lstm-ctc-seed-0-841284154906",
    "timm-cnn-mean-height-lstm-cell-seed-0-cfdb6601402b",
    "timm-cnn-mean-height-lstm-cell-seed-1-280517303006",
    "timm-cnn-mean-height-lstm-cell-seed-2-ae938ec36e9f",
    "timm-cnn-mean-height-lstm-cell-seed-0-169cb0a7783a",
    "timm-cnn-mean-height-lstm-cell-seed-1-338e7017e99e",
    "timm-cnn-mean-height-lstm-cell-seed-2-cbda62c16bc6",
}


def test_cell_ids_of_two_experiments_are_unchanged(plan_cells: PlanCells) -> None:
    found = set()
    for name in ("quickstart", "question"):
        for cell in plan_cells(name)[:6]:
            # The sources of components and the libraries that draw the images have tests of their own.
            parts = {axis: getattr(cell, axis).model_copy(update={"source": "0" * 16}) for axis in AXES}
            found.add(cell.model_copy(update=parts | {"data_hash": "0" * 64}).cell_id)
    assert found == IDS


class Inner(Options):
    depth: int = 1


class FirstVersion(Options):
    name: str
    steps: int = 100
    inner: Inner = Inner()


class SecondVersion(Options):
    """Version 1 with two new options, another default, and an option that cannot change a result."""

    name: str
    steps: Annotated[int, Introduced(100)] = 200
    inner: Inner = Inner()
    smoothing: float = 0.0
    milestones: tuple[int, ...] = ()
    workers: Annotated[int, Field(ge=1), NotDecisive()] = 1


def test_identity_omits_options_at_their_introduced_value() -> None:
    assert identity_of(FirstVersion(name="a")) == {"name": "a"}
    assert identity_of(FirstVersion(name="a", steps=7)) == {"name": "a", "steps": 7}
    assert identity_of(FirstVersion(name="a", inner=Inner(depth=2))) == {"name": "a", "inner": {"depth": 2}}


def test_new_options_do_not_change_existing_identities() -> None:
    old = identity_of(FirstVersion(name="a"))
    assert identity_of(SecondVersion(name="a", steps=100)) == old
    assert identity_of(SecondVersion(name="a", steps=100, smoothing=0.1, milestones=(3,))) == old | {
        "smoothing": 0.1,
        "milestones": [3],
    }


def test_identity_contains_a_changed_default() -> None:
    assert identity_of(SecondVersion(name="a")) == {"name": "a", "steps": 200}


def test_identity_omits_options_that_are_not_decisive() -> None:
    assert identity_of(SecondVersion(name="a", workers=8)) == identity_of(SecondVersion(name="a"))


def test_identity_distinguishes_true_from_one() -> None:
    class Switch(Options):
        layers: int | bool = 1

    assert identity_of(Switch(layers=1)) == {}
    assert identity_of(Switch(layers=True))["layers"] is True


def test_choice_of_models_counts_by_the_model() -> None:
    class Batch(Options):
        kind: Literal["batch"] = "batch"

    class Layer(Options):
        kind: Literal["layer"] = "layer"

    class Norm(Options):
        norm: Annotated[Batch | Layer, Field(discriminator="kind")] = Batch()

    assert identity_of(Norm()) == identity_of(Norm(norm=Batch())) == {}
    assert identity_of(Norm(norm=Layer())) == {"norm": {"model": "Layer"}}


def test_true_is_not_one_in_a_list_either() -> None:
    class Flags(Options):
        flags: tuple[int | bool, ...] = (1,)

    assert identity_of(Flags(flags=(True,))) == {"flags": [True]}


ORIGINAL = '''"""A module."""
import math
class A:
    """A class."""
    size: int = 2
    """The size."""
    def f(self, x):
        """A method."""
        return x + self.size  # a comment
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("A module.", "Another module.", True),
        ("The size.", "How large.", True),
        ("  # a comment", "", True),
        ("return x + self.size", "return (x +\n            self.size)", True),
        ('        """A method."""\n', "", True),
        ("x + self.size", "x - self.size", False),
        ("size: int = 2", "size: int = 3", False),
        ("size: int = 2", "size: int = 2.0", False),
        ("size: int = 2", "size: int = True", False),
        ("import math", "import cmath", False),
        ("size: int = 2", "size: int = 'int 2'", False),
        ("    def f", "    @staticmethod\n    def f", False),
    ],
)
def test_source_digest_ignores_comments_docstrings_and_layout(tmp_path: Path, old: str, new: str, same: bool) -> None:
    file = tmp_path / "plugin.py"
    file.write_text(ORIGINAL)
    before = source_digest(file)
    assert old in ORIGINAL
    file.write_text(ORIGINAL.replace(old, new))
    assert (source_digest(file) == before) is same


def test_source_digest_is_the_same_for_all_python_versions(tmp_path: Path) -> None:
    file = tmp_path / "plugin.py"
    file.write_text(ORIGINAL)
    assert source_digest(file) == "90dfbb27da36bdca"


def test_source_digest_of_other_files_depends_on_their_bytes(tmp_path: Path) -> None:
    file = tmp_path / "plugin.so"
    file.write_bytes(b"\x7fELF")
    before = source_digest(file)
    file.write_bytes(b"\x7fELG")
    assert source_digest(file) != before


def change_format(path: Path, given: int | None) -> bytes:
    """Replace or remove the format of a JSON file and return its new content."""
    data = json.loads(path.read_text())
    assert data.pop("format") == 6
    del data["sha256"]
    path.write_text(json.dumps(data if given is None else data | {"format": given}))
    return path.read_bytes()


@pytest.mark.parametrize(("given", "named"), [(None, 1), (2, 2), (7, 7)])
def test_read_refuses_record_of_another_format_and_keeps_it(tmp_path: Path, given: int | None, named: int) -> None:
    cell = make_cell()
    directory = publish(tmp_path, [cell], [make_record(cell)])
    file = directory.cell_directory(cell) / "result.json"
    before = change_format(file, given)
    with pytest.raises(DataError, match=rf"result.json: has format {named}, this decoderbench reads format 6"):
        directory.read(cell)
    assert file.read_bytes() == before
    assert list(file.parent.glob("*.damaged")) == []


def test_run_refuses_results_change_format(tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path) -> None:

    publish(tmp_path, [make_cell()], [], experiment="tiny")
    before = change_format(tmp_path / "plan.json", None)
    with pytest.raises(DataError, match=r"plan\.json: has format 1"):
        run(Experiment(**tiny), registry=tiny_registry, results=tmp_path, device="cpu")
    with pytest.raises(DataError, match=r"plan\.json: has format 1"):
        ResultsDirectory(tmp_path).read_plan()
    assert (tmp_path / "plan.json").read_bytes() == before


def test_record_of_another_cell_is_named_and_renamed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, other = make_cell("CTC"), make_cell("loop")
    directory = publish(tmp_path, [one, other], [make_record(one)])
    file = directory.cell_directory(other) / "result.json"
    file.parent.mkdir(parents=True)
    file.write_bytes((directory.cell_directory(one) / "result.json").read_bytes())
    content = file.read_bytes()
    assert directory.read(other) is None
    assert f"{file}: damaged: the record of another cell, {one.cell_id}; renamed to result.json.damaged" in caplog.text
    assert file.with_name("result.json.damaged").read_bytes() == content
    assert directory.read(one) is not None


def test_second_corrupt_record_does_not_replace_the_first(tmp_path: Path) -> None:
    cell = make_cell()
    directory = publish(tmp_path, [cell], [])
    file = directory.cell_directory(cell) / "result.json"
    file.parent.mkdir(parents=True)
    for content in ("first", "second"):
        file.write_text(content)
        assert directory.read(cell) is None
    assert (file.parent / "result.json.damaged").read_text() == "first"
    assert (file.parent / "result.json.damaged-2").read_text() == "second"


@pytest.mark.parametrize("deep", [False, True])
def test_copy_of_a_cell_has_the_id_of_its_own_values(deep: bool) -> None:
    cell = make_cell(seed=1)
    known = cell.cell_id
    other = cell.model_copy(update={"seed": 2}, deep=deep)
    assert other.cell_id == make_cell(seed=2).cell_id != known
    assert cell.model_copy(update={"experiment": "another"}).cell_id == known
    assert cell == make_cell(seed=1), "an id that was asked for is no value of a cell"
    assert "cell_id" not in cell.model_dump()


def test_trainers_count_with_their_order() -> None:
    ids = [make_cell(trainers=trainers).cell_id for trainers in ({}, {"a": "1", "b": "2"}, {"b": "2", "a": "1"})]
    assert len(set(ids)) == 3


def test_options_that_cannot_change_a_result_leave_the_initial_weights(
    tiny: dict[str, Any], tiny_registry: Registry
) -> None:
    import torch

    from decoderbench_plugins.decoders.lstm_ctc import LSTMCTC

    class Config(LSTMCTC.Config):
        workers: Annotated[int, NotDecisive()] = 1
        """Workers."""

    parallel = type("Parallel", (LSTMCTC,), {"name": "parallel", "Config": Config, "__module__": __name__})
    tiny_registry["decoder"].add(parallel, "test", "test")
    tiny["grid"]["decoder"] = {str(number): {"use": "parallel", "workers": number} for number in (1, 3)}
    one, three = prepare(Experiment(**tiny), registry=tiny_registry).cells
    assert one.cell_id == three.cell_id
    weights = [build_recognizer(cell, tiny_registry, torch.device("cpu")).decoder.state_dict() for cell in (one, three)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
