"""The commands `contrast` and `power`, on made-up predictions: what they print, refuse, and leave alone."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import call
from helpers.readings import make_row, publish_rows, read, write_result

from decoderbench.analysis import load_report
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import Plan, append_line
from decoderbench.statistics import Scores, contrast, family, half_width, holm, seeds_needed

CTC, ATTENTION = "LSTM + CTC", "attention"


def flags(accuracy: float, seed: int, images: int = 60) -> str:
    """Which images a model reads right: those that are easy for all, but for some chance."""
    ease = np.random.default_rng(0).random(images)
    chance = np.random.default_rng(seed).normal(0, 0.15, images)
    return "".join(map(str, (ease + chance < accuracy).astype(int)))


ROWS: dict[tuple[str, ...] | str, list[str | None]] = {
    ("A", "p", CTC): [flags(0.9, 1), flags(0.9, 2), flags(0.9, 3)],
    ("A", "p", ATTENTION): [flags(0.8, 4), flags(0.8, 5), flags(0.8, 6)],
    ("A", "q", CTC): [flags(0.5, 7), flags(0.5, 8), flags(0.5, 9)],
    ("A", "q", ATTENTION): [flags(0.6, 10), flags(0.6, 11), None],
    ("A", "q", "lost"): [None, None, None],
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of `ROWS`; shared, so tests must not change them."""
    return publish_rows(tmp_path_factory.mktemp("results"), ROWS).path


def scores() -> Scores:
    """The exact matches of the first four rows."""
    table = [[list(map(float, seed or "")) or [np.nan] * 60 for seed in ROWS[row]] for row in list(ROWS)[:4]]
    return Scores(np.array(table), np.ones(60))


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def table_of(out: str) -> list[dict[str, str]]:
    head, _, *lines = [cells_of(line) for line in out.splitlines() if line.startswith("|")]
    return [dict(zip(head, line, strict=True)) for line in lines]


