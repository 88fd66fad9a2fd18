"""Installed distributions for tests: a folder for `sys.path` with metadata, entry points and modules."""

from collections.abc import Mapping
from pathlib import Path

from decoderbench.registry.plugin_manager import Plugins
from decoderbench.registry.plugin_sources import PluginSources

DECODER = """
from decoderbench import ComponentConfig, CTCDecoder, hookimpl
from torch import nn

class Linear(CTCDecoder):
    name = {name!r}

    class Config(ComponentConfig):
        scale: float = 1.0

    def __init__(self, config, memory, labels):
        super().__init__(config, memory, labels)
        self.head = nn.Linear(memory.dim, self.vocabulary_size)

    def forward(self, memory):
        return self.head(memory)

@hookimpl
def register_decoders():
    return [Linear]
"""


def install(folder: Path, name: str, entry_points: Mapping[str, str], modules: Mapping[str, str]) -> Path:
    """Write a distribution of version 1.0 into a folder and return the folder, which belongs on `sys.path`."""
    folder.mkdir(parents=True, exist_ok=True)
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = "".join(f"{entry} = {value}\n" for entry, value in entry_points.items())
    (info / "entry_points.txt").write_text(f"[decoderbench]\n{lines}")
    (info / "RECORD").write_text("".join(f"{module}.py,,\n" for module in modules))
    return folder


def loaded(plugins: Plugins) -> list[tuple[str, str]]:
    """Return the name and the origin of each plugin, sorted by name."""
    return sorted((name, str(origin)) for name, origin in plugins.origins.items())


def load(sources: PluginSources) -> list[tuple[str, str]]:
    """Load plugins and return their names and origins; importable by a worker process."""
    return loaded(Plugins.load(sources))
