"""The page of `demo`: draw a digit, and see what each network answers while you draw."""

import base64
import io
import re
import threading
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader
from jsonargparse.typing import PositiveInt
from PIL import Image
from torch import Tensor, nn
from torchvision.utils import make_grid

from src.data import MNISTDataModule
from src.data.pictures import read_picture
from src.inference.predictions import short_names
from src.runs.folder import find_runs
from src.runs.network import TrainedNetwork, import_class
from src.system.errors import UserError
from src.system.signals import Interrupted

TEMPLATES = Environment(loader=PackageLoader("src.inference", "."), autoescape=True, trim_blocks=True)


def newest_checkpoints(folder: Path = Path("lightning_logs")) -> list[Path]:
    """The last weights of the newest finished run of each network. Raises a `UserError` if there is no such run."""
    newest = {run.folder.parent: run.checkpoint for run in find_runs(folder) if run.is_finished}
    if not newest:
        raise UserError(f"There is no finished run in {folder}. Train one: make lenet5")
    return list(newest.values())


def demo(
    ckpt_path: Path | None = None,
    also: list[Path] | None = None,
    port: PositiveInt | None = None,
    drawings: Path = Path("drawings"),
    model: list[str] | None = None,
) -> None:
    """Show a page on which you draw digits for one or more networks.

    Args:
        ckpt_path: A checkpoint. Default: the newest finished run of each network in lightning_logs.
        also: More checkpoints.
        port: Port of the page. Default: the first free one from 7860 on.
        drawings: Folder for pictures that were read wrong.
        model: Your own network classes (module.Class) that appear in the checkpoints.

    Raises:
        UserError: The port is taken, or a checkpoint can't be used.
    """
    import gradio  # noqa: F401

    for class_path in model or []:
        import_class(class_path)
    if ckpt_path is None and also:
        raise UserError(
            "Name a checkpoint before --also: --ckpt_path lightning_logs/lenet5/version_0/checkpoints/last.ckpt"
        )
    checkpoints = newest_checkpoints() if ckpt_path is None else [ckpt_path, *(also or [])]
    try:
        show(checkpoints, port, drawings)
    except Interrupted:
        print("The demo has ended.")


def show(checkpoints: Sequence[Path], port: int | None, drawings: Path) -> None:
    """Show the page to this machine alone, until the process gets a signal. For the arguments, see `demo`."""
    import gradio

    networks = {name: TrainedNetwork(Path(path)) for name, path in short_names([*map(str, checkpoints)]).items()}
    for name, network in networks.items():
        if not isinstance(network.datamodule, MNISTDataModule) or network.datamodule.shape != (1, 28, 28):
            raise UserError(f"{name} takes other images than grey ones of 28×28 pixels. The demo draws no others.")
    page = _page(networks, drawings)
    for name, network in networks.items():
        _answer(name, network, torch.zeros(28, 28))  # the first answer takes longer
    theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # others are on the web
    options: Any = {"theme": theme, "footer_links": [], "ssr_mode": False, "max_file_size": "100mb", "quiet": True}
    try:
        page.launch(server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, **options)
    except OSError:
        raise UserError(f"Port {port or '7860 to 7959'} is taken. Choose another --port.") from None
    print(f"Draw digits at {page.local_url} (Ctrl-C ends the demo).", flush=True)
    try:
        threading.Event().wait()
    finally:
        page.close(verbose=False)


