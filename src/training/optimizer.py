"""The optimiser and the schedule of the command line: ``--optimizer`` and ``--lr_scheduler``."""

import inspect
from typing import Any

from jsonargparse import Namespace
from lightning import LightningModule
from lightning.pytorch.cli import ReduceLROnPlateau, instantiate_class
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR

from src.models import Classifier
from src.models.classifier import number_of_steps
from src.system.errors import UserError

ONE_CYCLE = f"{OneCycleLR.__module__}.{OneCycleLR.__name__}"


def use_optimizer(network: LightningModule, built: Namespace) -> None:
    """Give a network the optimiser and the schedule of ``--optimizer`` and ``--lr_scheduler``, if they are set.

    Raises:
        UserError: A schedule has no optimiser, or settings of a `Classifier` contradict them.
    """
    optimizer, schedule = built.get("optimizer"), built.get("lr_scheduler")
    if optimizer is None:
        if schedule is not None:
            raise UserError("--lr_scheduler needs an --optimizer, such as --optimizer SGD --optimizer.lr 0.1")
        return
    if isinstance(network, Classifier):
        for name in ("lr", "eps", "betas", "schedule"):
            parameters = inspect.signature(Classifier).parameters | inspect.signature(type(network)).parameters
            value = network.hparams.get(name, parameters[name].default)
            if (tuple(value) if isinstance(value, list) else value) != parameters[name].default:  # LightningCLI: a list
                raise UserError(f"--model.{name} is a setting of Adam, which --optimizer replaces: leave it out.")

    def configure_optimizers() -> Any:
        made = instantiate_class(filter(lambda parameter: parameter.requires_grad, network.parameters()), optimizer)
        if schedule is None:
            return made
        settings = {**(schedule.get("init_args") or {})}
        if schedule.class_path == ONE_CYCLE and not (settings["total_steps"] or settings["epochs"]):
            settings["total_steps"] = number_of_steps(network.trainer)
        scheduler = instantiate_class(made, {"class_path": schedule.class_path, "init_args": settings})
        options = {"monitor": scheduler.monitor} if isinstance(scheduler, ReduceLROnPlateau) else {}
        interval = "step" if isinstance(scheduler, OneCycleLR | CyclicLR) else "epoch"
        return {"optimizer": made, "lr_scheduler": {"scheduler": scheduler, "interval": interval} | options}

    network.configure_optimizers = configure_optimizers  # type: ignore[method-assign]
