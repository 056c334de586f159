"""The shape data: known pixels, the factors' ranges, and what is fresh and what is fixed."""

import pytest
import torch

import data
from data.shapes import draw_factors, render


def picture(square: int, size: int, x: int, y: int, squares: str = "centred") -> torch.Tensor:
    """One white shape as a (32, 32) mask."""
    image = render(torch.tensor([[square, size, x, y, 1.0, 1.0, 1.0]], dtype=torch.float32), squares)
    assert image.shape == (1, 3, 32, 32)
    return image[0, 0]


def test_a_square_has_its_centre_and_side():
    image = picture(1, 3, x=10, y=20)
    expected = torch.zeros(32, 32)
    expected[17:24, 7:14] = 1  # rows are y; half the side is 3 to either side of the centre
    assert torch.equal(image, expected)


def test_a_released_square_is_drawn_from_the_centre_to_the_lower_right():
    """As OpenCV fills a rectangle between two corners: both are in it, and what lies outside the image is left out."""
    for size in range(3, 9):
        for x in range(8, 25):
            for y in (8, 13, 24):
                expected = torch.zeros(32, 32)
                for row in range(y, min(y + size, 31) + 1):
                    for column in range(x, min(x + size, 31) + 1):
                        expected[row, column] = 1
                assert torch.equal(picture(1, size, x, y, "released"), expected)


@pytest.mark.parametrize(("size", "pixels"), [(3, 29), (4, 49), (5, 81), (6, 113), (7, 149), (8, 197)])
@pytest.mark.parametrize("squares", ["released", "centred"])
def test_a_circle_has_as_many_pixels_as_the_release_draws(size, pixels, squares):
    assert picture(0, size, 16, 16, squares).sum() == pixels  # counted in cv.circle of OpenCV 5.0


def test_released_squares_are_the_default_and_the_factors_are_the_same():
    released, centred = (data.load("shape", "test", size=50, squares=squares) for squares in ("released", "centred"))
    assert torch.equal(data.load("shape", "test", size=50)[:], released[:])
    assert torch.equal(released.store, centred.store)
    different = (released[:] != centred[:]).flatten(1).any(1)
    assert torch.equal(different, released.labels == 1)  # circles are the same
    assert torch.equal(released.first(20)[:], released[:][:20])


def test_a_circle_is_all_pixels_within_its_radius():
    image = picture(0, 5, x=16, y=12)
    inside = {(x, y) for x in range(32) for y in range(32) if (x - 16) ** 2 + (y - 12) ** 2 <= 25}
    assert {(x, y) for y, x in image.nonzero().tolist()} == inside


def test_colour_fills_the_shape_and_the_background_is_black():
    image = render(torch.tensor([[1, 4, 16, 16, 0.25, 0.5, 0.75]]))[0]
    assert torch.equal(image[:, 16, 16], torch.tensor([0.25, 0.5, 0.75]))
    assert image[:, 0, 0].sum() == 0


def test_factors_are_uniform_over_the_published_ranges():
    factors = draw_factors(60_000, torch.Generator().manual_seed(0))
    square, size, x, y = (factors[:, column] for column in range(4))
    for values, expected in ((square, range(2)), (size, range(3, 9)), (x, range(8, 25)), (y, range(8, 25))):
        found, counts = values.unique(return_counts=True)
        assert found.tolist() == list(expected)
        share = 60_000 / len(expected)
        assert (counts - share).abs().max() < 5 * share**0.5
    assert factors[:, 4:].min() >= 0 and factors[:, 4:].max() <= 1
    assert (factors[:, 4:].mean(0) - 0.5).abs().max() < 0.01
    correlation = torch.corrcoef(factors.T) - torch.eye(7)
    assert correlation.abs().max() < 0.02  # seven independent factors


def test_squares_have_their_area_and_are_cut_only_at_the_far_border():
    factors = draw_factors(500, torch.Generator().manual_seed(0))
    factors = factors[factors[:, 0] == 1]
    areas = (render(factors, "centred").amax(1) > 0).flatten(1).sum(1)
    size, centre = factors[:, 1:2].long(), factors[:, 2:4].long()
    sides = torch.clamp(centre + size, max=31) - (centre - size) + 1  # 24 + 8 is one past the last pixel
    assert torch.equal(areas, sides.prod(dim=1))


def test_evaluation_is_fixed_and_training_is_fresh():
    test = data.load("shape", "test", size=100)
    assert torch.equal(torch.cat(list(test.batches(32))), torch.cat(list(test.batches(50))))
    assert torch.equal(test[:], data.load("shape", "test", size=100)[:])
    train = data.load("shape", "train", size=64)
    first, second, again = (train[train.order(torch.Generator().manual_seed(seed))] for seed in (1, 2, 1))
    assert torch.equal(first, again) and not torch.equal(first, second)
    assert len(data.load("shape", "train")) == 50_000 and len(data.load("shape", "valid")) == 10_000


def test_splits_differ_and_labels_are_the_shape():
    splits = [data.load("shape", split, size=200) for split in ("train", "valid", "test")]
    assert not torch.equal(splits[0][:], splits[1][:])
    assert not torch.equal(splits[1][:], splits[2][:])
    assert torch.equal(splits[2].labels, splits[2].store[:, 0].long())


def test_new_factors_are_drawn_in_place_and_give_the_labels():
    """A captured step reads the store where it is."""
    train = data.load("shape", "train", size=100)
    part, place = train.first(10), train.store.data_ptr()
    order = train.order(torch.Generator().manual_seed(7))
    assert torch.equal(order, torch.arange(100)) and train.store.data_ptr() == place
    assert torch.equal(train.store, draw_factors(100, torch.Generator().manual_seed(7)))
    assert torch.equal(train.labels, train.store[:, 0].long())
    assert torch.equal(part[:], train[:10])
