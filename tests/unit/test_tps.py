"""Thin plate spline: interpolation, affine maps, initial points, independence of the image size.

The test image is two ramps: every pixel of the rectified image contains the position (x, y) that it was read from.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from decoderbench import ImageSpec, InfeasibleError
from decoderbench_plugins.rectifiers.tps import TPS

HEIGHT, WIDTH, FIDUCIALS = 9, 17, 10  # five points per edge: every fourth pixel of the first and last row is a knot
UPPER = torch.stack([torch.linspace(-1, 1, 5), torch.full((5,), -1.0)], dim=1)
EDGES = torch.cat([UPPER, UPPER * torch.tensor([1.0, -1.0])])  # (F, 2): the identity


def build(height: int = HEIGHT, width: int = WIDTH, channels: int = 3, **options: int) -> TPS:
    config = TPS.Config.model_validate({"num_fiducials": FIDUCIALS, "output_channels": 8, **options})
    return TPS(config, ImageSpec(channels=channels, height=height, width=width)).eval()


def build_predicting(fiducials: Tensor, **options: int) -> TPS:
    """Return a TPS that predicts the given points, (F, 2), for every image, because its last weight is 0."""
    tps = build(**options)
    with torch.no_grad():
        tps.fiducials.bias.copy_(fiducials.flatten())
    return tps


def ramps(height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    """Return an image (1, 3, H, W) with the channels x, y and 0."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)])[None]


def read_from(tps: TPS) -> Tensor:
    """Return the position that each pixel is read from, (H, W, 2)."""
    with torch.no_grad():
        return tps(ramps(tps.image.height, tps.image.width))[0, :2].permute(1, 2, 0)


def at_knots(positions: Tensor) -> Tensor:
    return torch.cat([positions[0, ::4], positions[-1, ::4]])


def test_fiducials_on_the_edges_give_the_identity() -> None:
    images = torch.rand(4, 3, HEIGHT, WIDTH)
    torch.testing.assert_close(build_predicting(EDGES)(images), images, atol=1e-5, rtol=0)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31))
def test_spline_maps_each_knot_to_its_fiducial(seed: int) -> None:
    fiducials = 2 * torch.rand(FIDUCIALS, 2, generator=torch.Generator().manual_seed(seed)) - 1
    torch.testing.assert_close(at_knots(read_from(build_predicting(fiducials))), fiducials, atol=1e-5, rtol=0)


def test_fiducials_moved_by_two_pixels_shift_the_image() -> None:
    images = torch.rand(2, 3, HEIGHT, WIDTH)
    shifted = build_predicting(EDGES + torch.tensor([2 * 2 / (WIDTH - 1), 0.0]))(images)
    torch.testing.assert_close(shifted[..., :-2], images[..., 2:], atol=1e-5, rtol=0)
    beyond_the_border = images[..., -1:].expand(-1, -1, -1, 2)
    torch.testing.assert_close(shifted[..., -2:], beyond_the_border, atol=1e-5, rtol=0)


def test_affine_map_of_the_fiducials_maps_every_pixel() -> None:
    linear, offset = torch.tensor([[0.5, -0.2], [0.1, 0.4]]), torch.tensor([0.1, -0.2])
    positions = read_from(build_predicting(EDGES @ linear + offset))
    identity = ramps()[0, :2].permute(1, 2, 0)
    torch.testing.assert_close(positions, identity @ linear + offset, atol=1e-5, rtol=0)


def test_spline_equals_one_solved_point_by_point() -> None:
    fiducials = EDGES * torch.tensor([0.8, 0.6])
    fiducials[[2, 7], 1] += 0.3

    def kernel(one: Tensor, other: Tensor) -> float:
        distance = math.dist(one.tolist(), other.tolist())
        return distance**2 * math.log(distance) if distance else 0.0

    size = FIDUCIALS + 3
    system, values = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, 2, dtype=torch.float64)
    for row, knot in enumerate(EDGES):
        system[row] = torch.tensor([*(kernel(knot, other) for other in EDGES), 1.0, *knot])
        system[:, row] = system[row]
        values[row] = fiducials[row]
    coefficients = torch.linalg.solve(system, values)
    positions = read_from(build_predicting(fiducials))
    for row, column in [(2, 3), (4, 8), (6, 15)]:
        pixel = torch.tensor([-1 + 2 * column / (WIDTH - 1), -1 + 2 * row / (HEIGHT - 1)])
        terms = torch.tensor([*(kernel(pixel, knot) for knot in EDGES), 1.0, *pixel], dtype=torch.float64)
        torch.testing.assert_close(positions[row, column], (terms @ coefficients).float(), atol=1e-5, rtol=0)


def test_initial_points_are_a_strip_that_rises_to_the_right() -> None:
    positions = at_knots(read_from(build()))
    x, rise = torch.linspace(-1, 1, 5), torch.linspace(0, 1, 5)
    torch.testing.assert_close(positions[:5], torch.stack([x, -rise], dim=1), atol=1e-5, rtol=0)
    torch.testing.assert_close(positions[5:], torch.stack([x, 1 - rise], dim=1), atol=1e-5, rtol=0)


def test_warp_depends_on_the_image() -> None:
    torch.manual_seed(0)
    tps = build()
    torch.nn.init.normal_(tps.fiducials.weight)
    ramp = ramps()
    with torch.no_grad():
        one, other = tps(torch.cat([ramp, -ramp]))
    assert (one + other).abs().max() > 0.05  # with a fixed warp, the sum would be 0


def test_first_convolution_receives_a_gradient() -> None:
    torch.manual_seed(0)
    tps = build().train()
    torch.nn.init.normal_(tps.fiducials.weight)
    tps(torch.rand(4, 3, HEIGHT, WIDTH)).square().sum().backward()
    first = tps.trunk[0].weight
    assert first.grad is not None
    assert first.grad.isfinite().all()
    assert first.grad.abs().max() > 0


def test_weights_do_not_depend_on_the_image_size() -> None:
    trained, other = build(32, 100, channels=1), build(48, 160, channels=1)
    optimizer = torch.optim.SGD(trained.parameters(), lr=1e-3)
    trained.train()(torch.rand(2, 1, 32, 100)).square().sum().backward()
    optimizer.step()
    other.load_state_dict(trained.state_dict())
    assert other(torch.rand(2, 1, 48, 160)).shape == (2, 1, 48, 160)
    assert not torch.equal(other.fiducials.bias, build(48, 160, channels=1).fiducials.bias)  # it was trained


def test_positions_are_exact_under_autocast() -> None:
    images = torch.rand(2, 3, 32, 128)
    tps = build_predicting(EDGES, height=32, width=128)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rectified = tps(images)
    assert rectified.dtype == torch.float32
    torch.testing.assert_close(rectified, images, atol=1e-4, rtol=0)


def test_batch_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"images of one size.* built for 9x17 \(height x width\), given 9x20"):
        build()(torch.zeros(2, 3, HEIGHT, 20))


@pytest.mark.parametrize(("height", "width"), [(7, 100), (32, 7)])
def test_too_small_images_are_refused(height: int, width: int) -> None:
    with pytest.raises(InfeasibleError, match=rf"at least 8x8 \(height x width\), given {height}x{width}"):
        build(height, width)


@pytest.mark.parametrize("options", [{"num_fiducials": 2}, {"num_fiducials": 7}, {"output_channels": 12}])
def test_invalid_options_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        build(**options)