def test_contrast_with_a_row_prints_the_differences_to_all_others(
    results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(capfd, "contrast", str(results), "--baseline", f"A / p / {CTC}")
    assert (status, err) == (0, "")
    found = table_of(out)
    expected = family(scores(), [[-1, 1, 0, 0], [-1, 0, 1, 0], [-1, 0, 0, 1]])
    assert [line["row"] for line in found] == [f"A / p / {ATTENTION}", f"A / q / {CTC}", f"A / q / {ATTENTION}"]
    for line, (estimate, p, p_holm) in zip(found, expected, strict=True):
        assert float(line["difference (points)"]) == pytest.approx(100 * estimate.value, abs=0.051)
        low, high = map(float, line["95 % interval"].split(" to "))
        assert (low, high) == pytest.approx((100 * estimate.low, 100 * estimate.high), abs=0.051)
        for name, value in (("p", p), ("p (Holm)", p_holm)):
            assert line[name] == "<0.001" if value < 0.001 else float(line[name]) == pytest.approx(value, abs=0.0006)
    assert [line["seeds"] for line in found] == ["3", "3", "2"]
    assert {line["images"] for line in found} == {"60"}
    assert "adjusted over these 3 contrasts" in out
    assert "above 0 the row is better" in out
    assert "of 3 in the plan" in out
    assert "not compared, the row has no result (failed): A / q / lost" in out


def test_contrast_with_a_label_matches_rows_on_the_other_stages(
    results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = call(capfd, "contrast", str(results), "--baseline", CTC, "--metric", "cer")
    assert status == 0
    assert [(line["row"], line["baseline"]) for line in table_of(out)] == [
        (f"A / p / {ATTENTION}", f"A / p / {CTC}"),
        (f"A / q / {ATTENTION}", f"A / q / {CTC}"),
    ]
    assert "below 0 the row is better" in out
    plain = [pair.p for pair in family(scores(), [[-1, 1, 0, 0], [0, 0, -1, 1]])]
    exact = table_of(call(capfd, "contrast", str(results), "--baseline", CTC)[1])
    for line, p in zip(exact, holm(plain), strict=True):
        assert line["p (Holm)"] == "<0.001" if p < 0.001 else float(line["p (Holm)"]) == pytest.approx(p, abs=0.0006)


def test_axis_keeps_rows_that_differ_in_it_alone(results: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = "contrast", str(results), "--baseline", f"A / p / {CTC}", "--axis"
    assert [line["row"] for line in table_of(call(capfd, *arguments, "bridge")[1])] == [f"A / q / {CTC}"]
    assert [line["row"] for line in table_of(call(capfd, *arguments, "decoder")[1])] == [f"A / p / {ATTENTION}"]


def test_contrast_of_one_seed_speaks_of_trained_models(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = publish_rows(tmp_path, {"a": [flags(0.9, 1)], "b": [flags(0.5, 2)]}).path
    status, out, _ = call(capfd, "contrast", str(path), "--baseline", "a")
    assert status == 0
    assert "these trained models" in out
    status, out, err = call(capfd, "power", str(path), "--effect", "1")
    assert (status, out) == (2, "")
    assert "one seed" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--baseline", "lstm + ctc"], "is no title, name or label of a row; did you mean 'LSTM + CTC'?"),
        (["--baseline", "A / q / lost"], "the baseline A / q / lost has no result (failed)"),
        (["--baseline", CTC, "--axis", "bridge"], "is a label of decoder, not of bridge"),
        (["--baseline", CTC, "--axis", "decodr"], "must be one of bridge, decoder; did you mean 'decoder'?"),
        (["--baseline", "A / q / lost", "--axis", "bridge"], "no other row differs from it in bridge only"),
        (
            ["--baseline", CTC, "--axis", "encoder"],
            "--axis 'encoder': is the same in all rows; must be one of bridge, d",
        ),
        (["--baseline", CTC, "--axis", ""], "--axis '': must be one of bridge, decoder"),
        (["--baseline", ""], "--baseline '': is empty; give the title or name of a row, or a label of an axis"),
        (["--baseline", CTC, "--metric", "exact"], "--metric exact: must be one of exact_match, cer"),
    ],
)
def test_contrasts_that_make_no_sense_are_refused_in_one_line(
    results: Path, arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = contents(results)
    status, out, err = call(capfd, "contrast", str(results), *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert contents(results) == before


def test_contrasts_of_one_seed_among_others_are_told_apart_and_count_in_the_adjustment(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows: dict[tuple[str, ...] | str, list[str | None]] = {
        "a": [flags(0.9, 1), flags(0.9, 2)],
        "b": [flags(0.8, 3), flags(0.7, 4)],
        "c": [flags(0.5, 5), None],
    }
    out = call(capfd, "contrast", str(publish_rows(tmp_path, rows).path), "--baseline", "a")[1]
    assert [line["seeds"] for line in table_of(out)] == ["2", "1"]
    table = [[list(map(float, seed or "")) or [np.nan] * 60 for seed in seeds] for seeds in rows.values()]
    plain = [each.p for each in family(Scores(np.array(table), np.ones(60)), [[-1, 1, 0], [-1, 0, 1]])]
    for line, p in zip(table_of(out), holm(plain), strict=True):
        assert line["p (Holm)"] == "<0.001" if p < 0.001 else float(line["p (Holm)"]) == pytest.approx(p, abs=0.0006)
    assert "p (Holm) is adjusted over these 2 contrasts" in out
    assert "With one seed the interval and p speak of these trained models" in out
    assert "; p (Holm) counts them among the others." in out


def test_contrasts_of_one_image_have_no_p_and_say_why(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = publish_rows(tmp_path, {"a": ["1", "1"], "b": ["0", "1"]}).path
    status, out, _ = call(capfd, "contrast", str(path), "--baseline", "a")
    assert (status, table_of(out)[0]["p (Holm)"]) == (0, "n/a")
    assert "There is no interval and no p: one image, or one group, says nothing about others." in out
    assert "adjusted over" not in out


def test_seeds_that_did_not_learn_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows: dict[tuple[str, ...] | str, list[str | None]] = {
        "a": [flags(0.9, 1), flags(0.9, 2), flags(0.9, 3)],
        "b": [flags(0.8, 4), "0" * 60, "0" * 60],
        "c": [flags(0.8, 7), flags(0.8, 8), flags(0.8, 9)],
    }
    directory = ResultsDirectory(tmp_path)
    for label, seeds in rows.items():
        for seed, read_right in enumerate(seeds):
            cell = make_row(label, seed=seed)
            folder = directory.cell_directory(cell)
            folder.mkdir(parents=True)
            read("1" * 12).to_parquet(folder / "val_predictions.parquet", index=False)
            nats = 0.1 if "1" in (read_right or "") else 3.0
            append_line(folder / "history.jsonl", {"step": cell.training.steps, "val_nats_per_char": nats})
    publish_rows(tmp_path, rows)
    out = call(capfd, "power", str(tmp_path), "--effect", "1")[1]
    median, worst = out.split("\n\n")[1:3]
    for pair in (median, worst):
        assert ("b" in re.findall(r"columns / (\w)", pair.partition(":")[0])) == ("did not learn" in pair)
    assert (
        "\n  ResNet / columns / b: 2 of 3 seeds did not learn; what follows is for runs that fail as often\n" in worst
    )
    out = call(capfd, "contrast", str(tmp_path), "--baseline", "a")[1]
    assert "Seeds that did not learn count like others: ResNet / columns / b (2)." in out


def test_rows_that_saw_other_images_are_not_contrasted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    directory = ResultsDirectory(tmp_path)
    cells = [make_row(label, seed=seed) for label in ("a", "b", "c") for seed in (0, 1)]
    directory.write_plan(Plan(experiment="demo", command="run", cells=tuple(cells)))
    for cell in cells:
        frame = read(flags(0.7, cell.seed))
        other = frame.assign(sample="other/" + frame["sample"])
        write_result(directory, cell, other if cell.decoder.label == "c" else frame)
    status, out, _ = call(capfd, "contrast", str(tmp_path), "--baseline", "a")
    assert status == 0
    assert [line["row"] for line in table_of(out)] == ["ResNet / columns / b"]
    assert "not compared, tested on other images or labels than ResNet / columns / a: ResNet / columns / c" in out
    status, out, err = call(capfd, "contrast", str(tmp_path), "--baseline", "c")
    assert (status, out) == (2, "")
    assert "nothing to compare in exact_match: tested on other images or labels than ResNet / columns / c" in err


def test_pending_rows_are_not_contrasted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cells = tuple(make_row(label) for label in ("a", "b"))
    directory = ResultsDirectory(tmp_path)
    directory.write_plan(Plan(experiment="demo", command="run", cells=cells))
    write_result(directory, cells[0], read(flags(0.7, 0)))
    for baseline, message in (
        ("a", "the row has no result (pending)"),
        ("b", "the baseline ResNet / columns / b has no result (pending)"),
    ):
        status, out, err = call(capfd, "contrast", str(tmp_path), "--baseline", baseline)
        assert (status, out) == (2, "")
        assert message in err
    status, out, err = call(capfd, "power", str(tmp_path), "--effect", "1")
    assert (status, out) == (2, "")
    assert "no two rows have a result" in err


@pytest.mark.parametrize("command", [["contrast", "--baseline", "a"], ["power", "--effect", "1"]])
def test_folder_without_results_is_refused(
    command: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(capfd, command[0], str(tmp_path / "nothing"), *command[1:])
    assert (status, out) == (3, "")
    assert "no plan.json" in err
    assert not (tmp_path / "nothing").exists()


def test_power_prints_the_seeds_that_the_statistics_say(results: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = contents(results)
    status, out, _ = call(capfd, "power", str(results), "--effect", "4", "--baseline", ATTENTION)
    assert status == 0
    pilot = contrast(scores(), [1, -1, 0, 0]).components
    first = out.split("\n\n")[1]
    assert first.startswith(f"A / p / {CTC} against A / p / {ATTENTION}: ")
    assert list(re.findall(r"^ +([\d,]+) images", first, re.MULTILINE)) == ["60", "200", "500", "2,000", "10,000"]
    for images in (60, 200, 500, 2000, 10_000):
        needed = seeds_needed(pilot, 0.04, units=images)
        (line,) = re.findall(rf"^ +{images:,} images(?:, as in the pilot)?: (.*)$", first, re.MULTILINE)
        seeds, _, width = line.partition("; with 3 seeds an interval of about +- ")
        expected = 100 * half_width(pilot, seeds=3, units=images)
        assert float(width.removesuffix(" points")) == pytest.approx(expected, abs=0.051)
        if needed.seeds is None:
            assert seeds.startswith("no number of seeds")
        else:
            assert seeds == f"{needed.seeds:,} seeds ({needed.low:,} to {needed.high or 'no number':,})"
    assert "no number of seeds" in first
    assert "60 images, as in the pilot" in first
    assert "A / q / lost" in out
    assert contents(results) == before


def test_power_without_a_baseline_takes_the_median_and_the_worst_pair(
    results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = call(capfd, "power", str(results), "--effect", "4")
    assert status == 0
    variances = {}
    for a in range(4):
        for b in range(a + 1, 4):
            weights = np.zeros(4)
            weights[a], weights[b] = -1, 1
            variances[b, a] = contrast(scores(), weights).variance
    ordered = sorted(variances, key=lambda pair: variances[pair])
    titles = load_report(results).samples.titles
    for why, (row, base) in (("median", ordered[2]), ("worst", ordered[-1])):
        assert f"{why} pair, {titles[row]} against {titles[base]}:" in out


def test_power_says_which_cells_take_no_part(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    publish_rows(tmp_path, {row: [flags(0.8, 3 * place + seed) for seed in range(3)] for place, row in enumerate("ab")})
    next(tmp_path.glob("cells/*-seed-2-*/predictions.parquet")).unlink()
    status, out, _ = call(capfd, "power", str(tmp_path), "--effect", "1")
    assert status == 0
    assert "with 2 seeds and 60 images" in out
    assert "predictions.parquet: it is missing, so these cells have no interval and no contrast" in out


def test_power_of_rows_that_agree_everywhere_is_not_known(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    same: list[str | None] = [flags(0.9, 1), flags(0.9, 2)]
    path = publish_rows(tmp_path, {"a": same, "b": same}).path
    status, out, _ = call(capfd, "power", str(path), "--effect", "1")
    assert status == 0
    assert "agree on every image" in out


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        ("A / q / lost", "nothing to plan with: the baseline A / q / lost has no result (failed)"),
        ("", "--baseline '': is empty"),
    ],
)
def test_power_against_a_baseline_without_result_is_refused(
    baseline: str, message: str, results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(capfd, "power", str(results), "--effect", "1", "--baseline", baseline)
    assert (status, out) == (2, "")
    assert message in err


@pytest.mark.parametrize("effect", ["0", "-1", "101", "nan"])
def test_effects_that_are_no_differences_are_refused(
    effect: str, results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(capfd, "power", str(results), f"--effect={effect}")
    assert (status, out) == (2, "")
    assert "must be above 0 and at most 100" in err


def test_neither_command_imports_torch(results: Path) -> None:
    program = (
        "import sys\nfrom decoderbench.cli import app\n"
        f"for arguments in (['contrast', {str(results)!r}, '--baseline', {CTC!r}],"
        f" ['power', {str(results)!r}, '--effect', '1']):\n"
        "    app(arguments, standalone_mode=False)\n"
        "assert not {'torch', 'scipy.stats', 'matplotlib'} & sys.modules.keys()"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
