"""What trained networks answer: gathered from all devices, printed, and written as CSV, JSON and a contact sheet."""

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning import Trainer
from torch import Tensor

from src import plots
from src.data import ImageFile, MNISTDataModule
from src.models import Classifier
from src.runs.folder import run_folder
from src.runs.network import TrainedNetwork
from src.system.errors import UserError
from src.system.files import replace_when_whole
from src.system.processes import gather_shares

Answer = dict[str, Any]  # digit, confidence, runner_up


def predict(
    trainer: Trainer,
    model: Classifier,
    datamodule: MNISTDataModule,
    ckpt_path: str,
    also: list[str],
    contact_sheet: str | None,
) -> None:
    """Let one network or several read the images of `datamodule`, and say where the answers lie.

    Args:
        trainer: Its devices share the work.
        model: The network of `ckpt_path`; its weights are loaded here.
        datamodule: With the settings of `ckpt_path`, and with the pictures, if any.
        ckpt_path: The first checkpoint. The answers are written to its run folder.
        also: Checkpoints of more networks.
        contact_sheet: File to draw the images in, with the answers.

    Raises:
        UserError: A checkpoint can't be used, or a picture could not be read (after all else is done).
    """
    if contact_sheet is not None:
        if datamodule.images is None:
            raise UserError("--contact_sheet shows pictures of your own: name them with --data.images.")
        sheet = Path(contact_sheet)
        if sheet.suffix.lower() not in (".png", ".jpg", ".pdf") or not sheet.parent.is_dir():
            raise UserError(f"--contact_sheet {contact_sheet}: name a .png, .jpg or .pdf in a folder that exists.")
    others = [TrainedNetwork(Path(path)) for path in also]
    for path, other in zip(also, others, strict=True):
        if other.datamodule.classes != datamodule.classes:
            raise UserError(f"{path} tells other classes apart than {ckpt_path}.")
    shares: list[Any] = [trainer.predict(model, datamodule=datamodule, ckpt_path=ckpt_path)]
    for other in others:
        other.datamodule.data_dir = datamodule.data_dir
        other.datamodule.images, other.datamodule.files = datamodule.images, datamodule.files
        shares.append(trainer.predict(other.network, datamodule=other.datamodule))
    names: Sequence[int | str] = range(10) if datamodule.is_mnist else datamodule.classes
    answers = [_answers(gather_shares(share or []), names) for share in shares]
    if trainer.is_global_zero:
        _tell(_names([ckpt_path, *also]), answers, datamodule.files, run_folder(Path(ckpt_path)), contact_sheet)


def _answers(probabilities_NK: Tensor, names: Sequence[int | str]) -> list[Answer]:
    confidence_N2, digits_N2 = probabilities_NK.float().topk(2, dim=1)
    return [
        {"digit": names[digit], "confidence": confidence, "runner_up": names[runner_up]}
        for (digit, runner_up), (confidence, _) in zip(digits_N2.tolist(), confidence_N2.tolist(), strict=True)
    ]


def _names(checkpoints: list[str]) -> dict[str, str]:
    """A short name for each checkpoint, as "lenet5/version_0"; its path where that is not enough."""
    runs = ["/".join(run_folder(Path(checkpoint)).parts[-2:]) for checkpoint in checkpoints]
    return dict(zip(runs if len(set(runs)) == len(runs) else checkpoints, checkpoints, strict=True))


def _tell(
    networks: dict[str, str],
    answers: list[list[Answer]],
    files: list[ImageFile],
    folder: Path,
    contact_sheet: str | None,
) -> None:
    of_images = [dict(zip(networks, answers_of_image, strict=True)) for answers_of_image in zip(*answers, strict=True)]
    rows: list[dict[str, Any]]
    if files:
        waiting = iter(of_images)
        rows = [
            {"file": printable(file.path), "answers": {} if file.error else next(waiting, {}), "error": file.error}
            for file in files
        ]
        for row in rows:
            if not row["answers"] and not row["error"]:
                row["error"] = "Left out by --trainer.limit_predict_batches."
        print("\n".join(_table(list(networks), rows)))
    else:
        rows = [{"image": number, "answers": row, "error": ""} for number, row in enumerate(of_images)]
    table, data = folder / "predictions.csv", folder / "predictions.json"
    with replace_when_whole(table) as file:
        file.write(_as_csv(list(networks), rows).encode())
    with replace_when_whole(data) as file:
        file.write(f"{json.dumps({'checkpoints': networks, 'predictions': rows}, indent=1)}\n".encode())
    if contact_sheet is not None and of_images:
        images = [file.image_HW for file in files if file.image_HW is not None]
        _draw_contact_sheet(images[: len(of_images)], [row for row in rows if row["answers"]], Path(contact_sheet))
        print(f"Contact sheet: {contact_sheet}")
    print(f"{len(of_images):,} predictions: {table} and {data.name}")
    if failed := sum(bool(row["error"]) for row in rows):
        raise UserError(f"{failed} of {len(rows)} could not be predicted; the table says why.")


def _draw_contact_sheet(images: list[Tensor], rows: list[dict[str, Any]], path: Path) -> None:
    """Draw each image as the networks got it, with the end of its file's name and their answers."""
    tiles = []
    for image_HW, row in zip(images, rows, strict=True):
        name = row["file"] if len(row["file"]) <= 18 else f"…{row['file'][-17:]}"
        answers = [(str(answer["digit"]), answer["confidence"]) for answer in row["answers"].values()]
        tiles.append(plots.Tile(image_HW, name, answers))
    columns = min(8, len(tiles))
    sheet = plots.digit_sheet(tiles, list(rows[0]["answers"]), columns=columns, tile_width=1.5, colormap="gray")
    with replace_when_whole(path) as file:
        sheet.savefig(file, format=path.suffix[1:].lower(), dpi=100)


def _table(networks: list[str], rows: list[dict[str, Any]]) -> Iterator[str]:
    width = max(len(row["file"]) for row in rows)
    if len(networks) > 1:
        yield f"{'':{width}}" + "".join(f"  {name:>30}" for name in networks)
    yield f"{'file':{width}}" + "  digit  confidence  runner-up".rjust(32) * len(networks)
    for row in rows:
        cells = (
            f"{answer['digit']:>10}  {answer['confidence']:>10.2%}  {answer['runner_up']:>9}"
            for answer in row["answers"].values()
        )
        yield f"{row['file']:{width}}" + ("".join(cells) or f"  {row['error']}")


def _as_csv(networks: list[str], rows: list[dict[str, Any]]) -> str:
    """One line for each image; with several networks the columns of each begin with its name."""
    columns = [(name, key) for name in networks for key in ("digit", "confidence", "runner_up")]
    header = [f"{name} {key}" if len(networks) > 1 else key for name, key in columns]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    of_files = "file" in rows[0]
    writer.writerow(["file", *header, "error"] if of_files else ["image", *header])
    for row in rows:
        values = [row["answers"].get(name, {}).get(key, "") for name, key in columns]
        values = [f"{value:.6f}" if isinstance(value, float) else value for value in values]
        writer.writerow([row["file"], *values, row["error"]] if of_files else [row["image"], *values])
    return text.getvalue()


def printable(path: Path) -> str:
    """A file name that no terminal, CSV or JSON stumbles over: control characters and stray bytes become escapes."""
    text = os.fsencode(path).decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
