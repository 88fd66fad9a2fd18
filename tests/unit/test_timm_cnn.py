"""timm's CNNs as encoders: declared shapes and the limit on the width, which changes nothing else."""

import copy
import pickle
import re
from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from decoderbench import ConfigError, ImageSpec, InfeasibleError, UnknownNameError, limit_width_reduction
from decoderbench.component_options import without_first_weights
from decoderbench_plugins.encoders.timm_cnn import TimmCNN

SMALL = ["resnet10t", "test_resnet", "test_efficientnet", "test_convnext", "mobilenetv3_small_050"]
FAMILIES = [
    *SMALL,
    "cspdarknet53",
    "dla46_c",
    "hgnet_tiny",
    "legacy_seresnet18",
    "regnetx_002",
    "repvgg_a0",
    "resnetblur18",
    "selecsls42b",
    "tf_efficientnet_lite0",
    "vgg11_bn",
    "xception41",
]
MORE_FAMILIES = [
    "densenet121",
    "densenetblur121d",
    "ecaresnet50d",
    "edgenext_xx_small",
    "fastvit_t8",
    "ghostnetv2_100",
    "hrnet_w18_small",
    "mambaout_femto",
    "nf_regnet_b0",
    "nfnet_l0",
    "pnasnet5large",
    "regnetz_005",
    "res2net50_26w_4s",
    "resnest14d",
    "resnetaa50",
    "resnetv2_50",
    "rexnetr_100",
    "starnet_s1",
    "tf_efficientnet_cc_b0_4e",
    "tf_mixnet_s",
    "vovnet39a",
]
BRANCHES_MEET_AT_MULTIPLES_OF_32 = {"hrnet_w18_small", "resnetaa50"}  # as timm builds them
SIZES = [(32, 96), (32, 128), (40, 160), (64, 200)]


def spec(height: int = 32, width: int = 128, channels: int = 1) -> ImageSpec:
    return ImageSpec(channels=channels, height=height, width=width)


def build(model: str, image: ImageSpec | None = None, **options: object) -> TimmCNN:
    return TimmCNN(TimmCNN.Config.model_validate({"model": model, **options}), image or spec())


def on_meta(model: str, image: ImageSpec | None = None, **options: object) -> TimmCNN:
    with torch.device("meta"):
        return build(model, image, **options)


def forward(encoder: nn.Module, image: ImageSpec) -> Tensor:
    device = next(encoder.parameters()).device
    features: Tensor = encoder(torch.zeros(2, image.channels, image.height, image.width, device=device))
    return features


def declared(encoder: TimmCNN) -> tuple[int, ...]:
    return 2, encoder.features.channels, encoder.features.height, encoder.features.width


@pytest.mark.parametrize("model", SMALL)
@pytest.mark.parametrize("keep_width", [0, 4])
def test_declared_features_match_the_output(model: str, keep_width: int) -> None:
    for stage, (height, width), channels in zip([2, 3, 2, 3], SIZES, [1, 3, 3, 1], strict=True):
        image = spec(height, width, channels)
        encoder = build(model, image, stage=stage, keep_width=keep_width)
        assert forward(encoder, image).shape == declared(encoder)


@pytest.mark.parametrize(
    "model", [*FAMILIES, *(pytest.param(model, marks=pytest.mark.slow) for model in MORE_FAMILIES)]
)
def test_kept_width_is_exact_and_all_else_stays(model: str) -> None:
    plain, kept = on_meta(model, stage=3), on_meta(model, stage=3, keep_width=4)
    assert declared(kept) == (2, plain.features.channels, plain.features.height, 32)
    assert forward(kept, spec()).shape == declared(kept)
    assert {name: p.shape for name, p in kept.named_parameters()} == {
        name: p.shape for name, p in plain.named_parameters()
    }


@pytest.mark.slow
@pytest.mark.parametrize("model", [*FAMILIES, *MORE_FAMILIES])
@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("keep_width", [0, 8])
def test_declared_features_hold_for_every_family_size_and_limit(
    model: str, height: int, width: int, keep_width: int
) -> None:
    if model in BRANCHES_MEET_AT_MULTIPLES_OF_32 and (height % 32 or width % 32):
        pytest.skip("timm's own model cannot read this size")
    for channels, stage in [(1, 1), (3, 2), (1, 3)]:
        image = spec(height, width, channels)
        encoder = on_meta(model, image, stage=stage, keep_width=keep_width)
        assert forward(encoder, image).shape == declared(encoder)


