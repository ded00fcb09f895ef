"""TensorBoard curves as Keras lays them out: one chart for a metric, one sub-run for train, validation, test."""

from argparse import Namespace
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.plugins.hparams import summary_v2 as hparams_summary
from torch.utils.tensorboard import SummaryWriter

SUB_RUNS = {"train": "train", "val": "validation", "test": "test"}
PER_EPOCH = ("learning_rate", "epoch_seconds")  # charted beside the training curves


class RunLogger(TensorBoardLogger):
    """Writes ``train_loss`` as tag ``loss`` of the sub-run ``train``, at step 1 for the first epoch.

    Likewise ``val_*`` and ``test_*``. So TensorBoard draws the curves of all runs in one accuracy and
    one loss chart. Anything else that is logged keeps its name and its step.

    Args:
        save_dir: Folder of all runs.
        name: Folder of the runs of one network.
        version: Number or name of the run; the next free number by default.
    """

    def __init__(self, save_dir: str, name: str = "default", version: int | str | None = None) -> None:
        super().__init__(save_dir, name=name, version=version)
        self._writers: dict[str, SummaryWriter] = {}
        # tag → sub-run → epoch → value
        self.curves: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))

    def _get_next_version(self) -> int:
        """Claim the next free number by making its folder: two trainings started at once never share one."""
        version = super()._get_next_version()
        if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
            return version  # unused: Lightning takes the folder of rank 0
        while True:
            try:
                Path(self.root_dir, f"version_{version}").mkdir(parents=True)
                return version
            except FileExistsError:
                version += 1

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        finished_epochs = int(metrics.get("epoch", 0))
        for name, value in metrics.items():
            if curve := curve_of(name):
                tag, sub_run = curve
                # The test comes after the last epoch, all else before its epoch is finished.
                epoch = finished_epochs + (sub_run != "test")
                self.writer(sub_run).add_scalar(tag, value, epoch)
                self.curves[tag][sub_run][epoch] = value
            elif name != "epoch":
                self.experiment.add_scalar(name, value, step)

    @rank_zero_only
    def go_on(self, curves: dict[str, dict[str, dict[int, float]]], step: int) -> None:
        """Write the history of a training that is resumed at `step`, in place of what lies in the run folder."""
        self.experiment.close()
        self.experiment.purge_step = step  # TensorBoard forgets what was logged by steps from there on
        for tag, sub_runs in curves.items():
            for sub_run, points in sub_runs.items():
                self.curves[tag][sub_run].update(points)
                for epoch, value in points.items():
                    self.writer(sub_run).add_scalar(tag, value, epoch)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Write the HPARAMS entry of this run.

        Nothing says which settings and metrics there are: so TensorBoard collects the settings of all runs,
        puts those that differ first, and takes every scalar of the sub-runs as a metric.
        """
        settings = params if isinstance(params, dict) else vars(params)
        plain = {key: value if isinstance(value, bool | int | float) else str(value) for key, value in settings.items()}
        summary = hparams_summary.hparams_pb(plain, trial_id=str(Path(self.log_dir).relative_to(self.save_dir)))
        self.experiment._get_file_writer().add_summary(summary)

    @rank_zero_only
    def save(self) -> None:
        """Flush, so that TensorBoard shows each epoch as it ends. (The settings are in config.yaml.)"""
        for writer in (self.experiment, *self._writers.values()):
            writer.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        super().finalize(status)
        for writer in self._writers.values():
            writer.close()
        if status == "failed":
            with suppress(OSError):  # it isn't empty: something was written before it failed
                Path(self.log_dir).rmdir()

    def writer(self, sub_run: str) -> SummaryWriter:
        """The writer of a sub-run; for the first process alone."""
        if sub_run not in self._writers:
            folder = Path(self.log_dir, sub_run)
            for events in folder.glob("events.out.tfevents.*"):
                events.unlink()  # of a training that was cut: `go_on` writes its curves anew
            self._writers[sub_run] = SummaryWriter(str(folder))
        return self._writers[sub_run]


def curve_of(name: str) -> tuple[str, str] | None:
    """The tag and the sub-run in which a logged value is charted by epochs, if it is."""
    stage, _, tag = name.partition("_")
    if name in PER_EPOCH:
        return name, "train"
    return (tag, SUB_RUNS[stage]) if stage in SUB_RUNS and tag else None
