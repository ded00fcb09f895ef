"""The TensorBoard logger. Its curves are arranged as in Keras: a chart for each metric, a sub-run for each stage."""

# Private names used here: TensorBoardLogger._get_next_version (lightning), because it alone chooses the run number.

from argparse import Namespace
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.plugins.hparams import summary_v2 as hparams_summary
from torch.utils.tensorboard import SummaryWriter

from src.system.errors import UserError
from src.system.files import local_path

SUB_RUNS = ("train", "validation", "test")
EVENTS = "events.out.tfevents.*"  # TensorBoard's files
FIRST = ("accuracy", "loss")  # the charts that TensorBoard shows first


class RunLogger(TensorBoardLogger):
    """Writes the loss of an epoch as tag ``curves/loss`` in the sub-runs ``train`` and ``validation``.

    The step is the epoch (1, 2, …). So TensorBoard draws each metric of all runs in one chart. What a network or a
    callback logs keeps its name and step.

    Args:
        save_dir: Folder of all runs.
        name: Folder of the runs of one network.
        version: Number or name of the run. By default the next free number.
    """

    def __init__(self, save_dir: str, name: str = "default", version: int | str | None = None) -> None:
        super().__init__(local_path(save_dir), name=name, version=version)
        self.is_resumed = False  # whether this training goes on in the folder of an earlier one
        self.has_made_folder = False  # whether this process has made the folder
        self.is_described = False  # whether the events show the network and the config
        self._writers: dict[str, SummaryWriter] = {}
        self._validation: dict[str, tuple[float, int]] = {}  # tag → value and epoch of the newest validation
        # tag → sub-run → epoch → value
        self.curves: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))

    def _get_next_version(self) -> int:
        """Reserve the next free number by making its folder, so that trainings started together get different ones."""
        version = super()._get_next_version()
        if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
            return version  # unused: Lightning broadcasts the folder of rank 0
        while True:
            try:
                Path(self.root_dir, f"version_{version}").mkdir(parents=True)
                self.has_made_folder = True
                return version
            except FileExistsError:
                version += 1

    @rank_zero_only
    def make_folder(self) -> None:
        """Make the folder of a new run. Raises a `UserError` if there is one with files in it."""
        folder = Path(self.log_dir)  # makes it, if its number is chosen
        if self.is_resumed or self.has_made_folder:
            return
        try:
            folder.mkdir(parents=True)
            self.has_made_folder = True
        except FileExistsError:
            if not folder.is_dir() or any(folder.iterdir()):
                text = "is not empty, and is not the run to resume. Choose another folder, or name it with --resume."
                raise UserError(f"{folder} {text}") from None

    @rank_zero_only
    def log_epoch(self, sub_run: str, values: Mapping[str, float], epoch: int) -> None:
        """Add values of an epoch (1, 2, …) to the curves. What is logged otherwise keeps its name and step."""
        for tag, value in values.items():
            self._add_point(tag, sub_run, epoch, value)
        if sub_run == "train":  # the epoch has ended
            self._write_validation()
        self.save()

    def _add_point(self, tag: str, sub_run: str, epoch: int, value: float) -> None:
        self.curves[tag][sub_run][int(epoch)] = float(value)
        if sub_run != "validation":
            self.writer(sub_run).add_scalar(chart_of(tag), value, epoch)
            return
        before, last_epoch = self._validation.get(tag, (value, epoch))
        if last_epoch != epoch:
            self.writer(sub_run).add_scalar(chart_of(tag), before, last_epoch)
        self._validation[tag] = value, epoch

    def _write_validation(self) -> None:
        """Write the newest validation. Of several validations in an epoch, only the last is a point of the curve."""
        for tag, (value, epoch) in self._validation.items():
            self.writer("validation").add_scalar(chart_of(tag), value, epoch)
        self._validation.clear()

    @rank_zero_only
    def resume(self, curves: dict[str, dict[str, dict[int, float]]], step: int) -> None:
        """Restore the curves of a checkpoint, as in `self.curves`, and discard what was logged from `step` on."""
        self.is_resumed = True
        self._keep_finished_epochs(max(curves.get("learning_rate", {}).get("train", {}), default=0))
        # TensorBoard then ignores earlier values of this folder at this step and later.
        self.experiment.file_writer.add_event(Event(step=step, session_log=SessionLog(status=SessionLog.START)))
        for tag, sub_runs in curves.items():
            for sub_run, points in sub_runs.items():
                if sub_run not in SUB_RUNS:
                    raise UserError(f"The checkpoint has curves of {sub_run}, which is not a sub-run. Use another one.")
                for epoch, value in points.items():
                    self._add_point(tag, sub_run, epoch, value)
        finished_epochs = self.curves["learning_rate"]["train"]
        if all(epoch in finished_epochs for _, epoch in self._validation.values()):
            self._write_validation()

    def _keep_finished_epochs(self, last: int) -> None:
        """Write what an interrupted training shows beside its curves again, up to an epoch."""
        files = sorted(Path(self.log_dir, "train").glob(EVENTS))
        events = [event for file in files for event in LegacyEventFileLoader(str(file)).Load() if event.step <= last]
        writer: Any = self.writer("train")
        for event in events:
            is_text = any(value.tag.startswith("run/") for value in event.summary.value)
            if is_text or event.graph_def:
                self.is_described = True
            elif not any(value.WhichOneof("value") in ("histo", "image") for value in event.summary.value):
                continue
            writer.file_writer.add_event(event, walltime=event.wall_time)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Write the HPARAMS entry of this run.

        The entry doesn't declare which settings and metrics exist. TensorBoard then collects the settings of
        all runs, lists those that differ first, and takes every scalar of the sub-runs as a metric.
        """
        if self.experiment.file_writer is None:
            return  # Lightning logs them once more at the test, when the training has closed the file
        settings = params if isinstance(params, dict) else vars(params)
        plain = {key: value if isinstance(value, bool | int | float) else str(value) for key, value in settings.items()}
        summary = hparams_summary.hparams_pb(plain, trial_id=str(Path(self.log_dir).relative_to(self.save_dir)))
        self.experiment.file_writer.add_summary(summary)

    @rank_zero_only
    def save(self) -> None:
        """Flush, so that TensorBoard shows each epoch when it ends. The settings are in config.yaml."""
        for writer in (self.experiment, *self._writers.values()):
            writer.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        super().finalize(status)
        self._write_validation()
        for writer in self._writers.values():
            writer.close()

    def writer(self, sub_run: str) -> SummaryWriter:
        """Return the writer of a sub-run. Only for the process with rank 0."""
        if sub_run not in self._writers:
            folder = Path(self.log_dir, sub_run)
            for events in folder.glob(EVENTS) if self.is_resumed else ():
                events.unlink()  # of the training that goes on; `resume` writes its curves again
            self._writers[sub_run] = SummaryWriter(str(folder))
        return self._writers[sub_run]


def chart_of(curve: str) -> str:
    """Return the tag of a curve in TensorBoard, which sorts the groups (``<group>/<name>``) by name and opens two."""
    return f"{'curves' if curve in FIRST else 'details'}/{curve}"
