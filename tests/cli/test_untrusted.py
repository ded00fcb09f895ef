"""Files of a stranger are data: no command runs what they ask for, or imports what they name."""

import json
import shutil
import sys
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from tests.conftest import SHORT, RunCLI, train


class Malice:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.fixture
def run(lenet5_run: Path, tmp_path: Path) -> Path:
    """A copy of a run."""
    return Path(shutil.copytree(lenet5_run, tmp_path / "lightning_logs" / "lenet5" / "version_0"))


def change(run: Path, **entries: object) -> Path:
    checkpoint = run / "checkpoints" / "last.ckpt"
    torch.save(torch.load(checkpoint, weights_only=True) | entries, checkpoint)
    return checkpoint


@pytest.mark.parametrize(
    "command", ["fit --ckpt_path", "validate --ckpt_path", "test --ckpt_path", "predict --ckpt_path"]
)
def test_nothing_in_a_checkpoint_is_run(cli: RunCLI, run: Path, tmp_path: Path, command: str) -> None:
    checkpoint = change(run, malice=Malice(tmp_path / "ran"))
    outcome = cli(*command.split(), str(checkpoint))
    assert outcome.code == 1
    refused = "contains more than plain data. It was refused, and nothing in it was executed."
    assert outcome.err == f"error: The checkpoint {checkpoint} {refused}\n"
    assert not (tmp_path / "ran").exists()
    torch.load(checkpoint, weights_only=False)
    assert (tmp_path / "ran").exists()  # so the file was a real threat


@pytest.mark.parametrize("resume", ["auto", "{run}"])
def test_nothing_is_run_to_resume(cli: RunCLI, run: Path, tmp_path: Path, resume: str) -> None:
    (run / "results.json").unlink()
    change(run, malice=Malice(tmp_path / "ran"))
    config = [f"--config={run / 'config.yaml'}"] if resume == "auto" else []
    outcome = cli("fit", *config, f"--resume={resume.format(run=run)}")
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "ran").exists()


