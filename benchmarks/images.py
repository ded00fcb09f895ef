"""How well pictures are read that weren't made for MNIST: `python -m benchmarks.images CHECKPOINT …`.

Every picture is saved as PNG and goes the way of `predict --data.images`. Takes about ten minutes on two cores.
With `--real FOLDER`, it reads the pictures of other people that docs/real_digits.csv lists.
"""

import argparse
import csv
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from scipy.interpolate import make_interp_spline
from sklearn.datasets import load_digits
from torch import Tensor
from tqdm import tqdm

from src.data.pictures import read_image, read_picture
from src.data.source import read_mnist
from src.runs.network import TrainedNetwork
from src.system.errors import UserError

HOW_TO_GET_THE_PICTURES = """
The folder of --real holds a clone of each repository that the list names, as FOLDER/OWNER/NAME:

    tail -n +2 docs/real_digits.csv | cut -d, -f3 | sort -u | while read name; do
        git clone --depth 1 "https://github.com/$name" "FOLDER/$name"
    done
"""

Item = tuple[Image.Image, int]  # a picture and its digit

FONTS = [  # of those that matplotlib brings
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSerif",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
    "cmr10",
    "cmss10",
    "cmtt10",
]

# The way of a hand, as points x, y in 0…1 from the upper left; a stroke is a smooth curve through them.
STROKES = {
    0: ["50,0 15,20 5,60 30,98 70,95 95,50 80,10 48,1"],
    1: ["30,20 55,0 53,50 50,100"],
    2: ["10,25 35,0 75,10 70,45 40,75 8,98", "8,98 50,94 95,98"],
    3: ["12,12 50,0 80,20 45,46", "45,46 85,60 75,92 40,100 10,86"],
    4: ["60,0 35,35 8,65", "8,65 50,66 95,62", "68,35 66,65 64,100"],
    5: ["85,3 50,2 22,4", "22,4 18,25 16,45", "16,45 60,38 88,65 65,97 10,92"],
    6: ["75,2 35,25 12,65 35,99 75,90 78,60 45,52 15,72"],
    7: ["8,6 50,4 90,3", "90,3 62,50 42,100"],
    8: ["75,12 40,2 22,25 50,48 80,72 50,99 18,78 45,50 78,25 70,8"],
    9: ["80,15 45,2 15,25 35,50 70,40 82,15", "82,15 80,55 70,100"],
}


def enlarged_mnist(data_dir: Path, images: int) -> list[Item]:
    """MNIST's test images, 4 to 12 times as large, inverted, anywhere on a white page."""
    rng = np.random.default_rng(0)
    items = []
    for image_HW, digit in zip(*(values[:images] for values in read_mnist(data_dir, "t10k")), strict=True):
        side = int(28 * rng.uniform(4, 12))
        page = Image.new("L", (int(side * rng.uniform(1.1, 1.8)), int(side * rng.uniform(1.1, 1.8))), 255)
        digit_picture = Image.fromarray(255 - image_HW.numpy()).resize((side, side), Image.Resampling.BICUBIC)
        corner = (int(rng.integers(0, page.width - side + 1)), int(rng.integers(0, page.height - side + 1)))
        page.paste(digit_picture, corner)
        items.append((page, int(digit)))
    return items


def other_hands() -> list[Item]:
    """scikit-learn's digits: 1,797 of 8×8 pixels by 43 people, 20 times as large."""
    data = load_digits()
    pictures = (Image.fromarray((image * 255 / 16).astype(np.uint8)) for image in data.images)
    large = [picture.resize((160, 160), Image.Resampling.BICUBIC) for picture in pictures]
    return list(zip(large, data.target.tolist(), strict=True))


def fonts() -> list[Item]:
    """The ten digits in a dozen fonts."""
    items = []
    for name in FONTS:
        font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf"), 150)
        for digit in range(10):
            page = Image.new("L", (240, 280), 255)
            ImageDraw.Draw(page).text((120, 140), str(digit), fill=0, font=font, anchor="mm")
            items.append((page, digit))
    return items


def mouse() -> list[Item]:
    """Ten digits a hundred times, drawn with a pen of 2 to 8 pixels in a window, without antialiasing."""
    rng = np.random.default_rng(0)
    items = []
    for digit in range(10):
        for _ in range(100):
            page = Image.new("L", (280, 280), 255)
            width = int(rng.integers(2, 9))
            size, slant, turn = rng.uniform((60, 80), (150, 200)), rng.uniform(-0.1, 0.3), rng.normal(0, 0.1)
            matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ [[1, -slant], [0, 1]]
            for stroke in STROKES[digit]:
                points = np.array([[float(value) for value in point.split(",")] for point in stroke.split()]) / 100
                points += rng.normal(0, 0.015, points.shape)
                curve = make_interp_spline(np.arange(len(points)), points, k=2)(np.linspace(0, len(points) - 1, 60))
                drawn = (curve - 0.5) * size @ matrix.T + 140 + rng.normal(0, 0.7, curve.shape)
                ImageDraw.Draw(page).line(
                    [tuple(point) for point in drawn.tolist()], fill=0, width=width, joint="curve"
                )
            items.append((page, digit))
    return items


def read(picture: Image.Image) -> Tensor | None:
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        picture.save(file, "png")
        file.flush()
        try:
            return read_image(Path(file.name))
        except UserError:
            return None


