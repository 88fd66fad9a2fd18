"""MACs against formulas derived by hand, and times against a simulated clock."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from decoderbench import (
    Charset,
    ComponentConfig,
    CTCDecoder,
    Decoder,
    Encoder,
    FeatureMapSpec,
    ImageSpec,
    Labels,
    LabelSpec,
    SequenceSpec,
)
from decoderbench.data.resident_dataset import Batch
from decoderbench.model.complexity import count_gmacs, count_parameters
from decoderbench.model.recognizer import Recognizer
from decoderbench.registry.core_components import NoRectifier
from decoderbench.training import timing
from decoderbench_plugins.bridges.mean_height import MeanHeight
from decoderbench_plugins.decoders.attention_lstm import AttentionLSTM
from decoderbench_plugins.decoders.lstm_cell import LSTMCellLoop, LSTMUnrolled
from decoderbench_plugins.decoders.lstm_ctc import LSTMCTC

IMAGE = ImageSpec(channels=3, height=8, width=20)
ONE_IMAGE = torch.empty(1, IMAGE.channels, IMAGE.height, IMAGE.width, device="meta")
LABELS = LabelSpec(charset=Charset("abcdef"), max_length=5)

# Letters used in the formulas.
FRAMES = 10  # T
DIM = 12  # D
STEPS = LABELS.max_length + 1  # S
VOCABULARY = len(LABELS.charset) + 1  # V
HIDDEN = 16  # N
CONVOLUTION = DIM * 3 * 3 * 3 * 4 * FRAMES  # output channels, input channels, window, positions


class Convolution(Encoder):
    """One convolution of stride 2; the feature map has `FRAMES` columns."""

    name = "convolution"
    Config = ComponentConfig

    def __init__(self, config: ComponentConfig, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.convolution = nn.Conv2d(image.channels, DIM, 3, stride=2, padding=1)
        self.features = FeatureMapSpec(channels=DIM, height=image.height // 2, width=image.width // 2)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.convolution(images)
        return features


def recognizer(decoder: type[Decoder], **options: Any) -> Recognizer:
    with torch.device("meta"):
        encoder = Convolution(ComponentConfig(), IMAGE)
        bridge = MeanHeight(MeanHeight.Config(), encoder.features)
        assert (bridge.memory.length, bridge.memory.dim) == (FRAMES, DIM)
        reader = decoder(decoder.Config.model_validate(options), bridge.memory, LABELS)
        return Recognizer(NoRectifier(NoRectifier.Config(), IMAGE), encoder, bridge, reader)


def macs_of_decoder(decoder: type[Decoder], **options: Any) -> int:
    gmacs = count_gmacs(recognizer(decoder, **options).eval().transcribe, ONE_IMAGE)
    assert gmacs is not None
    return round(gmacs * 1e9) - CONVOLUTION


def lstm(read: int) -> int:
    return 4 * HIDDEN * (read + HIDDEN)


def test_macs_of_lstm_ctc_include_its_lstm() -> None:
    head = 2 * HIDDEN * VOCABULARY
    assert macs_of_decoder(LSTMCTC, hidden_dim=HIDDEN) == FRAMES * (2 * lstm(DIM) + head)
    two_layers = FRAMES * (lstm(DIM) + lstm(HIDDEN) + HIDDEN * VOCABULARY)
    assert macs_of_decoder(LSTMCTC, hidden_dim=HIDDEN, num_layers=2, bidirectional=False) == two_layers


def test_macs_of_lstm_cell_cover_max_length_and_the_end() -> None:
    loop = STEPS * (lstm(VOCABULARY) + HIDDEN * VOCABULARY)
    assert macs_of_decoder(LSTMCellLoop, hidden_dim=HIDDEN) == DIM * VOCABULARY + loop
    assert macs_of_decoder(LSTMCellLoop, hidden_dim=HIDDEN, pool="flatten") == FRAMES * DIM * VOCABULARY + loop


@pytest.mark.parametrize(("cell", "gates"), [("lstm", 4), ("gru", 3)])
def test_macs_of_lstm_unrolled_equal_those_of_the_loop(cell: str, gates: int) -> None:
    options = {"hidden_dim": HIDDEN, "feedback": "embedding", "embed_dim": 9, "cell": cell}
    expected = DIM * 9 + STEPS * (gates * HIDDEN * (9 + HIDDEN) + HIDDEN * VOCABULARY)
    assert macs_of_decoder(LSTMUnrolled, **options) == macs_of_decoder(LSTMCellLoop, **options) == expected


def test_macs_of_attention_lstm_cover_keys_once_and_a_glimpse_per_step() -> None:
    keys, query, score, glimpse = FRAMES * DIM * HIDDEN, HIDDEN * HIDDEN, FRAMES * HIDDEN, FRAMES * DIM
    step = query + score + glimpse + lstm(9 + DIM) + HIDDEN * VOCABULARY
    assert macs_of_decoder(AttentionLSTM, hidden_dim=HIDDEN, embed_dim=9) == keys + STEPS * step


def test_macs_of_attention_lstm_do_not_depend_on_learned_positions() -> None:
    without = macs_of_decoder(AttentionLSTM, hidden_dim=HIDDEN)
    assert macs_of_decoder(AttentionLSTM, hidden_dim=HIDDEN, positions="learned") == without


class ReadsValues(CTCDecoder):
    """Computes different logits depending on the values of the memory."""

    name = "reads_values"
    Config = ComponentConfig

    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.head = nn.Linear(memory.dim, self.vocabulary_size)

    def forward(self, memory: Tensor) -> Tensor:
        logits: Tensor = self.head(memory if memory.mean().item() > 0 else 2 * memory)
        return logits


def test_count_gmacs_is_none_for_decoder_that_reads_values() -> None:
    assert count_gmacs(recognizer(ReadsValues).eval().transcribe, ONE_IMAGE) is None


def test_count_parameters_matches_formula() -> None:
    convolution = DIM * 3 * 3 * 3 + DIM
    decoder = 2 * (4 * HIDDEN * (DIM + HIDDEN) + 8 * HIDDEN) + 2 * HIDDEN * VOCABULARY + VOCABULARY
    assert count_parameters(recognizer(LSTMCTC, hidden_dim=HIDDEN)) == convolution + decoder


class Clock:
    """A recognizer with its own clock: 0.1 seconds per image, 3 seconds for the first batch."""

    def __init__(self) -> None:
        self.now = 0.0
        self.batches: list[tuple[int, int]] = []

    def transcribe(self, images: Tensor, columns: None, *, beam_size: int) -> None:
        self.now += 0.1 * len(images) if self.batches else 3.0
        self.batches.append((len(images), beam_size))


def batch_of(size: int, width: int) -> Batch:
    return Batch(torch.zeros(size, 1, 4, width), Labels.from_texts(["a"] * size, Charset("a")))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", lambda: clock.now)
    return clock


def test_latency_is_the_median_over_single_images_after_warm_up(clock: Any) -> None:
    assert timing.measure_latency_ms(clock, batch_of(1, 4), beam_size=3) == pytest.approx(100)
    assert clock.batches == [(1, 3)] * (timing.LATENCY_WARM_UPS + timing.LATENCY_RUNS)


def test_latency_of_each_length_takes_half_the_runs(clock: Any) -> None:
    images = {0: batch_of(1, 4), 7: batch_of(1, 8)}
    assert timing.measure_latency_by_length(clock, images, beam_size=3) == pytest.approx({"0": 100, "7": 100})
    assert clock.batches == [(1, 3)] * 2 * sum(-(-n // 2) for n in (timing.LATENCY_WARM_UPS, timing.LATENCY_RUNS))


def test_throughput_excludes_the_warm_up_and_a_shorter_last_batch(clock: Any) -> None:
    batches = [batch_of(size, 4) for size in (4, 4, 4, 2)]
    assert timing.measure_throughput(clock, batches) == pytest.approx(10)
    assert [size for size, _ in clock.batches] == [4, 4, 4]  # the first one is the warm-up, and is not counted again


def test_throughput_warms_up_each_width_and_then_measures_all_full_batches(clock: Any) -> None:
    batches = [batch_of(size, width) for size, width in ((4, 4), (3, 8), (2, 8), (2, 12))]
    assert timing.measure_throughput(clock, batches) == pytest.approx(10)
    assert sorted(size for size, _ in clock.batches[:3]) == [2, 3, 4]
    assert [size for size, _ in clock.batches[3:]] == [4, 3, 2]


def test_throughput_of_a_single_batch_transcribes_it_twice(clock: Any) -> None:
    assert timing.measure_throughput(clock, [batch_of(4, 4)]) == pytest.approx(10)


def test_rate_of_training_leaves_out_the_first_steps_and_validations(clock: Any) -> None:
    training = timing.TrainingClock(torch.device("cpu"))
    for _ in range(timing.TRAINING_WARM_UPS):
        clock.now += 5.0  # kernels are loaded
        training.step_taken(8)
        with training.paused():
            clock.now += 60.0
    assert training.images_per_second() is None
    for _ in range(4):
        clock.now += 0.5
        training.step_taken(8)
        with training.paused():
            clock.now += 60.0
    assert training.images_per_second() == pytest.approx(16)


def test_seconds_and_rate_of_a_training_cover_all_its_attempts(clock: Any) -> None:
    idle, state = [0.0], {"seconds": 100.0, "timed_seconds": 6.0, "images": 60}
    training = timing.TrainingClock(torch.device("cpu"), lambda: idle[0])
    training.load_state_dict(state)
    for number in range(timing.TRAINING_WARM_UPS + 4):
        clock.now += 0.5
        training.step_taken(8)
        if number == timing.TRAINING_WARM_UPS:
            clock.now += 30.0  # a checkpoint is saved
            idle[0] += 30.0
    counted = {"seconds": 107.0, "timed_seconds": 8.0, "images": 92}
    assert training.state_dict() == pytest.approx(counted)
    training.stop()
    clock.now += 60.0  # the test
    assert training.state_dict() == pytest.approx(counted)
    assert training.images_per_second() == pytest.approx(92 / 8)


def test_rate_of_a_training_as_short_as_the_warm_up_is_not_measured(clock: Any) -> None:
    training = timing.TrainingClock(torch.device("cpu"))
    training.step_taken(8)
    assert training.images_per_second() is None


def test_idle_seconds_count_neither_as_training_nor_twice_within_a_validation(clock: Any) -> None:
    idle = [100.0]  # before the cell

    def be_idle() -> None:
        clock.now += 30.0
        idle[0] += 30.0

    training = timing.TrainingClock(torch.device("cpu"), lambda: idle[0])
    for _ in range(timing.TRAINING_WARM_UPS + 4):
        be_idle()
        clock.now += 0.5
        training.step_taken(8)
        with training.paused():
            clock.now += 6.0
            be_idle()
    assert training.images_per_second() == pytest.approx(16)
    assert training.seconds() == pytest.approx((timing.TRAINING_WARM_UPS + 4) * 6.5)
