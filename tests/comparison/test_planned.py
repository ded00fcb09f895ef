"""The runs that a comparison trains first."""

from pathlib import Path

import pytest

from src.comparison import planned
from src.comparison.planned import PlannedRuns, fix_number, train_missing
from src.system.errors import UserError
from tests.comparison.made_up import settings_of_fit


def test_a_changed_number_of_seeds_is_told(tmp_path: Path) -> None:
    path = tmp_path / "new" / "plan.json"

    def sentences(seeds: int) -> str:
        return fix_number(
            [PlannedRuns(Path("mine.yaml"), "Mine", {}, settings_of_fit(tmp_path, "my.Mine"), seeds)], path
        )

    first = sentences(2)
    assert first.endswith("when none were finished.") and sentences(2) == first
    assert sentences(5).startswith(f"{first} The number of runs was fixed at 5 of each on ")
    path.write_text("{")
    with pytest.raises(UserError, match=r"plan\.json is damaged\. Delete it"):
        sentences(5)


def test_trainings_without_results_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As with limit_test_batches: 0 in the config."""
    monkeypatch.setattr(planned, "run_side_by_side", lambda *args: [])
    with pytest.raises(UserError, match="The trainings of mine.yaml leave no results."):
        train_missing(
            [PlannedRuns(Path("mine.yaml"), "Mine", {}, settings_of_fit(tmp_path, "my.Mine"), n_seeds=1)], 1, tmp_path
        )
