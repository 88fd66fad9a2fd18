"""Plans and results that state their own sha256: one changed bit or digit is found, another layout is not damage."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from helpers.recording import make_cell, make_record, publish

from decoderbench.files.integrity import DamagedError, artifact_of, check_content, has_own_digest, seal
from decoderbench.records.record_files import (
    RESULT,
    OtherFormatError,
    collect_artifacts,
    encode,
    read_plan,
    read_result,
)
from decoderbench.records.schema import UNVERIFIED_FORMAT, Plan, RunRecord

PLAN = Plan(experiment="x", command="decoderbench run", cells=(), split_sizes={"train": 120}, data_notes=("é 1.5e-07",))


def test_every_flipped_bit_of_a_plan_is_found(tmp_path: Path) -> None:
    file, content = tmp_path / "plan.json", encode(PLAN)
    file.write_bytes(content)
    assert read_plan(file) == PLAN
    for place in range(len(content)):
        for bit in range(8):
            file.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
            with pytest.raises(DamagedError, match=r"plan\.json: damaged: (sha256 mismatch|not JSON|it states no)"):
                read_plan(file)


def test_every_edited_digit_of_a_result_is_found(tmp_path: Path) -> None:
    cell = make_cell()
    directory = publish(tmp_path, [cell], [make_record(cell, 0.1 + 0.2, cost={"latency_ms": 2.5e-07})])
    folder = directory.cell_directory(cell)
    text = (folder / "result.json").read_text()
    assert "0.30000000000000004" in text
    assert read_result(folder).metrics["exact_match"] == 0.30000000000000004
    found = 0
    for place, character in enumerate(text):
        if character.isdigit() and character.isascii():
            edited = text[:place] + str((int(character) + 1) % 10) + text[place + 1 :]
            (folder / "result.json").write_text(edited)
            with pytest.raises(DamagedError):
                read_result(folder)
            found += 1
    assert found > 100


def test_digit_that_leaves_a_float_the_same_is_found() -> None:
    assert 0.30000000000000004 == 0.30000000000000005
    content = seal({"x": 0.1 + 0.2})
    assert has_own_digest(content)
    assert not has_own_digest(content.replace(b"0.30000000000000004", b"0.30000000000000005"))


def test_another_layout_of_the_same_json_is_not_damage(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    data = json.loads(encode(PLAN))
    file.write_text(json.dumps(dict(sorted(data.items())), indent=4).replace("\n", "\r\n"), newline="")
    assert read_plan(file) == PLAN


def test_file_of_a_newer_format_is_refused_and_left_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    newer = seal(json.loads(encode(PLAN)) | {"format": 7, "further": 1})
    for content in (newer, newer.replace(b'"further": 1', b'"further": 2')):  # whose digest may mean something else
        file.write_bytes(content)
        with pytest.raises(OtherFormatError, match=r"plan\.json: has format 7, this decoderbench reads format 6"):
            read_plan(file)
        assert file.read_bytes() == content


def earlier(record: RunRecord, given: int) -> dict[str, Any]:
    """Return a record as an earlier version wrote it: without the fields that this version has added."""
    data = json.loads(record.model_dump_json(exclude_defaults=True)) | {"format": given}
    return data if given != UNVERIFIED_FORMAT else {name: data[name] for name in data if name != "artifacts"}


@pytest.mark.parametrize("given", [3, 4, 5])
def test_record_of_an_earlier_format_is_read_and_gets_no_field_of_this_one(tmp_path: Path, given: int) -> None:
    data = earlier(make_record(make_cell()), given)
    folder = tmp_path / make_cell().cell_id
    folder.mkdir()
    content = seal(data) if given != UNVERIFIED_FORMAT else json.dumps(data).encode()
    (folder / RESULT).write_bytes(content)
    record = read_result(folder)
    assert record.format == given
    assert record.cell.setting == ""
    assert json.loads(encode(record)) == json.loads(content)
    changed = record.model_copy(update={"metrics": {"cer": 0.5}})  # as metrics that are computed again
    assert json.loads(encode(changed)).keys() == json.loads(content).keys()
    (folder / RESULT).write_bytes(encode(changed))
    assert read_result(folder).metrics == {"cer": 0.5}
    (folder / RESULT).write_bytes(content.replace(b'"done"', b'"oom"'))
    if given != UNVERIFIED_FORMAT:
        with pytest.raises(DamagedError, match="sha256 mismatch"):
            read_result(folder)


@pytest.mark.parametrize("changes", [{"format": 3}, {"format": None}, {"sha256": "0" * 64}, {"sha256": None}])
def test_digest_cannot_be_lost_with_the_format(tmp_path: Path, changes: dict[str, Any]) -> None:
    data = json.loads(encode(PLAN)) | changes
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({name: value for name, value in data.items() if value is not None}))
    with pytest.raises(DamagedError):
        read_plan(file)


def test_numbers_and_their_text_have_different_digests() -> None:
    assert has_own_digest(seal({"x": 5}))
    assert not has_own_digest(seal({"x": 5}).replace(b"5,", b'"5",'))


def test_size_is_named_before_the_digest(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(1024))
    artifact = artifact_of(file)
    check_content(file, artifact)
    for content, damage in [(bytes(812), "812 of 1,024 bytes"), (b"", "empty, 0 of 1,024 bytes")]:
        file.write_bytes(content)
        with pytest.raises(DamagedError, match=f"{file}: damaged: {damage}$"):
            check_content(file, artifact)
    file.write_bytes(bytes(1023) + b"1")
    with pytest.raises(DamagedError, match=f"{file}: damaged: sha256 mismatch$"):
        check_content(file, artifact)


def test_json_that_is_no_plan_is_not_taken_for_one_of_an_older_format(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(make_cell().model_dump_json())
    with pytest.raises(DamagedError, match="not a plan"):
        read_plan(tmp_path / "plan.json")


@pytest.mark.parametrize(
    ("content", "damage"),
    [
        (b"[" * 100_000, "not JSON, 100,000 bytes"),
        (b'{"a":' * 900 + b"1" + b"}" * 900, "not a plan"),
        (b'{"format": 3, "a": ' + b"[" * 900 + b"]" * 900 + b"}", "not a plan"),
        (b"\0" * 4096, "not JSON, 4,096 bytes"),
        ('{"format": 4}'.encode("utf-16"), "not JSON, 28 bytes"),
        (b"[1, 2]", "not a JSON object, 6 bytes"),
        (b'{"experiment": "\\ud800", "cells": [], "command": "", "format": 3}', "not a plan"),
        (b'{"experiment": 1e999, "cells": NaN, "format": 3}', "not a plan"),
        (b'{"experiment": ' + b"9" * 5000 + b', "cells": [], "format": 3}', "not JSON, "),
    ],
    ids=["deep", "nested", "nested and old", "zeros", "utf-16", "list", "surrogate", "not a number", "long number"],
)
def test_hostile_plan_is_damaged_and_no_traceback(tmp_path: Path, content: bytes, damage: str) -> None:
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(DamagedError, match=f"damaged: {damage}"):
        read_plan(tmp_path / "plan.json")


def test_files_that_cannot_be_recorded_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / os.fsdecode(b"\xff.bin")).touch()
    (tmp_path / "mine.bin").write_bytes(b"1")
    assert list(collect_artifacts(tmp_path)) == ["mine.bin"]
    assert "pipe: not recorded: not a regular file" in caplog.text
    assert "not recorded, its name is not UTF-8" in caplog.text
