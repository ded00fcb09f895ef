"""Predictions of trained networks: printed, and written as CSV, as JSON and as a contact sheet."""

import csv
import io
import os
from pathlib import Path
from typing import Any

from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from src import plots
from src.data import GlobalBatches, ImageFile, MNISTDataModule, names_of_classes
from src.runs.folder import run_folder
from src.runs.network import TrainedNetwork
from src.system.errors import UserError
from src.system.files import replace_when_whole, write_json, write_whole
from src.system.processes import gather_shares

Answer = dict[str, Any]  # digit, confidence, runner_up
Row = dict[str, Any]  # file or image (its number), answers (network → Answer), error; warning, if it is a file


def predict(
    trainer: Trainer,
    model: LightningModule,
    datamodule: Any,
    ckpt_path: str,
    also: list[str],
    images: list[str] | None,
    contact_sheet: str | None,
    measuring: Any,
) -> None:
    """Predict the images of `datamodule` with one or more networks, and write the answers to the first run folder.

    Args:
        trainer: Its devices share the work.
        model: The network of `ckpt_path`, whose weights are loaded here.
        datamodule: With the data settings of `ckpt_path`.
        ckpt_path: The first checkpoint.
        also: More checkpoints.
        images: Files, folders or globs of pictures to predict instead of the test images.
        contact_sheet: File for a drawing of the images with their answers.
        measuring: The `Measuring` of `trainer`.

    Raises:
        UserError: A checkpoint can't be used; or, after all other images are predicted, a picture can't be read.
    """
    if contact_sheet is not None:
        _check_contact_sheet(Path(contact_sheet), images)
    if len(set(paths := [Path(path).resolve() for path in (ckpt_path, *also)])) < len(paths):
        raise UserError("--also names a checkpoint twice.")
    others = [TrainedNetwork(Path(path), named_data=_class_path(datamodule)) for path in also]
    for path, other in zip(also, others, strict=True):
        if getattr(other.datamodule, "classes", None) != getattr(datamodule, "classes", None):
            raise UserError(f"{path} has other classes than {ckpt_path}.")
    is_mnist = isinstance(datamodule, MNISTDataModule)
    if is_mnist:
        datamodule.images = images
    elif images is not None:
        raise UserError(f"Pictures are read as MNIST's digits were, and this does not fit {_class_path(datamodule)}.")
    shares: list[Any] = [_logits(trainer, measuring, model, datamodule, ckpt_path)]
    files = datamodule.files if is_mnist else []
    for other in others:
        if is_mnist:
            other.datamodule.data_dir = datamodule.data_dir
            other.datamodule.images, other.datamodule.files = images, files
        shares.append(_logits(trainer, measuring, other.network, other.datamodule))
    answers = [_answers(logits_NK.float().softmax(dim=1), datamodule) for logits_NK in shares]
    if trainer.is_global_zero:
        networks = short_names([ckpt_path, *also])
        _write(networks, _rows(list(networks), answers, files), files, contact_sheet)


def _check_contact_sheet(path: Path, images: list[str] | None) -> None:
    if images is None:
        raise UserError("--contact_sheet shows pictures of your own: name them with --data.images.")
    if path.suffix.lower() not in (".png", ".jpg", ".pdf") or not path.parent.is_dir():
        raise UserError(f"--contact_sheet {path}: name a .png, .jpg or .pdf in a folder that exists.")


def _class_path(data: Any) -> str:
    return (
        "src.data.MNISTDataModule"
        if type(data) is MNISTDataModule
        else f"{type(data).__module__}.{type(data).__name__}"
    )


def _logits(
    trainer: Trainer, measuring: Any, network: LightningModule, data: Any, ckpt_path: str | None = None
) -> Tensor:
    """What `forward` returns for all images in their order, whatever the network's own `predict_step` returns."""

    def predict_step(batch: Any, batch_idx: int) -> Tensor:
        x = batch[0] if isinstance(batch, tuple | list) else batch
        return network(x.to(network.dtype) if isinstance(x, Tensor) and x.is_floating_point() else x)

    if is_overridden("predict_dataloader", data, LightningDataModule):
        network.predict_step = predict_step  # type: ignore[method-assign]
        shares: Any = trainer.predict(network, datamodule=data, ckpt_path=ckpt_path)
        return gather_shares(shares or [], interleaved=not isinstance(trainer.predict_dataloaders, GlobalBatches))
    network.test_step = predict_step  # type: ignore[method-assign]
    trainer.test(network, datamodule=data, ckpt_path=ckpt_path, verbose=False)
    return measuring.test_logits_NK


