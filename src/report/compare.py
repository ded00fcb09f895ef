"""The command `compare`: finds the runs, trains the missing ones, and compares each pair of networks."""

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse.typing import NonNegativeFloat, PositiveInt
from lightning.pytorch.cli import LightningArgumentParser

from src.runs.folder import check_folder_name
from src.runs.network import import_class
from src.system.errors import UserError

if TYPE_CHECKING:
    from src.comparison.result import Comparison


def compare(
    fit_parser: LightningArgumentParser,
    args: list[str],
    /,
    folders: list[Path] | None = None,
    train: list[Path] | None = None,
    seeds: PositiveInt = 5,
    jobs: PositiveInt = 1,
    margin: NonNegativeFloat = 10.0,
    name: str | None = None,
    output: Path = Path("comparison"),
    data_dir: Path | None = None,
    model: list[str] | None = None,
    robustness: bool = False,
) -> None:
    """Compare networks by all their runs: a report with a verdict and error bars.

    Args:
        fit_parser: The parser of ``fit``, for the configs.
        args: The command line, without ``python -m src``.
        folders: Folders with finished runs, at any depth.
        train: Configs whose missing runs are trained first.
        seeds: Number of runs of each config for --train.
        jobs: Number of runs to train at a time.
        margin: The largest difference that does not matter, in test images.
        name: Name of the comparison. Default: the names of the networks.
        output: Folder of all comparisons.
        data_dir: Folder of the data. Default: that of the first run.
        model: Your own network classes (module.Class) that appear in the runs.
        robustness: Also test all runs on corrupted images, for a section of the report. Takes about a minute a run.
    """
    # These import scipy and jinja2, which take half a second.
    from src.comparison.contenders import compare_runs
    from src.comparison.planned import plan_runs

    if not folders and not train:
        raise UserError("Name folders of runs, such as lightning_logs/lenet5 lightning_logs/cnn, or configs: --train")
    check_folder_name(name)
    for class_path in model or []:
        import_class(class_path)
    planned = plan_runs(fit_parser, train or [], seeds)
    command = ["python", "-m", "src", *args]
    _tell(compare_runs(folders or [], planned, jobs, margin, output, name, data_dir, command), robustness)


def _tell(comparison: "Comparison", robustness: bool) -> None:
    """Print the verdict, then write the report."""
    from src.comparison.contenders import add_robustness
    from src.comparison.sentences import summarise
    from src.report.page import write_report

    print(f"\n{summarise(comparison)}\n", flush=True)
    if robustness:
        add_robustness(comparison)
    print(f"Report: {write_report(comparison)}")