def _page(networks: dict[str, TrainedNetwork], drawings: Path) -> Any:
    """Lay out the page, a `gradio.Blocks`, and connect its events."""
    import gradio

    def drawn(event: gradio.EventData) -> tuple[bytes | None, str]:
        return answer(base64.b64decode(event.picture.partition(",")[2]), networks)

    def keep(picture: bytes | None, label: str | None) -> str:
        if picture is None or label is None:
            return "Draw a digit and choose the right answer first."
        try:
            return f"Saved as {keep_picture(picture, label, drawings)}"
        except OSError as error:  # for example, a full disk
            return f"Not saved: {error.strerror}."

    classes = next(iter(networks.values())).datamodule.classes
    start = _render(problem="Draw a digit, or drop a picture of one.")
    with gradio.Blocks(title="Draw a digit", analytics_enabled=False) as page:
        picture = gradio.State()  # the content of its file, if a digit was found in it
        gradio.Markdown("# Draw a digit")
        with gradio.Row():
            with gradio.Column(min_width=300):
                canvas = gradio.HTML(html_template=_file("canvas.html"), js_on_load=_file("canvas.js"))
            with gradio.Column(min_width=300, scale=2):
                answers = gradio.HTML(start, apply_default_css=False)
        with gradio.Row():
            with gradio.Column(min_width=300):
                file = gradio.File(label="Or drop a picture of a digit", height=140)
            with gradio.Column(min_width=300, scale=2):
                label = gradio.Radio(classes, label="Read wrong? The right answer is")
                wrong = gradio.Button("Save as wrong")
                saved = gradio.Markdown()
        # The networks classify one picture at a time.
        options: Any = {"outputs": [picture, answers], "show_progress": "hidden", "concurrency_id": "networks"}
        canvas.input(drawn, **options)
        canvas.clear(lambda: (None, start), **options)
        file.upload(lambda path: answer(Path(path).read_bytes(), networks), file, **options)
        wrong.click(keep, [picture, label], saved)
    return page


def answer(picture: bytes, networks: dict[str, TrainedNetwork]) -> tuple[bytes | None, str]:
    """Classify a picture, given as the content of its file.

    Returns:
        The picture, or None if it can't be used; and HTML that shows what the networks see and answer, or why not.
    """
    try:
        image_HW, warning = read_picture(io.BytesIO(picture))
    except UserError as error:
        return None, _render(problem=str(error))
    answers = [_answer(name, network, image_HW) for name, network in networks.items()]
    return picture, _render(seen=_as_source(image_HW), answers=answers, warning=warning)


def _render(**values: Any) -> str:
    return TEMPLATES.get_template("demo.html.jinja").render(values)


def _answer(name: str, trained: TrainedNetwork, image_HW: Tensor) -> dict[str, Any]:
    """Return the name and the probability of each class, and a picture of what the first convolution answers."""
    maps: list[Tensor] = []
    first = next((layer for layer in trained.network.modules() if isinstance(layer, nn.Conv2d)), None)
    hook = first and first.register_forward_hook(lambda layer, inputs, output: maps.append(output[0]))
    [probabilities_1K] = trained.probabilities(image_HW[None])
    if hook:
        hook.remove()
    answer = {"name": name, "classes": zip(trained.datamodule.classes, probabilities_1K[0].tolist(), strict=True)}
    if not maps:
        return answer
    tiles = make_grid(maps[0].relu()[:, None], nrow=8, padding=1, normalize=True, scale_each=True, pad_value=0.5)
    return answer | {
        "layer": f"Output of the first convolution: {len(maps[0])} filters",
        "maps": _as_source(tiles[0] * 255),
    }


def keep_picture(picture: bytes, label: str, folder: Path) -> Path:
    """Save a picture under a new name that begins with its label, and return the name."""
    folder.mkdir(parents=True, exist_ok=True)
    with Image.open(io.BytesIO(picture)) as image:
        suffix = str(image.format).lower()
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
    name = re.sub(r"[^\w-]", "_", label)
    path = folder / f"{name}_{now}.{suffix}"
    path.write_bytes(picture)
    return path


def _as_source(image_HW: Tensor) -> str:
    """Return grey values 0…255 as the source of an HTML image."""
    file = io.BytesIO()
    Image.fromarray(image_HW.to(torch.uint8).numpy()).save(file, "png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _file(name: str) -> str:
    return Path(__file__).with_name(name).read_text()