def plainly_resized(picture: Image.Image) -> Tensor:
    """Into 20×20 pixels in the middle of 28×28, for comparison."""
    image = Image.new("L", (28, 28))
    image.paste(picture.resize((20, 20), Image.Resampling.BILINEAR), (4, 4))
    return torch.from_numpy(np.array(image))


def measure(
    name: str, make: Callable[[Image.Image], Tensor | None], items: list[Item], networks: list[TrainedNetwork]
) -> None:
    pictures = [picture for picture, _ in items]
    with ProcessPoolExecutor() as pool:
        images = list(tqdm(pool.map(make, pictures, chunksize=20), total=len(items), desc=name))
    unread_N = torch.tensor([image is None for image in images])
    images_NHW = torch.stack([torch.zeros(28, 28, dtype=torch.uint8) if image is None else image for image in images])
    report(name, images_NHW, torch.tensor([digit for _, digit in items]), networks, unread_N)


def report(name: str, images_NHW: Tensor, labels_N: Tensor, networks: list[TrainedNetwork], unread_N: Tensor) -> None:
    answers_RN = torch.stack([torch.cat(list(network.probabilities(images_NHW))).argmax(1) for network in networks])
    right_RN = ((answers_RN == labels_N) & ~unread_N).double()
    runs = " ".join(f"{100 * right:.2f}" for right in right_RN.mean(dim=1).tolist())
    digits = " ".join(f"{100 * right_RN[:, labels_N == digit].mean():.1f}" for digit in range(10))
    print(
        f"{name}: {100 * right_RN.mean():.2f} % right of {len(labels_N):,}, {int(unread_N.sum())} without a digit found"
    )
    print(f"  each network: {runs}\n  digits 0 to 9: {digits}", flush=True)


def as_tutorials_do(path: Path) -> Tensor:
    """Grey, inverted if it is bright, resized to 28×28."""
    with Image.open(path) as file:
        upright = ImageOps.exif_transpose(file).convert("RGBA")
    picture = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("L")
    if np.asarray(picture).mean() > 127:
        picture = ImageOps.invert(picture)
    return torch.from_numpy(np.array(picture.resize((28, 28), Image.Resampling.BILINEAR)))


def measure_real(folder: Path, listed: Path, networks: list[TrainedNetwork]) -> None:
    """Print how many pictures are right by kind, and those that any network reads wrong."""
    with listed.open(newline="") as file:
        every = [(row, folder / row["repository"] / row["path"]) for row in csv.DictReader(file)]
    rows = [(row, path) for row, path in every if path.is_file()]
    ours, warned, theirs = [], [], []
    for _, path in tqdm(rows, unit=" pictures"):
        try:
            image_HW, warning = read_picture(path)
        except UserError as error:
            image_HW, warning = torch.zeros(28, 28, dtype=torch.uint8), str(error)
        ours.append(image_HW)
        warned.append(warning)
        theirs.append(as_tutorials_do(path))
    answers_RN, theirs_RN = (
        np.array([torch.cat(list(net.probabilities(torch.stack(images)))).argmax(1).numpy() for net in networks])
        for images in (ours, theirs)
    )
    labels_N, kinds_N = (np.array([row[key] for row, _ in rows]) for key in ("label", "kind"))
    print(f"{len(rows)} of {len(every)} pictures of {listed} are in {folder}.")
    print("kind, pictures, with a warning; right of all networks: here, as tutorials do")
    digit_N = np.array([label.isdigit() for label in labels_N])
    right_RN, theirs_right_RN = answers_RN.astype(str) == labels_N, theirs_RN.astype(str) == labels_N
    for kind in [*sorted(set(kinds_N)), "all digits"]:
        of_kind_N = kinds_N == kind if kind != "all digits" else digit_N
        warnings = sum(bool(warned[place]) for place in np.flatnonzero(of_kind_N))
        shares = [
            f"{100 * right[:, of_kind_N].mean():.1f} %" if digit_N[of_kind_N].all() else "–"
            for right in (right_RN, theirs_right_RN)
        ]
        print(f"{kind:22}{of_kind_N.sum():5}{warnings:5}", *(f"{share:>9}" for share in shares))
    for place in np.flatnonzero(digit_N & ~right_RN.all(axis=0)):
        print(f"a {labels_N[place]} as {', '.join(map(str, answers_RN[:, place]))}: {rows[place][1]} {warned[place]}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=HOW_TO_GET_THE_PICTURES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoints", nargs="+", type=Path, help="each counts the same in the means")
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    parser.add_argument("--images", type=int, default=10_000, help="how many of the MNIST test images")
    parser.add_argument("--real", type=Path, metavar="FOLDER", help="measure real pictures instead, see below")
    parser.add_argument("--list", type=Path, default=Path("docs/real_digits.csv"), help="of the real pictures")
    args = parser.parse_args()
    networks = [TrainedNetwork(path) for path in args.checkpoints]
    if args.real:
        measure_real(args.real, args.list, networks)
        return
    images_NHW, labels_N = (values[: args.images] for values in read_mnist(args.data_dir, "t10k"))
    report(
        "MNIST test images as they are", images_NHW, labels_N, networks, torch.zeros(len(labels_N), dtype=torch.bool)
    )
    measure("the same, enlarged, inverted, on a page", read, enlarged_mnist(args.data_dir, args.images), networks)
    measure("twelve fonts", read, fonts(), networks)
    measure("mouse", read, mouse(), networks)
    measure("scikit-learn's digits", read, other_hands(), networks)
    measure("scikit-learn's digits, plainly resized", plainly_resized, other_hands(), networks)


if __name__ == "__main__":
    main()