def test_nothing_is_run_to_compare(cli: RunCLI, run: Path, tmp_path: Path) -> None:
    change(run, malice=Malice(tmp_path / "ran"))
    other = Path(shutil.copytree(run, tmp_path / "other" / "version_0"))
    config = other / "config.yaml"
    config.write_text(config.read_text().replace("max_epochs: 1", "max_epochs: 2"))  # another recipe
    outcome = cli("compare", str(run), str(other), "--output", str(tmp_path / "new"))
    assert outcome.code == 1
    for folder in (run, other):
        checkpoint = folder / "checkpoints" / "last.ckpt"
        assert f"Left out: {folder}: The checkpoint {checkpoint} contains more than plain data" in outcome.err
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("command", ["test", "predict", "validate", "fit"])
@pytest.mark.parametrize("depth", ["itself", "an argument"])
def test_a_class_path_in_a_checkpoint_imports_nothing(
    cli: RunCLI, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, depth: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stranger.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Net: pass\n")
    path = "stranger.Net"
    arguments = (
        {"_class_path": path} if depth == "itself" else {"_class_path": "src.models.LeNet5", "lr": {"class_path": path}}
    )
    checkpoint = change(run, hyper_parameters=arguments)
    outcome = cli(command, f"--ckpt_path={checkpoint}")
    assert outcome.code == 1
    assert path in outcome.err
    assert "stranger" not in sys.modules
    assert not (tmp_path / "ran").exists()


def plant(folder: Path, **settings: Any) -> Path:
    """An unfinished run whose config.yaml, and nothing else, has these settings."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for name, value in settings.items():
        section, _, key = name.partition("__")
        config[section] = config[section] | {key: value} if key else value
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "results.json").unlink()
    return folder


@pytest.mark.parametrize(
    "settings",
    [
        {"model": {"class_path": "stranger.Net"}},
        {"model": "stranger.Net"},
        {"model": {"class_path": "tests.tiny.WithParts", "init_args": {"activation": "stranger.Net"}}},
        {"model": {"class_path": "tests.tiny.WithParts", "init_args": {"layer": {"class_path": "stranger.Net"}}}},
        {"trainer__callbacks": "stranger.Net"},
        {"trainer__callbacks": [{"class_path": "stranger.Net"}]},
        {
            "trainer__callbacks": [
                {"class_path": "EarlyStopping", "init_args": {"monitor": {"class_path": "stranger.A"}}}
            ]
        },
        {"trainer__callbacks": [{"class_path": "LambdaCallback", "init_args": {"setup": "stranger.function"}}]},
        {"trainer__callbacks": [{"class_path": "lightning.pytorch.callbacks.LambdaCallback", "init_args": {}}]},
        {"trainer__callbacks": '[{"class_path": "LambdaCallback", "init_args": {"setup": "stranger.function"}}]'},
        {"trainer__logger": {"class_path": "stranger.Logger"}},
        {"trainer__plugins": ["stranger.Plugin"]},
        {"trainer__profiler": {"class_path": "stranger.Profiler"}},
        {"trainer__strategy": {"class_path": "stranger.Strategy"}},
    ],
)
def test_a_config_of_a_stranger_imports_and_calls_nothing(
    cli: RunCLI, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stranger.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef function(*args): pass\n")
    outcome = cli("fit", f"--resume={plant(run, **settings)}")
    assert outcome.code == 1
    assert f"{run / 'config.yaml'} names " in outcome.err and "which would be imported" in outcome.err
    assert "stranger" not in sys.modules
    assert not (tmp_path / "ran").exists()


def test_classes_of_lightning_and_classes_named_again_are_resumed(
    cli: RunCLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECORD", str(tmp_path))
    (tmp_path / "own.yaml").write_text("trainer: {callbacks: [{class_path: tests.recorder.Recorder}]}\n")
    settings = (*SHORT, "--trainer.limit_test_batches=2")
    stopping = ("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val_loss")
    for own in ((), (f"--config={tmp_path / 'own.yaml'}",)):
        folder = cli("fit", "--model=LeNet5", *settings, *own, *stopping).run
        (folder / "results.json").unlink()
        again = cli("fit", "--model=LeNet5", *settings, *own, *stopping, "--resume=auto")
        assert (again.code, again.run) == (0, folder), again.err
        (folder / "results.json").unlink()
        if own:
            refused = cli("fit", f"--resume={folder}")
            assert "names tests.recorder.Recorder" in refused.err
            trusting = f"fit --config {folder / 'config.yaml'} --resume {folder}"
            assert f"If you trust it: python -m src {trusting}\n" in refused.err
        named = cli(*(trusting.split() if own else ("fit", f"--resume={folder}")))
        assert (named.code, named.run) == (0, folder), named.err


def test_a_config_without_a_trainer_is_not_resumed(cli: RunCLI, run: Path) -> None:
    outcome = cli("fit", f"--resume={plant(run, trainer=None)}")
    assert outcome.code == 1
    assert "it has no settings of the trainer" in outcome.err


def test_a_tag_in_a_config_makes_no_object(cli: RunCLI, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"model: LeNet5\nseed_everything: !!python/object/apply:os.mkdir [{tmp_path / 'ran'}]\n")
    outcome = cli("fit", f"--config={config}")
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "ran").exists()
    yaml.unsafe_load(config.read_text())
    assert (tmp_path / "ran").exists()  # so the tag was a real threat


def test_a_checkpoint_of_a_newer_version_is_refused(cli: RunCLI, run: Path) -> None:
    checkpoint = change(run, **{"pytorch-lightning_version": "99.1.0"})
    outcome = cli("test", f"--ckpt_path={checkpoint}")
    assert outcome.code == 1
    assert f"{checkpoint} was written by lightning 99.1.0, newer than" in outcome.err


HIDDEN: list[Any] = [
    "stranger.Net",
    " stranger.Net",
    {"class_path": "stranger.Net"},
    '{"class_path": "stranger.Net"}',
    "class_path: stranger.Net",
    "{folder}/layer.yaml",
    {"class_path": "torch.nn.Sequential", "init_args": {"args": ["stranger.Net"]}},
    "this.Net",  # a module of the standard library, which prints a poem
    '{"class_path": "this.Net"}',
    '{"class_path": "torchvision.models.resnet18"}',  # a function that is imported already
    "{folder}/standard.yaml",
    "{folder}/called.yaml",
]


@pytest.mark.parametrize(
    ("command", "argument", "hidden"),
    [
        *product(("test", "export", "--resume"), ("activation", "layer"), HIDDEN),
        *product(("fit", "predict --also"), ("activation",), HIDDEN[:1]),  # they read it as test and export do
    ],
)
def test_no_argument_of_a_network_is_imported(
    cli: RunCLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: Path, command: str, argument: str, hidden: Any
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom torch import nn\nclass Net(nn.ReLU): pass\n"
    (tmp_path / "stranger.py").write_text(code)
    files = {"layer": "stranger.Net", "standard": "this.Net", "called": "torchvision.models.resnet18"}
    for name, class_path in files.items():
        (tmp_path / f"{name}.yaml").write_text(f"class_path: {class_path}\n")

    def called() -> nn.Module:
        (tmp_path / "ran").touch()
        return nn.Linear(16, 10)

    monkeypatch.setattr("torchvision.models.resnet18", called)
    monkeypatch.delitem(sys.modules, "this", raising=False)
    value = hidden.format(folder=tmp_path) if isinstance(hidden, str) and "{f" in hidden else hidden
    run = Path(shutil.copytree(parts, tmp_path / "lightning_logs" / "withparts" / "version_0"))
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["hyper_parameters"]
    if command == "--resume":
        init_args = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"] | {argument: value}
        outcome = cli("fit", f"--resume={plant(run, model__init_args=init_args)}")
    else:
        checkpoint = change(run, hyper_parameters=saved | {argument: value})
        first = f"--ckpt_path={parts / 'checkpoints' / 'last.ckpt'} --also=" if "also" in command else "--ckpt_path="
        outcome = cli(command.split()[0], *f"{first}{checkpoint}".split())
    assert outcome.code in (1, 2) and "Traceback" not in outcome.err and len(outcome.err.splitlines()) <= 3
    assert "stranger" not in sys.modules and "this" not in sys.modules
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("named", ["stranger.Net", "{folder}/layer.yaml"])
def test_a_class_that_the_user_names_is_imported(
    cli: RunCLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """So the names above are a real threat."""
    monkeypatch.syspath_prepend(tmp_path)
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom torch import nn\nclass Net(nn.Linear): pass\n"
    (tmp_path / "stranger.py").write_text(code)
    (tmp_path / "layer.yaml").write_text("class_path: stranger.Net\ninit_args: {in_features: 16, out_features: 10}\n")
    try:
        option = "activation" if named == "stranger.Net" else "layer"
        with suppress(ValueError):  # the layer is built without its sizes
            cli("fit", "--model=tests.tiny.WithParts", f"--model.{option}={named.format(folder=tmp_path)}", *SHORT)
        assert (tmp_path / "ran").exists()
    finally:
        sys.modules.pop("stranger", None)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a network that was given a class and an instance."""
    folder = tmp_path_factory.mktemp("parts")
    layer = ("--model.layer=torch.nn.Linear", "--model.layer.in_features=16", "--model.layer.out_features=10")
    train(folder, "--model=tests.tiny.WithParts", "--model.activation=torch.nn.Tanh", *layer, *SHORT)
    return folder / "lightning_logs" / "withparts" / "version_0"


def test_a_network_with_a_class_and_an_instance_is_used_by_every_command(
    cli: RunCLI, tmp_path: Path, parts: Path
) -> None:
    run = Path(shutil.copytree(parts, tmp_path / "lightning_logs" / "withparts" / "version_0"))
    checkpoint = run / "checkpoints" / "last.ckpt"
    errors = json.loads((run / "results.json").read_text())["test"]["errors"]
    for command in ("test", "validate", "predict", "export"):
        outcome = cli(command, f"--ckpt_path={checkpoint}")
        assert outcome.code == 0, outcome.err
        assert command != "test" or f"({errors:,} errors in 10,000 images)" in outcome.out
    both = cli("predict", f"--ckpt_path={parts / 'checkpoints' / 'last.ckpt'}", f"--also={checkpoint}")
    assert both.code == 0, both.err
    other = cli("test", "--model=tests.tiny.WithParts", "--model.activation=torch.nn.ReLU", f"--ckpt_path={checkpoint}")
    assert "--model.activation torch.nn.ReLU contradicts" in other.err and "made with torch.nn.Tanh" in other.err
    more = cli("fit", f"--ckpt_path={checkpoint}", *SHORT[1:], "--trainer.max_epochs=2")
    assert more.code == 0, more.err
    (run / "results.json").unlink()
    resumed = cli("fit", f"--config={run / 'config.yaml'}", f"--resume={run}")
    assert (resumed.code, resumed.run) == (0, run), resumed.err
