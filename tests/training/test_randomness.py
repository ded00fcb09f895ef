"""The random state of each device. No GPU is needed: a stand-in replaces the generators of CUDA and MPS."""

from types import SimpleNamespace

import pytest
import torch

from src.training.randomness import RandomState, get_random_state, set_random_state


class Generators:
    """The generators of some devices, in place of `torch.cuda` or `torch.mps`: a device that is not there raises."""

    def __init__(self, count: int) -> None:
        self.states = [torch.tensor([number]) for number in range(count)]

    def get_rng_state(self, device: torch.device | None = None) -> torch.Tensor:
        return self.states[device.index if device else 0]

    def set_rng_state(self, state: torch.Tensor, device: torch.device | None = None) -> None:
        self.states[device.index if device else 0] = state


def trainer(rank: int) -> SimpleNamespace:
    fit_loop = SimpleNamespace(_load_combined_loader_states=lambda: None, _data_fetcher=[])
    return SimpleNamespace(fit_loop=fit_loop, global_rank=rank)


def start(states: list[dict], device: str) -> RandomState:
    """Resume a training with the states of a checkpoint, in the process with rank 0."""
    callback = RandomState(seed=0)
    callback.load_state_dict({"states": states})
    callback.on_train_start(trainer(0), SimpleNamespace(device=torch.device(device)))  # type: ignore[arg-type]
    return callback


def test_each_process_keeps_the_state_of_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "cuda", Generators(3))
    state = get_random_state(torch.device("cuda:2"))
    assert state["cuda"].tolist() == [2]
    torch.cuda.set_rng_state(torch.tensor([7]), torch.device("cuda:2"))
    set_random_state(state, torch.device("cuda:2"))
    assert [int(one) for one in torch.cuda.states] == [0, 1, 2]  # type: ignore[attr-defined]


def test_a_run_of_three_gpus_resumes_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "cuda", Generators(3))
    states = [get_random_state(torch.device("cuda", number)) for number in (2, 1, 0)]
    monkeypatch.setattr(torch, "cuda", Generators(1))
    resumed = start(states, "cuda:0")
    assert resumed.state_dict()["states"][0]["cuda"].tolist() == [2]


@pytest.mark.parametrize(
    ("saved", "resumed"), [("cuda:0", "cpu"), ("cpu", "cuda:0"), ("cuda:0", "mps"), ("mps", "cpu")]
)
def test_a_run_resumes_on_another_kind_of_device(monkeypatch: pytest.MonkeyPatch, saved: str, resumed: str) -> None:
    torch.manual_seed(1)
    monkeypatch.setattr(torch, "cuda", Generators(1))
    monkeypatch.setattr(torch, "mps", Generators(1))
    state = get_random_state(torch.device(saved))
    drawn = torch.rand(3)
    start([state], resumed)
    assert torch.equal(torch.rand(3), drawn)


def test_the_state_of_mps_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "mps", Generators(1))
    state = get_random_state(torch.device("mps"))
    torch.mps.set_rng_state(torch.tensor([5]))
    start([state], "mps")
    assert torch.mps.get_rng_state().tolist() == [0]
