"""decoderbench: which decoder should turn a CNN's features into text, and how sure are we?

This is the public API. Names are looked up on first use, so that importing the package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decoderbench.autoregressive import AutoregressiveDecoder as AutoregressiveDecoder
    from decoderbench.cell import Cell as Cell
    from decoderbench.contracts import Bridge as Bridge
    from decoderbench.contracts import Decoder as Decoder
    from decoderbench.contracts import Encoder as Encoder
    from decoderbench.contracts import Hypotheses as Hypotheses
    from decoderbench.contracts import Rectifier as Rectifier
    from decoderbench.ctc import CTCDecoder as CTCDecoder
    from decoderbench.datasets import Dataset as Dataset
    from decoderbench.datasets import Sample as Sample
    from decoderbench.errors import ConfigError as ConfigError
    from decoderbench.errors import DataError as DataError
    from decoderbench.errors import DecoderBenchError as DecoderBenchError
    from decoderbench.errors import InfeasibleError as InfeasibleError
    from decoderbench.errors import PluginError as PluginError
    from decoderbench.errors import UnknownNameError as UnknownNameError
    from decoderbench.errors import did_you_mean as did_you_mean
    from decoderbench.experiment import Experiment as Experiment
    from decoderbench.experiment import load_experiment as load_experiment
    from decoderbench.hookspecs import hookimpl as hookimpl
    from decoderbench.keep_width import limit_width_reduction as limit_width_reduction
    from decoderbench.keep_width import probe_features as probe_features
    from decoderbench.labels import Charset as Charset
    from decoderbench.labels import Labels as Labels
    from decoderbench.metrics import Metric as Metric
    from decoderbench.options import ComponentConfig as ComponentConfig
    from decoderbench.records import RunRecord as RunRecord
    from decoderbench.rendering import TextStyle as TextStyle
    from decoderbench.rendering import draw_text as draw_text
    from decoderbench.report import load_frame as load_frame
    from decoderbench.report import write_report as write_report
    from decoderbench.runner import run as run
    from decoderbench.sequence import SequenceBridge as SequenceBridge
    from decoderbench.sequence import SequenceConfig as SequenceConfig
    from decoderbench.specs import FeatureMapSpec as FeatureMapSpec
    from decoderbench.specs import ImageSpec as ImageSpec
    from decoderbench.specs import LabelSpec as LabelSpec
    from decoderbench.specs import SequenceSpec as SequenceSpec
    from decoderbench.training import CellContext as CellContext
    from decoderbench.typefaces import Typeface as Typeface
    from decoderbench.typefaces import select_typefaces as select_typefaces

__version__ = "0.1.0"

_HOMES = {
    "autoregressive": ["AutoregressiveDecoder"],
    "cell": ["Cell"],
    "contracts": ["Bridge", "Decoder", "Encoder", "Hypotheses", "Rectifier"],
    "ctc": ["CTCDecoder"],
    "datasets": ["Dataset", "Sample"],
    "errors": [
        "ConfigError",
        "DataError",
        "DecoderBenchError",
        "InfeasibleError",
        "PluginError",
        "UnknownNameError",
        "did_you_mean",
    ],
    "experiment": ["Experiment", "load_experiment"],
    "hookspecs": ["hookimpl"],
    "keep_width": ["limit_width_reduction", "probe_features"],
    "labels": ["Charset", "Labels"],
    "metrics": ["Metric"],
    "options": ["ComponentConfig"],
    "records": ["RunRecord"],
    "rendering": ["TextStyle", "draw_text"],
    "report": ["load_frame", "write_report"],
    "runner": ["run"],
    "sequence": ["SequenceBridge", "SequenceConfig"],
    "specs": ["FeatureMapSpec", "ImageSpec", "LabelSpec", "SequenceSpec"],
    "training": ["CellContext"],
    "typefaces": ["Typeface", "select_typefaces"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'decoderbench' has no attribute {name!r}")
    return getattr(import_module(f"decoderbench.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
