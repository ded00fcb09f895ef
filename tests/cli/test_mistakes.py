"""Mistakes of a user end in a line or two that say what to do, and change nothing on disk."""

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.conftest import SHORT, Refused, RunCLI, files

QUICK = (*SHORT, "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--data.batch_size=32")
DROPPED = object()  # an entry of a checkpoint that is left out


@pytest.fixture
def checkpoint(lenet5_run: Path, tmp_path: Path) -> Path:
    """last.ckpt in a copy of a run."""
    run = shutil.copytree(lenet5_run, tmp_path / "lightning_logs" / "lenet5" / "version_0")
    return Path(run, "checkpoints", "last.ckpt")


# --- Networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("FiveOutputs", "FiveOutputs has 5 outputs, but the data set has 10 classes."),
        ("MeanOfImages", "shape (N, 10), a row for each image; for 2 images it returned shape (10,)."),
        ("ImagesLast", "for 2 images it returned shape (10, 2)."),
        ("ReturnsTuple", "logits of shape (N, 10), a row for each image; for 2 images it returned tuple."),
        ("ReturnsIntegers", "for 2 images it returned torch.int64."),
        ("Detached", "The logits of Detached do not depend on its trainable parameters."),
        ("Frozen", "Frozen has no trainable parameters."),
        ("Lazy", "Lazy has lazy layers, whose sizes are not known yet."),
        ("ForgetsInitAndLayers", "ForgetsInitAndLayers.__init__ must call super().__init__(**kwargs)."),
        ("InitOfModule", "InitOfModule.__init__ must call super().__init__(**kwargs)."),
    ],
)
def test_a_network_with_a_mistake_is_not_trained(refused: Refused, network: str, message: str) -> None:
    assert message in refused("fit", f"--model=tests.mistaken.{network}", *QUICK)


@pytest.mark.parametrize("failing", ["FailsInOptimizers", "FailsInTraining", "FailingCallback", "FailsAfterTest"])
def test_an_exception_in_code_of_the_user_is_shown_as_python_shows_it(
    cli: RunCLI, tmp_path: Path, failing: str
) -> None:
    code = f"--model=tests.mistaken.{failing}"
    if failing == "FailingCallback":
        code = f"--model=LeNet5 --trainer.callbacks+=tests.mistaken.{failing}"
    with pytest.raises(KeyError, match="missing"):
        cli("fit", *code.split(), *QUICK)
    was_trained = failing == "FailsAfterTest"
    assert len(list(tmp_path.rglob("last.ckpt"))) == was_trained
    assert len(list(tmp_path.rglob("version_*"))) == was_trained  # no empty folder either


@pytest.fixture
def broken_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wrong_syntax.py").write_text("def f(:\n")
    (tmp_path / "wrong_import.py").write_text("import no_such_module\n")
    (tmp_path / "wrong_value.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


@pytest.mark.parametrize("command", ["fit", "test --ckpt_path x", "export --ckpt_path x", "compare folder"])
@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("wrong_syntax", "invalid syntax (wrong_syntax.py, line 1)"),
        ("wrong_import", "No module named 'no_such_module'"),
        ("wrong_value", "division by zero"),
    ],
)
def test_a_module_that_cannot_be_imported(
    refused: Refused, broken_modules: None, command: str, module: str, message: str
) -> None:
    said = refused(*command.split(), f"--model={module}.Net")
    assert f"{module}.Net is not a network" in said and message in said


# --- Checkpoints -----------------------------------------------------------------------------------------------------


def damaged(checkpoint: Path, path: str, value: Any) -> Path:
    """A copy of a checkpoint beside it, with another value for a key, or for a key inside the value of a key."""
    content = torch.load(checkpoint, weights_only=True)
    *outer, last = path.split("/")
    entry = content
    for key in outer:
        entry = entry[key]
    entry[last] = value
    if value is DROPPED:
        del entry[last]
    copy = checkpoint.with_name("copy.ckpt")
    torch.save(content, copy)
    return copy


WEIGHT = "state_dict/network.conv1.weight"
ALWAYS_READ = [
    ("hyper_parameters", [1], "is not a checkpoint of Lightning"),
    ("hyper_parameters", None, "is not a checkpoint of Lightning"),
    ("hyper_parameters/lr", [1], "lr"),
    ("hyper_parameters/more", 1, "does not accept option 'more'|Option 'more' is not accepted"),
    ("datamodule_hyper_parameters", [1], "is not a checkpoint of Lightning"),
    ("datamodule_hyper_parameters/classes", 3, "classes"),
    ("state_dict", None, "is not a checkpoint of Lightning"),
    (WEIGHT, DROPPED, "does not fit the current .*LeNet5: .*Missing key"),
    (WEIGHT, torch.zeros(3), "does not fit the current .*LeNet5: .*size mismatch"),
    (WEIGHT, None, "is not a checkpoint of Lightning"),
    ("pytorch-lightning_version", 2.0, "is not a checkpoint of Lightning"),
]
READ_TO_RESUME = [
    ("curves/loss/../../../../outside", {1: 0.5}, "outside, which is not a sub-run"),
    ("optimizer_states", [], "states of 0 optimisers and 0 .* but LeNet5 has 1 optimisers and 0 learning"),
    ("optimizer_states", [{}, {}], "states of 2 optimisers and 0 .* but LeNet5 has 1 optimisers and 0 learning"),
    ("lr_schedulers", [{}], "states of 1 optimisers and 1 .* but LeNet5 has 1 optimisers and 0 learning"),
]


