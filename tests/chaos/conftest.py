"""Grids that all campaigns share."""

import pytest

from chaos.grid import LOCAL, Grid


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """Two cells that run in the process of the command line, with a checkpoint as often as possible."""
    return Grid(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def six(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """Six such cells."""
    return Grid(tmp_path_factory.mktemp("six"), seeds=3)


@pytest.fixture(scope="session")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """Twelve such cells."""
    return Grid(tmp_path_factory.mktemp("twelve"), seeds=6)


@pytest.fixture(scope="session")
def small_local(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """Two such cells, in worker processes."""
    return Grid(tmp_path_factory.mktemp("small_local"), executor=LOCAL)


@pytest.fixture(scope="session")
def six_local(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """Six such cells, in worker processes."""
    return Grid(tmp_path_factory.mktemp("six_local"), seeds=3, executor=LOCAL)


@pytest.fixture(scope="session")
def twelve_local(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """Twelve such cells, in worker processes."""
    return Grid(tmp_path_factory.mktemp("twelve_local"), seeds=6, executor=LOCAL)