@pytest.mark.parametrize(("keep_width", "width"), [(1, 128), (2, 64), (4, 32), (8, 16), (16, 8), (32, 4)])
@pytest.mark.parametrize(("model", "stage"), [("test_resnet", 4), ("test_convnext", 3)])
def test_keep_width_is_the_largest_reduction(model: str, stage: int, keep_width: int, width: int) -> None:
    encoder = on_meta(model, stage=stage, keep_width=keep_width)
    assert (encoder.features.height, encoder.features.width) == (1, width)


def test_limit_that_is_never_reached_changes_nothing() -> None:
    plain, kept = build("resnet10t", stage=2), build("resnet10t", stage=2, keep_width=8)
    kept.load_state_dict(plain.state_dict())
    images = torch.randn(2, 1, 32, 128)
    assert torch.equal(plain.eval()(images), kept.eval()(images))


def test_kept_columns_depend_on_the_pixels_above_them() -> None:
    encoder = build("test_resnet", stage=3, keep_width=4).eval()
    images = torch.zeros(1, 1, 32, 128)
    marked = images.clone()
    marked[..., 64:68] = 1
    change = (encoder(marked) - encoder(images)).abs().sum(dim=(0, 1, 2))
    assert change.argmax().item() in (15, 16, 17)


@pytest.mark.parametrize("model", [*SMALL, "xception41"])
def test_features_equal_those_of_the_whole_model(model: str) -> None:
    torch.manual_seed(0)
    encoder = build(model, stage=2).eval()
    torch.manual_seed(0)
    whole = timm.create_model(model, features_only=True, out_indices=(2,), in_chans=1).eval()
    images = torch.randn(2, 1, 32, 128)
    (expected,) = whole(images)
    assert torch.equal(encoder(images), expected)


@pytest.mark.parametrize("model", SMALL)
@pytest.mark.parametrize("keep_width", [0, 4])
def test_every_parameter_receives_a_gradient(model: str, keep_width: int) -> None:
    encoder = build(model, stage=2, keep_width=keep_width)
    encoder(torch.randn(2, 1, 32, 64)).square().sum().backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("keep_width", [0, 4])
def test_building_changes_no_batch_norm_statistics(keep_width: int) -> None:
    encoder = build("resnet10t", stage=3, keep_width=keep_width)
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    assert encoder.training
    assert all(norm.training for norm in norms)
    assert all(norm.num_batches_tracked == 0 for norm in norms)
    buffers = dict(encoder.named_buffers())
    assert all(buffer.eq(0).all() for name, buffer in buffers.items() if name.endswith("running_mean"))
    assert all(buffer.eq(1).all() for name, buffer in buffers.items() if name.endswith("running_var"))


def test_weights_depend_on_the_seed_but_not_on_keep_width() -> None:
    weights = []
    for keep_width in (0, 4, 0):
        torch.manual_seed(3)
        weights.append(build("test_resnet", stage=3, keep_width=keep_width).state_dict())
    assert all(torch.equal(weights[0][name], other[name]) for other in weights[1:] for name in weights[0])
    torch.manual_seed(4)
    assert not torch.equal(next(iter(weights[0].values())), next(build("test_resnet", stage=3).parameters()))


def test_channels_last_maps_are_permuted() -> None:
    encoder = on_meta("mambaout_femto", spec(32, 96), stage=1)
    assert declared(encoder) == (2, 96, 4, 12)
    assert forward(encoder, spec(32, 96)).shape == (2, 96, 4, 12)


def test_building_on_meta_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    on_meta("test_efficientnet", keep_width=4)
    assert torch.equal(before, torch.get_rng_state())


def test_copy_and_reloaded_weights_give_equal_features() -> None:
    encoder = build("test_convnext", stage=3, keep_width=4).eval()
    images = torch.randn(2, 1, 32, 128)
    twin = build("test_convnext", stage=3, keep_width=4).eval()
    twin.load_state_dict(encoder.state_dict())
    assert torch.equal(encoder(images), twin(images))
    assert torch.equal(encoder(images), copy.deepcopy(encoder)(images))


def test_unknown_model_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=re.escape("unknown timm model 'resnet81'; did you mean 'resnet")):
        build("resnet81")


def test_unknown_stage_error_lists_existing_stages() -> None:
    with pytest.raises(ConfigError, match=r"'test_resnet' has no stage 9; choose one of 0 \(reduction 2\), 1 \(red"):
        build("test_resnet", stage=9)