@pytest.mark.parametrize(("path", "value", "message"), ALWAYS_READ)
@pytest.mark.parametrize("command", ["fit", "test", "predict --also", "export"])
def test_a_checkpoint_that_is_wrong_inside(
    refused: Refused, checkpoint: Path, command: str, path: str, value: Any, message: str
) -> None:
    copy = damaged(checkpoint, path, value)
    first = {"predict --also": f"--ckpt_path={checkpoint} --also={copy}"}.get(command, f"--ckpt_path={copy}")
    said = refused(command.split()[0], *first.split())
    assert str(copy) in said and re.search(message, said), said


@pytest.mark.parametrize(("path", "value", "message"), READ_TO_RESUME)
def test_a_checkpoint_that_cannot_be_continued(
    refused: Refused, checkpoint: Path, path: str, value: Any, message: str
) -> None:
    if "outside" in path:
        content = torch.load(checkpoint, weights_only=True)
        path, value = "curves/loss", content["curves"]["loss"] | {"../../../../outside": value}
    copy = damaged(checkpoint, path, value)
    said = refused("fit", f"--ckpt_path={copy}", "--trainer.max_epochs=2", *QUICK[1:4])
    assert re.search(message, said), said


@pytest.mark.parametrize("change", ["arguments", "layers"])
@pytest.mark.parametrize("command", ["test", "predict", "fit", "export"])
def test_a_network_whose_class_was_changed(
    cli: RunCLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, change: str
) -> None:
    network = "from tests.tiny import Tiny\nclass Mine(Tiny):\n"
    old = "    def __init__(self, size: int = 3, **kwargs):\n        super().__init__(width=size, **kwargs)\n"
    new = {"arguments": old.replace("size", "n"), "layers": old.replace("=size", "=size + 1")}[change]
    module = tmp_path / "mine.py"
    module.write_text(network + old)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    checkpoint = cli("fit", "--model=mine.Mine", *QUICK, "--trainer.limit_test_batches=2").run / "checkpoints/last.ckpt"
    module.write_text(network + new)
    monkeypatch.delitem(sys.modules, "mine")
    before = files(tmp_path)
    outcome = cli(command, "--model=mine.Mine", f"--ckpt_path={checkpoint}")
    assert outcome.code in (1, 2) and len(outcome.err.splitlines()) <= 3
    message = {"arguments": "option 'size'|Option 'size'|[Kk]ey \"size\"", "layers": "mine.Mine: .*size mismatch"}
    assert str(checkpoint) in outcome.err and re.search(message[change], outcome.err), outcome.err
    assert files(tmp_path) == before


# --- Configs and settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["fit --config", "test --config", "compare --train"])
@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", None])
def test_a_config_that_is_not_utf8(refused: Refused, tmp_path: Path, command: str, encoding: str | None) -> None:
    config = tmp_path / "config.yaml"
    config.write_bytes("model: LeNet5  # für Ziffern\n".encode(encoding) if encoding else bytes(range(256)))
    assert refused(*command.split(), str(config)).startswith(f"error: {config}: It is not a text file in UTF-8.")


def test_what_comes_later_on_the_command_line_wins(cli: RunCLI, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("trainer: {max_epochs: 7}\n")
    option, file = "--trainer.max_epochs=3", f"--config={config}"
    for order, epochs in (((option, file), 7), ((file, option), 3)):
        printed = yaml.safe_load(cli("fit", "--model=LeNet5", *order, "--print_config").out)
        assert printed["trainer"]["max_epochs"] == epochs


def test_a_second_config_overrides_the_first(cli: RunCLI, tmp_path: Path) -> None:
    for epochs in (7, 5):
        (tmp_path / f"{epochs}.yaml").write_text(f"trainer: {{max_epochs: {epochs}}}\n")
    for first, second in ((7, 5), (5, 7)):
        configs = [f"--config={tmp_path}/{epochs}.yaml" for epochs in (first, second)]
        printed = yaml.safe_load(cli("fit", "--model=LeNet5", *configs, "--print_config").out)
        assert printed["trainer"]["max_epochs"] == second


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("--trainer.logger=no.Logger", "--trainer.logger no.Logger is not valid"),
        ("--trainer.plugins=NoPlugin", "--trainer.plugins NoPlugin is not valid"),
        ("--trainer.plugins=AsyncCheckpointIO", "this package has a CheckpointIO of its own. Leave AsyncCheckpointIO"),
        ("--trainer.limit_train_batches=0", "--trainer.limit_train_batches is 0: there is nothing to fit."),
    ],
)
def test_settings_that_cannot_work(refused: Refused, settings: str, message: str) -> None:
    assert message in refused("fit", "--model=LeNet5", "--trainer.max_epochs=1", settings)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("test --ckpt_path {0} --trainer.limit_test_batches 0", "limit_test_batches is 0: there is nothing to test."),
        ("validate --ckpt_path {0} --trainer.limit_val_batches 0", "limit_val_batches is 0: there is nothing to"),
        ("predict --ckpt_path {0} --trainer.limit_predict_batches 0", "limit_predict_batches is 0: there is nothing"),
        ("predict --ckpt_path {0} --also {0}", "--also names a checkpoint twice."),
        ("predict --ckpt_path {0} --also {1}/x.ckpt {1}/x.ckpt", "--also names a checkpoint twice."),
        ("compare {1} --name ..", "--name '..' is not the name of a folder."),
        ("compare {1} --name a/b", "--name 'a/b' is not the name of a folder."),
    ],
)
def test_arguments_that_cannot_work(refused: Refused, checkpoint: Path, args: str, message: str) -> None:
    assert message in refused(*args.format(checkpoint, checkpoint.parent).split())
