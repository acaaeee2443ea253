import torch
from torch.nn import functional as F

from nas.augment import cutout, gather


def images(count: int = 6, height: int = 9, width: int = 7) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=torch.channels_last)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_without_augmentation_the_images_at_the_index_come_back() -> None:
    x, index = images(), torch.tensor([4, 0, 4])
    assert torch.equal(gather(x, index), x[index])


def test_every_image_is_a_window_of_itself_padded_by_reflection_perhaps_mirrored() -> None:
    x, index = images(), torch.arange(6).repeat(20)
    taken = gather(x, index, crop_pixels=2, flip=True, generator=generator())
    seen = set()
    for image, source in zip(taken, x[index], strict=True):
        padded = F.pad(source, (2, 2, 2, 2), mode="reflect")
        windows = {(r, c): padded[:, r : r + 9, c : c + 7] for r in range(5) for c in range(5)}
        found = {(r, c, m) for (r, c), w in windows.items() for m in (0, 1) if torch.equal(image, w.flip(2) if m else w)}
        assert len(found) == 1
        seen |= found
    # 120 draws out of 50: each is missed with probability 0.98 ** 120 = 9 %
    assert len(seen) > 35


def test_mirroring_alone_mirrors_about_half() -> None:
    x, index = images(1), torch.zeros(1000, dtype=torch.int64)
    taken = gather(x, index, flip=True, generator=generator())
    mirrored = (taken == x[0].flip(2)).all((1, 2, 3)).sum()
    # binomial with deviation 16
    assert 420 < mirrored < 580


def test_bytes_stay_bytes_in_channels_last_memory() -> None:
    x = (images() * 255).to(torch.uint8)
    taken = gather(x, torch.arange(6), crop_pixels=2, flip=True, generator=generator())
    assert taken.dtype == torch.uint8
    assert taken.is_contiguous(memory_format=torch.channels_last)


def test_signals_of_height_one_are_shifted_along_their_width_alone() -> None:
    x = torch.arange(8.0).view(1, 1, 1, 8)
    taken = gather(x, torch.zeros(50, dtype=torch.int64), crop_pixels=3, generator=generator())
    assert taken.shape == (50, 1, 1, 8)
    assert {row.tolist()[4] for row in taken[:, 0, 0]} == {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0}


def test_equal_generators_give_equal_batches() -> None:
    x, index = images(), torch.arange(6)
    one, two = (gather(x, index, crop_pixels=2, flip=True, generator=generator(5)) for _ in range(2))
    assert torch.equal(one, two)


def test_cutout_blanks_one_square_and_leaves_the_rest() -> None:
    x = torch.ones(200, 2, 12, 12)
    cut = cutout(x, 4, generator())
    blank = (cut == 0).all(1)
    assert set(cut.unique().tolist()) == {0.0, 1.0}  # type: ignore[no-untyped-call]  # torch's own
    assert blank.sum((1, 2)).max() == 16
    # centres lie anywhere, so squares at the border are cut to no less than 2x2
    assert blank.sum((1, 2)).min() >= 4
    for square in blank:
        rows, columns = square.any(1), square.any(0)
        assert torch.equal(square, rows[:, None] & columns[None, :])
