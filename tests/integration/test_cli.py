"""Command line: output, files and exit status of each command."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from chaos.processes import fork
from helpers.commands import call, run_command
from helpers.distributions import install
from helpers.running import TINY_PLUGIN, to_toml
from PIL import Image, ImageDraw

from decoderbench.cli.interrupts import Terminated
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.scaffold import new_component

EIGHT_MISTAKES = """
name = "bad"
[dataset]
use = "synthetic_captchas"
[image]
hieght = 32
[training]
steps = "many"
learning_rate = -1
[grid]
seeds = [0, 0]
[grid.encoder]
small = { use = "tiny_cnn", strides = 4 }
[grid.bridge]
columns = "mean_height"
[grid.decoder]
ctc = { use = "lstm_ctc", hidden_dim = "wide" }
loop = { use = "lstm_cel" }
"""


@pytest.fixture
def tiny_file(tiny: dict[str, Any], tmp_path: Path) -> Path:
    file = tmp_path / "tiny.toml"
    file.write_text(to_toml(tiny))
    return file


@pytest.fixture
def captchas(tmp_path: Path) -> Path:
    """Forty images of two digits, named by their labels."""
    folder = tmp_path / "my captchas"
    folder.mkdir()
    for number in range(11, 91, 2):
        image = Image.new("L", (64, 32), "white")
        ImageDraw.Draw(image).text((8 + number % 3, 8), str(number), fill="black")
        image.save(folder / f"{number}.png")
    return folder


def test_run_prints_the_table_and_the_path_of_the_report(
    capfd: pytest.CaptureFixture[str], tiny_file: Path, tmp_path: Path
) -> None:
    results = tmp_path / "out"
    arguments = ["run", str(tiny_file), "--results", str(results), "-p", str(TINY_PLUGIN), "--device", "cpu"]
    status, out, err = call(capfd, *arguments, "--seeds", "0,1", "--set", "training.steps=2", "-k", "ctc")
    assert status == 0, err
    assert "samples  64 train, 16 val, 20 test" in out
    assert "[2/2] tiny / columns / ctc / seed 1: exact match" in out
    assert f"report: {results}/report.md" in out
    assert "decoderbench run" in (results / "report.md").read_text()

    status, printed, _ = call(capfd, "report", str(results))
    assert status == 0
    start = out.index("| Encoder")
    table = out[start : out.index("\n\n", start)]
    assert len(table.splitlines()) == 5  # header, rule and the three variants of the plan
    assert table in printed


def test_run_reports_all_mistakes_of_a_file_with_their_lines(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(EIGHT_MISTAKES)
    status, _, err = call(capfd, "run", str(file), "-p", str(TINY_PLUGIN), "--results", str(tmp_path / "out"))
    assert status == 2
    for mistake in (
        f"{file}:4: dataset.use: unknown dataset 'synthetic_captchas'; did you mean 'synthetic_captcha'?",
        f"{file}:6: image.hieght: unknown key; did you mean 'height'?",
        f"{file}:8: training.steps: input should be a valid integer",
        f"{file}:9: training.learning_rate: input should be greater than 0, given -1",
        f"{file}:11: grid.seeds: a seed is listed twice",
        f"{file}:13: grid.encoder.small.strides: encoder 'tiny_cnn': unknown key; did you mean 'stride'?",
        f"{file}:17: grid.decoder.ctc.hidden_dim: decoder 'lstm_ctc': input should be a valid integer",
        f"{file}:18: grid.decoder.loop.use: unknown decoder 'lstm_cel'; did you mean 'lstm_cell'?",
        "8 mistakes in",
    ):
        assert mistake in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"name = ", "not valid TOML"),
        (b"name = '\xff'", "not UTF-8 text: invalid start byte"),
        (b"", "name: is missing"),
        (b"name = '../up'", "name: string should match pattern"),
        (b"[a]\n[a]\n", "not valid TOML"),
    ],
)
def test_plan_refuses_invalid_experiment_file(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "file.toml"
    if content is not None:
        file.write_bytes(content)
    status, _, err = call(capfd, "plan", str(file))
    assert status == 2
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "training.steps"], "must be key=value"),
        (["--set", "training.stepz=3"], "training.stepz: unknown key; did you mean 'steps'?"),
        (["--seeds", "one"], "must be whole numbers"),
        (["--device", "gpu"], "--device gpu: is not a device; use cpu, cuda or cuda:N"),
        (["--device", "tpu:x"], "--device tpu:x"),
        (["--device", "mps"], "--device mps: is not supported, because nobody has tested it; use cpu or cuda"),
        (["--stop-after", "soon"], "--stop-after soon: must be a positive duration, as in 90s, 5m or 2h"),
        (["-k", "nothing"], "'nothing' matches none of 3 cells"),
        (["-k", "ctc or"], "words are missing at the end"),
        (["-k", "not (ctc or loop)"], "'(ctc' matches none of 3 cells"),
        (["-k", "ctc and loop"], "it selects none of 3 cells"),
        (["-p", "no_such_module"], "plugin no_such_module could not be loaded"),
        (["--plugins-dir", "no_such_folder"], "no such folder"),
        (["--allow", "too_lng"], "unknown code 'too_lng'; did you mean 'too_long'?"),
    ],
)
def test_run_exits_with_2_for_invalid_options(
    capfd: pytest.CaptureFixture[str], tiny_file: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    results = tmp_path / "out"
    status, _, err = call(capfd, "run", str(tiny_file), "-p", str(TINY_PLUGIN), "--results", str(results), *arguments)
    assert (status, message in err) == (2, True), err
    assert not results.exists()


def test_compare_exits_with_3_for_problems_of_the_data(
    capfd: pytest.CaptureFixture[str], captchas: Path, tmp_path: Path
) -> None:
    options = ["--results", str(tmp_path / "out"), "--steps", "1"]
    status, _, err = call(capfd, "compare", str(tmp_path / "nowhere"), *options)
    assert (status, "nowhere is not a folder" in err) == (3, True)

    status, _, err = call(capfd, "compare", str(captchas), *options, "--set", 'labels.charset="012345678"')
    assert status == 3
    assert "outside_charset: the charset lacks '9'" in err
    assert "19.png" in err

    whole = (captchas / "31.png").read_bytes()
    (captchas / "31.png").write_bytes(whole[: len(whole) // 2])
    status, _, err = call(capfd, "compare", str(captchas), *options)
    assert (status, "31.png" in err, "unreadable_image" in err) == (3, True, True)
    assert not (tmp_path / "out").exists()


def test_compare_trains_all_decoders_on_a_folder(
    capfd: pytest.CaptureFixture[str], captchas: Path, tmp_path: Path
) -> None:
    results = tmp_path / "out"
    status, out, err = call(
        capfd, "compare", str(captchas), "--steps", "2", "--results", str(results), "--set", "training.batch_size=4"
    )
    assert status == 0, err
    for decoder in ("LSTMCell loop", "LSTM + CTC", "attention LSTM"):
        assert f"{decoder} / seed 0: exact match" in out
    choice = '[image] resize = "stretch": images are alike, 2.0 times as wide as high (median)'
    assert f"recipe: {choice}\n" in out
    report = (results / "report.md").read_text(encoding="utf-8").replace("\\", "")
    assert f"chosen from the data: {choice}\n" in report
    assert "steps = " not in "".join(line for line in out.splitlines() if line.startswith("recipe: "))
    status, _, err = call(capfd, "compare", str(captchas), "--set", "dataset.labelz=csv", "--results", str(results))
    assert (status, "dataset.labelz: dataset 'folder': unknown key; did you mean 'labels'?" in err) == (2, True)
    plan = json.loads((results / "plan.json").read_text())
    assert (plan["experiment"], plan["cells"][0]["image"]["width"]) == ("my-captchas", 64)


def test_run_exits_with_1_if_a_cell_failed(capfd: pytest.CaptureFixture[str], tiny_file: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "broken.py"
    plugin.write_text(
        "from decoderbench import hookimpl\n"
        "@hookimpl\n"
        "def run_cell(cell):\n"
        "    if cell.decoder.label == 'loop':\n"
        "        raise OSError('the disk is gone')\n"
    )
    arguments = ["-p", str(TINY_PLUGIN), "-p", str(plugin), "--results", str(tmp_path / "out"), "--device", "cpu"]
    status, out, err = call(capfd, "run", str(tiny_file), *arguments)
    assert status == 1
    assert "loop / seed 0: failed: OSError: the disk is gone (broken.py:5)" in out
    assert "1 of 3 cells failed" in err


def test_plan_prints_the_grid_and_writes_nothing(
    capfd: pytest.CaptureFixture[str], tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, _ = call(capfd, "plan", str(tiny_file), "-p", str(TINY_PLUGIN))
    assert status == 0
    assert "3 cells: 3 variants, seed 0" in out
    status, out, _ = call(capfd, "plan", str(tiny_file), "-p", str(TINY_PLUGIN), "--json")
    cells = json.loads(out)
    assert [cell["frames"] for cell in cells] == [8, 8, 8]
    assert all(cell["num_parameters"] > 0 and cell["gmacs"] > 0 for cell in cells)
    status, out, _ = call(capfd, "plan", str(tiny_file), "-p", str(TINY_PLUGIN), "-k", "loop")
    assert (status, "1 cell: 1 variant, seed 0" in out, "ctc" in out.partition("feasible")[2]) == (0, True, False)
    assert call(capfd, "plan", str(tiny_file), "-p", str(TINY_PLUGIN), "-k", "nowhere")[0] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.toml"]


def test_plan_exits_with_2_and_reasons_for_an_infeasible_grid(
    capfd: pytest.CaptureFixture[str], tiny_file: Path
) -> None:
    status, out, err = call(
        capfd, "plan", str(tiny_file), "-p", str(TINY_PLUGIN), "--set", "grid.encoder.tiny.stride=16", "--set",
        'grid.decoder.loop="lstm_ctc"', "--set", 'grid.decoder.attention="lstm_ctc"',
    )  # fmt: skip
    assert status == 2
    assert "infeasible: tiny / columns / ctc: CTC needs T >= 3" in out
    assert "no cell of the grid can be trained" in err


def test_plugins_lists_components_with_their_options(capfd: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capfd, "plugins", "-p", str(TINY_PLUGIN))
    assert status == 0
    assert f"encoder tiny_cnn  ({TINY_PLUGIN})" in out
    assert "stride = 4  Stride of the convolution." in out
    for component in ("encoder timm_cnn", "encoder crnn_vgg", "bridge mean_height", "bridge stack_height",
                      "bridge global_pool", "bridge flatten_grid", "decoder lstm_cell", "decoder lstm_ctc",
                      "decoder attention_lstm", "dataset folder", "dataset synthetic_captcha"):  # fmt: skip
        assert f"{component}  (decoderbench " in out


def test_report_exits_with_3_without_a_plan(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, _, err = call(capfd, "report", str(tmp_path))
    assert (status, "no plan.json" in err) == (3, True)


def test_imports_do_not_import_torch() -> None:
    imports = (
        "import decoderbench",
        "import decoderbench.cli",
        "from decoderbench.report import load_report, markdown_table, write_files",
        "from decoderbench.config.experiment import load_experiment",
        "import decoderbench_plugins.datasets.folder, decoderbench_plugins.datasets.synthetic_captcha as captcha",
        "dataset = captcha.SyntheticCaptcha(captcha.SyntheticCaptcha.Config(train=6, val=3, test=3), Path())",
        "dataset.samples(), dataset.load_image(3)",
    )
    code = [
        "import sys; from pathlib import Path",
        *(f"{line}\nassert 'torch' not in sys.modules, {line!r}" for line in imports),
    ]
    finished = subprocess.run([sys.executable, "-c", "\n".join(code)], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


def test_run_reports_a_misspelled_key_before_importing_torch(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(EIGHT_MISTAKES)
    code = (
        "import os, sys, decoderbench.cli as cli\n"
        "cli.err.print = lambda text, **unused: os._exit('torch' in sys.modules or 'hieght' not in text)\n"
        "sys.argv = ['decoderbench', 'run', sys.argv[1]]\n"
        "cli.main()\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(file)], check=False).returncode == 0


def test_interrupted_run_exits_with_130_and_tells_how_to_continue(tiny_file: Path, tmp_path: Path) -> None:
    results = tmp_path / "out"
    arguments = ["--results", str(results), "-p", str(TINY_PLUGIN), "--set", "training.steps=100000", "--device", "cpu"]
    process = fork(partial(run_command, "run", str(tiny_file), *arguments), tmp_path / "printed")
    while not list(results.glob("cells/*/lock")):
        assert process.poll() is None, process.printed()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait() == 130, process.printed()
    ended = r"stopped by SIGINT.*; 0 of 3 cells have results; give the same command again to go on"
    assert re.search(ended, process.printed())


@pytest.mark.parametrize(("interrupt", "expected"), [(KeyboardInterrupt, 130), (Terminated, 143)])
def test_interrupted_command_says_so_and_has_the_exit_status_of_the_signal(
    interrupt: type[BaseException],
    expected: int,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def read_plan(self: ResultsDirectory) -> None:
        raise interrupt

    monkeypatch.setattr(ResultsDirectory, "read_plan", read_plan)
    assert call(capfd, "clean", str(tmp_path)) == (expected, "", "interrupted\n")


def test_report_has_columns_of_installed_plugins_without_importing_torch(
    capfd: pytest.CaptureFixture[str], tiny_file: Path, tmp_path: Path
) -> None:
    results = tmp_path / "out"
    arguments = [
        "run",
        str(tiny_file),
        "--results",
        str(results),
        "-p",
        str(TINY_PLUGIN),
        "--device",
        "cpu",
        "-k",
        "ctc",
    ]
    assert call(capfd, *arguments)[0] == 0
    columns = "from decoderbench import hookimpl\n@hookimpl\ndef report_columns(record):\n    return {'moon': 'full'}\n"
    site = install(tmp_path / "site", "dist-moon", {"moon": "moon"}, {"moon": columns})
    code = (
        "import sys, decoderbench.cli as cli\n"
        f"sys.argv = ['decoderbench', 'report', {str(results)!r}]\n"
        "cli.main()\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(site)},
    )
    assert done.returncode == 0, done.stderr
    assert pd.read_csv(results / "tables/cells.csv")["moon"].tolist() == ["full"]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("return [(key.key, key.label) for key in ", "lists ('image 0', '"),
        ("return 1 / 0 or (", "dataset 'my_own' cannot be read: ZeroDivisionError: division by zero"),
    ],
)
def test_run_reports_a_broken_dataset_without_a_traceback(
    capfd: pytest.CaptureFixture[str], tiny_file: Path, tmp_path: Path, broken: str, message: str
) -> None:
    (path,) = new_component("dataset", "my_own", into=tmp_path)
    text = path.read_text()
    start = text.index("        return [Sample(key=")
    end = text.index("\n", start)
    sample = "[Sample(f'image {i}', label_of(i), 'train') for i in range(30)]"
    path.write_text(text[:start] + f"        {broken}{sample}" + ("]" if "[" in broken else ")") + text[end:])
    arguments = ["--set", "dataset=my_own", "--results", str(tmp_path / "out")]
    status, _, err = call(capfd, "run", str(tiny_file), "-p", str(TINY_PLUGIN), "-p", str(path), *arguments)
    assert status == 3
    assert message in err
    assert "Traceback" not in err


def test_compare_refuses_results_of_another_folder_of_the_same_name(
    capfd: pytest.CaptureFixture[str], captchas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, results = os.fsdecode(b"caf\xe9"), os.fsdecode(b"r\xe9sultats")  # names that are not UTF-8
    for parent, first in ((a, 10), ("b", 11)):
        (tmp_path / parent / "Train").mkdir(parents=True)
        for path in sorted(captchas.glob("*.png"))[first - 10 :]:
            shutil.copy(path, tmp_path / parent / "Train")
    options = ["--steps", "1", "-k", "LSTM + CTC", "--set", "training.batch_size=2", "--set", "dataset.labels=filename"]
    options += ["--results", results]
    monkeypatch.chdir(tmp_path)
    assert call(capfd, "compare", f"{a}/Train", *options)[0] == 0
    report = (tmp_path / results / "report.md").read_text(encoding="utf-8")
    assert "decoderbench compare $'caf\\xe9/Train' --steps 1 -k 'LSTM + CTC'" in report
    assert "    decoderbench report $'r\\xe9sultats'\n" in report
    status, _, err = call(capfd, "compare", "b/Train", *options)
    assert (status, r"--results r\udce9sultats: holds results of another experiment file" in err) == (2, True)
    assert (tmp_path / results / "report.md").read_text(encoding="utf-8") == report

    shutil.move(tmp_path / a, tmp_path / "c")
    assert call(capfd, "compare", "c/Train", *options)[0] == 0


def test_shell_completes_the_names_of_commands(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_DECODERBENCH_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "decoderbench pre")
    monkeypatch.setenv("COMP_CWORD", "1")
    status, out, _ = call(capfd)
    assert (status, out.split()) == (0, ["prepare", "predict"])