def test_stage_without_a_feature_map_is_refused() -> None:
    with pytest.raises(ConfigError, match="timm model 'tresnet_m' has no feature map of stage 0: Return layers"):
        build("tresnet_m", stage=0)


def test_later_stage_works_if_the_first_has_no_feature_map() -> None:
    assert declared(on_meta("tresnet_m", stage=2, keep_width=4)) == (2, 128, 4, 32)


def test_network_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *args, **options: built.append(args) or create(*args, **options))
    build("test_resnet", keep_width=4)
    assert built == [("test_resnet",)]


def test_too_small_images_are_refused() -> None:
    with pytest.raises(
        InfeasibleError, match=r"'inception_v3' cannot read images of 8x8 \(height x width\) up to stage 2"
    ):
        on_meta("inception_v3", spec(8, 8))


def test_images_of_a_size_that_branches_disagree_on_are_refused() -> None:
    with pytest.raises(InfeasibleError, match=r"'resnetaa50' cannot read images of 40x160 .* choose an earlier stage"):
        on_meta("resnetaa50", spec(40, 160), stage=3)


def test_assertion_without_a_message_is_quoted_from_the_source() -> None:
    with pytest.raises(InfeasibleError, match=r"cannot read images of 32x128 .*x.shape\[-2\] % self.block_size == 0"):
        on_meta("bat_resnext26ts", keep_width=4)


def test_width_that_is_reduced_without_a_stride_is_refused() -> None:
    with pytest.raises(
        InfeasibleError, match=r"'tresnet_m' cannot have keep_width = 2: its width is still reduced by 4"
    ):
        on_meta("tresnet_m", keep_width=2)


def test_fixed_position_embeddings_are_refused() -> None:
    with pytest.raises(
        InfeasibleError, match=r"it accepts images of 256x256, but not of 256x2048, .* \(in BottleneckAttn\); choose"
    ):
        on_meta("botnet26t_256", spec(256, 256), stage=4, keep_width=4)


def test_layers_that_no_longer_fit_together_are_refused() -> None:
    with pytest.raises(InfeasibleError, match=r"then no longer fit together: shape .* \(in OutlookAttention\); choose"):
        on_meta("volo_d1_224", stage=0, keep_width=4)


@pytest.mark.parametrize(("stage", "width"), [(3, 28), (4, 28)])
def test_pools_called_as_functions_keep_the_width(stage: int, width: int) -> None:
    image = spec(96, 128)
    plain, kept = on_meta("inception_v3", image, stage=stage), build("inception_v3", image, stage=stage, keep_width=4)
    assert declared(kept) == (2, plain.features.channels, plain.features.height, width)
    kept.eval()
    with torch.no_grad():
        assert forward(kept, image).shape == declared(kept)
        twin = pickle.loads(pickle.dumps(copy.deepcopy(kept)))
        images = torch.randn(1, 1, 96, 64)
        assert torch.equal(twin(images), kept(images))
        assert F.max_pool2d(images, 2).shape == (1, 1, 48, 32)  # outside of the network, pooling is not changed


def test_networks_without_functional_pools_keep_their_forward() -> None:
    assert "forward" in vars(on_meta("inception_v3", spec(96, 128), stage=3, keep_width=4))
    assert "forward" not in vars(on_meta("test_resnet", stage=3, keep_width=4))
    assert "forward" not in vars(on_meta("inception_v3", spec(96, 128), stage=2, keep_width=4))


