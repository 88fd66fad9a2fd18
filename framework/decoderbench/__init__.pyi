"""The public names of decoderbench and the modules that define them: the one list of both."""

from .config.cell import Cell as Cell
from .config.experiment import Experiment as Experiment
from .config.experiment import load_experiment as load_experiment
from .data.dataset import Dataset as Dataset
from .data.dataset import Sample as Sample
from .errors import ConfigError as ConfigError
from .errors import DataError as DataError
from .errors import DecoderBenchError as DecoderBenchError
from .errors import InfeasibleError as InfeasibleError
from .errors import PluginError as PluginError
from .errors import UnknownNameError as UnknownNameError
from .errors import did_you_mean as did_you_mean
from .labels import Charset as Charset
from .labels import Labels as Labels
from .metrics import Metric as Metric
from .model.autoregressive import AutoregressiveDecoder as AutoregressiveDecoder
from .model.ctc import CTCDecoder as CTCDecoder
from .model.sequence_bridge import SequenceBridge as SequenceBridge
from .model.sequence_bridge import SequenceConfig as SequenceConfig
from .model.stages import Bridge as Bridge
from .model.stages import Decoder as Decoder
from .model.stages import Encoder as Encoder
from .model.stages import Hypotheses as Hypotheses
from .model.stages import Rectifier as Rectifier
from .model.width_strides import limit_width_reduction as limit_width_reduction
from .model.width_strides import probe_features as probe_features
from .options import ComponentConfig as ComponentConfig
from .records import RunRecord as RunRecord
from .registry.hookspecs import hookimpl as hookimpl
from .rendering import TextStyle as TextStyle
from .rendering import draw_text as draw_text
from .report import load_frame as load_frame
from .report import write_report as write_report
from .runner import run as run
from .specs import FeatureMapSpec as FeatureMapSpec
from .specs import ImageSpec as ImageSpec
from .specs import LabelSpec as LabelSpec
from .specs import SequenceSpec as SequenceSpec
from .training.trainer import CellContext as CellContext
from .typefaces import Typeface as Typeface
from .typefaces import select_typefaces as select_typefaces

__version__: str
