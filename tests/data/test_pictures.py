"""Conversion of pictures to MNIST images: position, size, light, and what surrounds the digit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.figure
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont, ImageOps
from scipy import ndimage

from src.data.pictures import read_image, read_images, read_picture, to_mnist
from src.system.errors import UserError
from tests.data.pages import likeness, page, read


def test_an_image_of_mnist_stays_as_it_is(digits: np.ndarray) -> None:
    for digit_HW in digits:
        assert np.abs(to_mnist(digit_HW.astype(float)).numpy() - digit_HW.astype(float)).mean() < 2


@pytest.mark.parametrize("dark", [True, False])
def test_a_digit_on_a_page_comes_back_as_it_was(digits: np.ndarray, tmp_path: Path, dark: bool) -> None:
    for digit_HW in digits:
        image_HW = read(page(digit_HW, dark), tmp_path)
        assert likeness(image_HW, digit_HW) > 0.9
        shift = np.subtract(ndimage.center_of_mass(image_HW), ndimage.center_of_mass(digit_HW))
        assert np.abs(shift).max() < 1


@pytest.mark.parametrize("dark", [True, False])
def test_a_digit_that_fills_the_picture_comes_back_as_it_was(digits: np.ndarray, dark: bool) -> None:
    for digit_HW in digits:
        rows, columns = (np.flatnonzero(digit_HW.max(axis=axis) > 100) for axis in (1, 0))
        tight = Image.fromarray(digit_HW[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
        grey_HW = np.asarray(tight.resize((tight.width * 8, tight.height * 8), Image.Resampling.BICUBIC), float)
        assert likeness(to_mnist(255 - grey_HW if dark else grey_HW).numpy().astype(float), digit_HW) > 0.85


@pytest.mark.parametrize("ink", [0, 255])
def test_a_bold_digit_that_fills_the_picture_is_separated_from_the_paper(tmp_path: Path, ink: int) -> None:
    font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf"), 200)
    for digit in "0123456789":
        images = []
        for margin in (2, 80):
            left, top, right, bottom = font.getbbox(digit)
            picture = Image.new("L", (int(right - left) + 2 * margin, int(bottom - top) + 2 * margin), 255 - ink)
            ImageDraw.Draw(picture).text((margin - left, margin - top), digit, ink, font)
            images.append(read(picture, tmp_path))
        assert likeness(*images) > 0.95, digit


def test_paper_between_faint_strokes_is_black() -> None:
    grey_HW = np.full((300, 300), 200.0)
    grey_HW[60:240, 80:100] = grey_HW[220:240, 80:220] = 165
    grey_HW += np.random.default_rng(0).normal(0, 8, grey_HW.shape)
    image_HW = to_mnist(grey_HW).numpy()
    rows, columns = (np.flatnonzero(image_HW.max(axis=axis) > 128) for axis in (1, 0))
    assert image_HW[rows[0] : rows[-1] - 4, columns[4] : columns[-1]].mean() < 3


def test_a_bar_anywhere_is_fitted_into_20_by_20_and_centred_by_its_mass(tmp_path: Path) -> None:
    picture = Image.new("L", (300, 500), 200)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((30, 60, 69, 259), fill=20)  # 40 × 200 pixels
    draw.rectangle((30, 220, 109, 259), fill=20)  # and a foot to the right
    image_HW = read(picture, tmp_path)
    rows, columns = np.flatnonzero(image_HW.any(axis=1)), np.flatnonzero(image_HW.any(axis=0))
    assert (len(rows), len(columns)) == (20, 8)  # 200 × 80
    assert np.abs(np.subtract(ndimage.center_of_mass(image_HW), 14)).max() <= 0.5
    assert (image_HW.max(), image_HW[:, 27].max()) == (255, 0)


def test_shadow_gradient_noise_specks_and_the_edge_of_the_table_change_little(digits: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    y_HW, x_HW = np.mgrid[0:360, 0:480]
    light_HW = (0.6 + 0.4 * x_HW / 480) * np.where(x_HW + y_HW < 260, 0.6, 1)
    for digit_HW in digits:
        clean_HW = np.asarray(page(digit_HW), float)
        photo_HW = (70 + 0.55 * clean_HW) * light_HW + rng.normal(0, 4, clean_HW.shape)
        photo_HW[340:345, 20:24] = 30  # a speck and a blot
        photo_HW[300:330, 10:50] = 30
        photo_HW[:12] = 20
        seen_HW, expected_HW = (to_mnist(grey_HW).numpy().astype(float) for grey_HW in (photo_HW, clean_HW))
        assert likeness(seen_HW, expected_HW) > 0.9


def test_a_thin_line_gets_the_width_of_a_pen(tmp_path: Path) -> None:
    picture = Image.new("L", (400, 400), 255)
    ImageDraw.Draw(picture).line((100, 60, 100, 340), fill=0, width=2)
    image_HW = read(picture, tmp_path)
    assert image_HW.sum(axis=1).max() / 255 == pytest.approx(2, abs=0.4)  # a tenth of 20


Rng = np.random.Generator


def shadow(grey_HW: np.ndarray, rng: Rng) -> np.ndarray:
    """A shadow over one side, which may cover a part of the digit."""
    width = rng.uniform(0.1, 0.4) * grey_HW.shape[1]
    depth, softness, slope = rng.choice([0.3, 0.45, 0.6]), rng.uniform(1, 12), rng.uniform(-0.1, 0.1)
    y_HW, x_HW = np.mgrid[: grey_HW.shape[0], : grey_HW.shape[1]]
    return grey_HW * (1 - depth / (1 + np.exp(np.clip((x_HW + slope * y_HW - width) / softness, -50, 50))))


def corner_in_shadow(grey_HW: np.ndarray, rng: Rng) -> np.ndarray:
    y_HW, x_HW = np.mgrid[0 : 1 : grey_HW.shape[0] * 1j, 0 : 1 : grey_HW.shape[1] * 1j]
    return grey_HW * np.where(x_HW + y_HW * rng.uniform(0.8, 1.2) < rng.uniform(0.3, 0.5), 0.5, 1)


def dark_edge(grey_HW: np.ndarray, rng: Rng) -> np.ndarray:
    """The edge of a scan, on one to four sides, with a small digit."""
    grey_HW = np.pad(grey_HW, 300, constant_values=grey_HW[0, 0])
    sides = rng.integers(1, 15)
    width = int(rng.uniform(0.005, 0.03) * max(grey_HW.shape))
    for side in range(4):
        if sides >> side & 1:
            np.rot90(grey_HW, side)[:width] = rng.uniform(0, 40)
    return grey_HW


def black_border(grey_HW: np.ndarray, rng: Rng) -> np.ndarray:
    return np.pad(grey_HW, int(rng.uniform(0.03, 0.2) * max(grey_HW.shape)))


def letterbox(grey_HW: np.ndarray, rng: Rng) -> np.ndarray:
    """The screenshot of a phone, with a status bar."""
    before, after = rng.integers(80, 300, 2)
    screen_HW = np.pad(grey_HW, ((before, after), (0, 0)), constant_values=(colour := int(rng.choice([0, 20, 255]))))
    screen_HW[10:20, 20:60] = screen_HW[12:18, -40:-20] = 255 - colour
    return screen_HW


def photo_on_a_table(grey_HW: np.ndarray, rng: Rng) -> np.ndarray:
    paper, table = Image.fromarray(grey_HW.astype(np.uint8)), Image.new("L", (900, 800), int(rng.uniform(20, 110)))
    angle = rng.uniform(-6, 6)
    options: dict[str, Any] = {"resample": Image.Resampling.BILINEAR, "expand": True}
    where = (int(rng.integers(20, 300)), int(rng.integers(20, 250)))
    table.paste(paper.rotate(angle, **options), where, Image.new("L", paper.size, 255).rotate(angle, **options))
    return np.asarray(table, float) + rng.normal(0, 2, (800, 900))


def framed(grey_HW: np.ndarray, rng: Rng) -> np.ndarray:
    """A box or a circle around the digit, drawn by hand: it may have a small gap."""
    picture = Image.fromarray(np.pad(grey_HW, 120, constant_values=grey_HW[0, 0]).astype(np.uint8))
    box = [int(side + rng.uniform(-30, 30)) for side in (260, 110, 600, 450)]  # the digit is at 290…570, 140…420
    draw, width = ImageDraw.Draw(picture), int(rng.integers(2, 9))
    if rng.random() < 0.4:
        draw.ellipse([box[0] - 40, box[1] - 40, box[2] + 40, box[3] + 40], outline=60, width=width)
    else:
        left, top, right, bottom = box
        draw.line([(left, top + 6), (left, bottom), (right, bottom), (right, top), (left + 6, top)], 60, width)
    return np.asarray(picture, float)


@pytest.mark.parametrize(
    "spoil", [shadow, corner_in_shadow, dark_edge, black_border, letterbox, photo_on_a_table, framed]
)
def test_what_surrounds_the_digit_changes_little(digits: np.ndarray, spoil: Callable[..., np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    for number, digit_HW in enumerate(digits):
        ink = rng.uniform(30, 150)
        clean_HW = 200 - ink * (255 - np.asarray(page(digit_HW), float)) / 255
        turned_HW = np.rot90(clean_HW, turns := int(rng.integers(4)) if spoil in (shadow, corner_in_shadow) else 0)
        spoilt_HW = np.rot90(spoil(turned_HW.copy(), rng), -turns)
        seen_HW, expected_HW = (to_mnist(grey_HW).numpy().astype(float) for grey_HW in (spoilt_HW, clean_HW))
        assert likeness(seen_HW, expected_HW) > 0.8, number  # the photo on the table is turned


@pytest.mark.parametrize("dark", [True, False])
def test_a_zero_with_a_dot_is_no_frame(dark: bool) -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        picture = Image.new("L", (300, 400), 255)
        draw, size = ImageDraw.Draw(picture), rng.uniform(6, 25)
        draw.ellipse((70, 50, 230, 350), outline=0, width=int(rng.integers(12, 30)))
        draw.ellipse((150 - size, 200 - size, 150 + size, 200 + size), fill=0)
        grey_HW = np.asarray(picture if dark else ImageOps.invert(picture), float)
        image_HW = to_mnist(grey_HW).numpy()
        assert image_HW[5:23].any(axis=1).all() and image_HW[14, 8:11].max() > 128  # its left side, beside the dot


def test_a_plot_is_cut_out_of_its_figure(digits: np.ndarray, tmp_path: Path) -> None:
    for digit_HW in digits[:4]:
        figure = matplotlib.figure.Figure()
        axes = figure.add_subplot()
        axes.imshow(digit_HW, cmap="gray")
        axes.set_title("Prediction: 5")
        figure.savefig(tmp_path / "plot.png")
        assert likeness(read_image(tmp_path / "plot.png").numpy().astype(float), digit_HW) > 0.85


def test_detached_strokes_are_found_from_piece_to_piece() -> None:
    grey_HW = np.full((400, 600), 255.0)
    for left in (100, 220, 340, 460):  # each near the next alone
        grey_HW[180:200, left : left + 100] = 0
    rows, columns = (np.flatnonzero(to_mnist(grey_HW).numpy().any(axis=axis)) for axis in (1, 0))
    assert (len(rows), len(columns)) == (pytest.approx(2, abs=1), 20)


def test_several_digits_side_by_side_are_counted(digits: np.ndarray, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 5):
        picture = Image.new("L", (40 + 180 * count, 300), 255)
        for place, digit_HW in enumerate(digits[rng.choice(len(digits), count)]):
            rows = np.flatnonzero(digit_HW.max(axis=1))
            inked = Image.fromarray(255 - digit_HW[rows[0] : rows[-1] + 1]).resize((170, int(rng.uniform(150, 190))))
            picture.paste(inked, (20 + 180 * place, int(rng.uniform(40, 60))))
        picture.save(tmp_path / "digits.png")
        [file] = read_images([str(tmp_path / "digits.png")])
        assert (file.warning, file.error) == (f"{count} digits?" if count > 1 else "", "")
        assert read_picture(tmp_path / "digits.png")[1] == file.warning


@pytest.mark.parametrize("size", [(300, 200), (1, 1), (500, 1)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_an_empty_page_has_no_digit(tmp_path: Path, size: tuple[int, int], value: int) -> None:
    with pytest.raises(UserError, match="No digit stands out"):
        read(Image.new("L", size, value), tmp_path)


def test_noise_alone_has_no_digit() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match="No digit stands out"):
        to_mnist(rng.normal(200, 6, (380, 512)))