def _answers(probabilities_NK: Tensor, data: Any) -> list[Answer]:
    names: list[Any] = names_of_classes(data, probabilities_NK.shape[1])
    if isinstance(data, MNISTDataModule) and data.is_mnist:
        names = [int(name) for name in names]
    confidence_N2, digits_N2 = probabilities_NK.float().topk(2, dim=1)
    return [
        {"digit": names[digit], "confidence": confidence, "runner_up": names[runner_up]}
        for (digit, runner_up), (confidence, _) in zip(digits_N2.tolist(), confidence_N2.tolist(), strict=True)
    ]


def short_names(checkpoints: list[str]) -> dict[str, str]:
    """Map short names, such as "lenet5/version_0", to the checkpoints. If two are equal, the names are the paths."""
    runs = ["/".join(run_folder(Path(checkpoint)).parts[-2:]) for checkpoint in checkpoints]
    return dict(zip(runs if len(set(runs)) == len(runs) else checkpoints, checkpoints, strict=True))


def _rows(networks: list[str], answers: list[list[Answer]], files: list[ImageFile]) -> list[Row]:
    """Return one row for each file, or without files for each test image."""
    by_image = [dict(zip(networks, answers_of_image, strict=True)) for answers_of_image in zip(*answers, strict=True)]
    if not files:
        return [{"image": number, "answers": answers, "error": ""} for number, answers in enumerate(by_image)]
    rows: list[Row] = []
    remaining = iter(by_image)
    for file in files:
        answers_of_file = {} if file.error else next(remaining, {})
        omitted = "" if answers_of_file else "Omitted because of --trainer.limit_predict_batches."
        row = {"file": printable(file.path), "answers": answers_of_file, "warning": file.warning}
        rows.append(row | {"error": file.error or omitted})
    return rows


def _write(networks: dict[str, str], rows: list[Row], files: list[ImageFile], contact_sheet: str | None) -> None:
    """Write the files and print where they are, and for pictures the answers too."""
    folder = run_folder(Path(next(iter(networks.values()))))
    table, data = folder / "predictions.csv", folder / "predictions.json"
    write_whole(table, _as_csv(list(networks), rows).encode())
    write_json(data, {"checkpoints": networks, "predictions": rows})
    if files:
        _print_table(list(networks), rows)
    predicted = [row for row in rows if row["answers"]]
    if contact_sheet is not None and predicted:
        images = [file.image_HW for file in files if file.image_HW is not None]
        _draw_contact_sheet(images[: len(predicted)], predicted, Path(contact_sheet))
        print(f"Contact sheet: {contact_sheet}")
    print(f"{len(predicted):,} predictions: {table} and {data.name}")
    if failed := sum(bool(row["error"]) for row in rows):
        raise UserError(f"{failed} of {len(rows)} could not be predicted; the table gives the reasons.")


def _draw_contact_sheet(images: list[Tensor], rows: list[Row], path: Path) -> None:
    """Draw each image as the networks get it, with the end of its file name and the answers."""
    tiles = []
    for image_HW, row in zip(images, rows, strict=True):
        name = row["file"] if len(row["file"]) <= 18 else f"…{row['file'][-17:]}"
        answers = [(str(answer["digit"]), answer["confidence"]) for answer in row["answers"].values()]
        tiles.append(plots.Tile(image_HW, name, answers))
    columns = min(8, len(tiles))
    sheet = plots.digit_sheet(tiles, list(rows[0]["answers"]), columns=columns, tile_width=1.5, colormap="gray")
    with replace_when_whole(path) as file:
        sheet.savefig(file, format=path.suffix[1:].lower(), dpi=100)


def _print_table(networks: list[str], rows: list[Row]) -> None:
    width = max(len(row["file"]) for row in rows)
    if len(networks) > 1:
        print(" " * width + "".join(f"  {name:>30}" for name in networks))
    print("file".ljust(width) + "  digit  confidence  runner-up".rjust(32) * len(networks))
    for row in rows:
        cells = (
            f"{answer['digit']:>10}  {answer['confidence']:>10.2%}  {answer['runner_up']:>9}"
            for answer in row["answers"].values()
        )
        print((row["file"].ljust(width) + ("".join(cells) or f"  {row['error']}") + f"  {row['warning']}").rstrip())


def _as_csv(networks: list[str], rows: list[Row]) -> str:
    """Return a line for each image. With several networks, the name of the network is part of the column names."""
    columns = [(name, field) for name in networks for field in ("digit", "confidence", "runner_up")]
    header = [f"{name} {field}" if len(networks) > 1 else field for name, field in columns]
    key, *last = ("file", "warning", "error") if "file" in rows[0] else ("image",)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([key, *header, *last])
    for row in rows:
        cells = [row["answers"].get(name, {}).get(field, "") for name, field in columns]
        rounded = [f"{cell:.6f}" if isinstance(cell, float) else cell for cell in cells]
        writer.writerow([row[key], *rounded, *(row[name] for name in last)])
    return text.getvalue()


def printable(path: Path) -> str:
    """Return a file name without control characters and undecodable bytes, which become escape sequences."""
    text = os.fsencode(path).decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