class Pools(nn.Module):
    """A pool after a convolution, and a parallel branch of stride 2; their outputs are concatenated."""

    def __init__(self, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.before = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.pool = pool
        self.branch = nn.Conv2d(4, 4, 2, stride=2)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.before(images)
        return torch.cat([self.pool(maps), self.branch(maps)], dim=1)


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize(
    ("layer", "function"),
    [
        (nn.MaxPool2d(2), lambda maps: F.max_pool2d(maps, 2)),
        (nn.MaxPool2d(3, 2, 1), lambda maps: F.max_pool2d(maps, 3, 2, 1)),
        (nn.MaxPool2d((2, 3), 2, (0, 1)), lambda maps: F.max_pool2d(maps, (2, 3), stride=2, padding=(0, 1))),
        (nn.AvgPool2d(2), lambda maps: F.avg_pool2d(input=maps, kernel_size=2)),
        (nn.AvgPool2d(3, 2, 1, False, False), lambda maps: F.avg_pool2d(maps, 3, 2, 1, False, False)),
        (nn.AvgPool2d(2, ceil_mode=True), lambda maps: F.avg_pool2d(maps, 2, ceil_mode=True)),
    ],
)
def test_functional_pool_is_changed_like_the_layer(
    layer: nn.Module, function: Callable[[Tensor], Tensor], limit: int
) -> None:
    with_layer, with_function = Pools(copy.deepcopy(layer)), Pools(function)
    with_function.load_state_dict(with_layer.state_dict())
    for network in (with_layer, with_function):
        limit_width_reduction(network, spec(), limit)
    for width in (128, 100):
        images = torch.randn(2, 1, 32, width)
        expected = with_layer(images)
        assert expected.shape == (2, 8, 8, width // limit)
        assert torch.equal(with_function(images), expected)


@pytest.mark.parametrize(("model", "stage"), [("twins_svt_small", 1), ("twins_pcpvt_small", 3)])
def test_networks_that_compute_patch_sizes_keep_the_width(model: str, stage: int) -> None:
    plain, kept = on_meta(model, stage=stage), on_meta(model, stage=stage, keep_width=4)
    assert declared(kept) == (2, plain.features.channels, plain.features.height, 32)
    assert forward(kept, spec()).shape == declared(kept)


def test_failed_download_of_weights_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **options: object) -> None:
        raise OSError("no route to host\nretrying")

    monkeypatch.setattr("timm.models._builder.load_pretrained", offline)
    with pytest.raises(
        ConfigError, match="weights of timm model 'resnet18' cannot be loaded: no route to host; connect"
    ):
        build("resnet18", pretrained=True)
    on_meta("resnet18", pretrained=True)


def test_published_weights_are_not_loaded_where_trained_ones_will_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("timm.models._builder.load_pretrained", offline)
    config = without_first_weights(TimmCNN.Config(model="resnet18", pretrained=True, keep_width=4))
    assert config == TimmCNN.Config(model="resnet18", pretrained=False, keep_width=4)
    TimmCNN(config, spec())


@pytest.mark.parametrize("keep_width", [-4, 3, 64])
def test_keep_width_must_be_an_allowed_power_of_two(keep_width: int) -> None:
    with pytest.raises(ValueError, match="keep_width"):
        TimmCNN.Config.model_validate({"keep_width": keep_width})


@pytest.mark.parametrize(
    ("model", "advice"),
    [
        (
            "resnet18.a1_in2k",
            "'resnet18' has no weights of tag 'a1_in2k'; did you mean 'a1_in1k'?; tags: a1_in1k, a2_in1k",
        ),
        ("resnet18.x", "'resnet18' has no weights of tag 'x'; tags: a1_in1k, "),
        ("Resnet18.a1_in1k", "unknown timm model 'Resnet18.a1_in1k'; did you mean 'resnet18'?"),
        ("hf-hub:timm/resnet18.a1_in1k", "as in 'resnet18.a1_in1k', and pretrained = true for its weights"),
        ("hf_hub:someone/my-resnet50", "as in 'resnet50', and pretrained = true"),
        ("timm/convnext_atto.d2_in1k", "as in 'convnext_atto.d2_in1k', and"),
        ("local-dir:/x/y", "is the address of a repository or a folder, whose model can change"),
    ],
)
@pytest.mark.parametrize("pretrained", [False, True])
def test_name_that_timm_does_not_define_is_refused_with_a_name_that_it_does(
    model: str, advice: str, pretrained: bool
) -> None:
    with pytest.raises(UnknownNameError) as caught:
        on_meta(model, pretrained=pretrained)
    assert advice in str(caught.value)


def test_weights_that_timm_does_not_publish_are_refused_without_a_download() -> None:
    with pytest.raises(ConfigError, match="no weights for timm model 'coatnet_0_224'; set pretrained = false"):
        build("coatnet_0_224", pretrained=True)


@pytest.mark.parametrize("model", ["deit3_small_patch16_224", "swin_tiny_patch4_window7_224", "hiera_tiny_224"])
def test_model_of_one_size_is_refused_with_that_size(model: str) -> None:
    with pytest.raises(
        InfeasibleError,
        match=r"reads images of 224x224 only, as vision transformers do; choose a CNN, such as resnet18 ",
    ):
        on_meta(model)
    assert on_meta(model, spec(224, 224)).features.height > 0


def test_advice_on_larger_images_gives_a_size_that_works() -> None:
    with pytest.raises(InfeasibleError, match=r"larger images \(224x224 works\) or another model"):
        on_meta("maxvit_tiny_tf_224")
    assert on_meta("maxvit_tiny_tf_224", spec(224, 224)).features.height > 0
