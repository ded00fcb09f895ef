"""Pictures as files: modes, formats, damage, folders and globs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from src.data.pictures import read_image, read_images
from src.system.errors import UserError
from tests.data.pages import likeness, page, read

MODES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "1-bit": lambda picture: picture.convert("1", dither=Image.Dither.NONE),
    "palette": lambda picture: picture.convert("P"),
    "16-bit": lambda picture: Image.fromarray(np.asarray(picture, np.uint16) * 16),
    "colour": lambda picture: Image.merge("RGB", [picture.point(lambda value: 60 + value // 2), picture, picture]),
    "yellow on white": lambda picture: Image.merge("RGB", [Image.new("L", picture.size, 255)] * 2 + [picture]),
    "black layer": lambda picture: Image.merge(
        "LA", [Image.new("L", picture.size, 0), picture.point(lambda v: 255 - v)]
    ),
    "white layer": lambda picture: Image.merge(
        "LA", [Image.new("L", picture.size, 255), picture.point(lambda v: 255 - v)]
    ),
    "card with clear edges": lambda picture: ImageOps.expand(
        Image.merge("LA", [picture, Image.new("L", picture.size, 255)]), 130, (0, 0)
    ),
    "red on green of the same brightness": lambda picture: Image.composite(
        Image.new("RGB", picture.size, (0, 102, 0)), Image.new("RGB", picture.size, (200, 0, 0)), picture
    ),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_kind_of_png(digits: np.ndarray, tmp_path: Path, mode: str) -> None:
    expected_HW = read(page(digits[0]), tmp_path)
    image_HW = read(MODES[mode](page(digits[0])), tmp_path)
    assert likeness(image_HW, expected_HW) > 0.9


@pytest.mark.parametrize(
    "name", ["a.jpg", "a.bmp", "a.tif", "a.gif", "a.webp", "a.pgm", "a.avif", "a.jp2", "a.heic", "wrong.txt"]
)
def test_every_format(digits: np.ndarray, tmp_path: Path, name: str) -> None:
    if name == "a.heic":
        pytest.importorskip("pillow_heif")
    if (codec := {"a.avif": "avif", "a.jp2": "jpg_2000"}.get(name)) and not features.check(codec):
        pytest.skip(f"Pillow has no {codec}.")
    expected_HW = read(page(digits[0]), tmp_path)
    options = {"format": "PNG"} if name == "wrong.txt" else {}
    assert likeness(read(page(digits[0]), tmp_path, name, **options), expected_HW) > 0.95


def test_the_first_page_counts_and_exif_turns_it(digits: np.ndarray, tmp_path: Path) -> None:
    first, second = page(digits[0]), page(digits[1])
    expected_HW = read(first, tmp_path)
    pages_HW = read(first, tmp_path, "pages.tif", save_all=True, append_images=[second])
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90° clockwise
    turned_HW = read(first.transpose(Image.Transpose.ROTATE_90), tmp_path, "turned.jpg", exif=exif)
    for image_HW in (pages_HW, turned_HW):
        assert likeness(image_HW, expected_HW) > 0.9


def test_a_large_jpeg_is_read_reduced_and_a_large_png_is_refused(tmp_path: Path) -> None:
    picture = Image.new("1", (16_000, 5_000), 1)
    picture.paste(0, (9_000, 1_000, 9_400, 4_000))
    assert read(picture.convert("L"), tmp_path, "large.jpg").sum() > 0
    with pytest.raises(UserError, match="16,000 × 5,000 pixels are too many"):
        read(picture, tmp_path, "large.png")
    with pytest.raises(UserError, match="too many"):
        read(picture.convert("L"), tmp_path, "large.jpg", progressive=True)


def test_the_refusal_of_another_format_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypnone" + bytes(200))
    with pytest.raises(UserError, match="not a picture in PNG, JPEG.* save it as JPEG"):
        read_image(tmp_path / "photo.heic")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP", "PPM"])
def test_half_a_file_is_damaged(digits: np.ndarray, tmp_path: Path, format: str) -> None:
    page(digits[0]).save(tmp_path / "whole", format)
    whole = (tmp_path / "whole").read_bytes()
    for length in (0, 10, len(whole) // 2):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(UserError, match="damaged or incomplete|not a picture"):
            read_image(tmp_path / "cut")


def test_files_folders_and_globs(digits: np.ndarray, tmp_path: Path) -> None:
    for name in ("b.png", "a.png", "deep/er/c.png", ".hidden.png", ".cache/d.png", "[x].png"):
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        page(digits[0]).save(tmp_path / "d" / name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "d" / "gone.png").symlink_to(tmp_path / "nowhere")

    def found(*names: str) -> dict[str, str]:
        files = read_images([str(tmp_path / name) for name in names])
        assert all((file.image_HW is None) == bool(file.error) for file in files)
        return {str(file.path.relative_to(tmp_path)): file.error for file in files}

    everything = found("d")
    assert list(everything) == ["d/[x].png", "d/a.png", "d/b.png", "d/deep/er/c.png", "d/gone.png"]
    assert [name for name, error in everything.items() if error] == ["d/gone.png"]
    assert list(found("d/?.png", "d/a.png")) == ["d/a.png", "d/b.png"]  # each file once
    assert found("d/[x].png") == {"d/[x].png": ""}  # an existing file has priority over the glob
    assert list(found("d/**/c.png")) == ["d/deep/er/c.png"]
    assert found("empty", "none", "no*") == {
        "empty": "The folder is empty.",
        "none": "No such file or directory.",
        "no*": "No such file or directory.",
    }
    assert found("d/gone.png", "d/gon*") == {"d/gone.png": "No such file or directory."}
    assert "too long" in found("x" * 300)["x" * 300]
