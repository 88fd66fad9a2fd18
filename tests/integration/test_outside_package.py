"""A package from outside: installed by pip into its own environment, it runs next to built-in components."""

import importlib.util
import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

PACKAGE = Path(__file__).parents[1] / "outside" / "decoderbench-transformer"
DECODERBENCH = "from decoderbench.cli import main; main()"


@pytest.mark.slow
def test_package_from_outside_passes_its_tests_and_runs(tmp_path: Path) -> None:
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling, needed to build the package without a network, is missing; install decoderbench[dev]")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    # `addsitedir` also processes .pth files, so editable installs are found, unlike with PYTHONPATH.
    lines = [f"import site; site.addsitedir({folder!r})" for folder in site.getsitepackages()]
    (packages / "everything_else.pth").write_text("\n".join(lines))
    source = shutil.copytree(PACKAGE, tmp_path / "package")

    def python(*arguments: str | Path) -> str:
        """Run Python of the environment without the working directory on its path, and return its output."""
        command = [tmp_path / "venv" / "bin" / "python", "-P", *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        finished = subprocess.run(
            command,
            cwd=source,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, finished.stdout
        return finished.stdout

    python("-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", source)
    home = python("-c", "import decoderbench_transformer as package; print(package.__file__)")
    assert Path(home.strip()).is_relative_to(packages)

    assert " passed" in python("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")

    listed = python("-c", DECODERBENCH, "plugins").splitlines()
    assert {"transformer", "vitstr"} <= {
        line.split()[1] for line in listed if "(decoderbench-transformer 0.1.0)" in line
    }

    python("-c", DECODERBENCH, "run", "grid.toml", "--results", tmp_path / "results", "--device", "cpu")
    rows = pd.read_csv(tmp_path / "results" / "tables/cells.csv").set_index("decoder")
    assert set(rows.index) == {"attention LSTM", "transformer", "its own"}
    assert set(rows["status"]) == {"done"}
    assert rows.loc["transformer", "exact_match"] > 0.5
    assert (rows["nats_per_char"] > 0).all()
