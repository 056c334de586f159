"""The estimate of a training's time."""

import pytest
import torch

from experiments import progress


@pytest.mark.parametrize(
    "seconds, text",
    [(0.2, "1 s"), (40, "40 s"), (90, "90 s"), (1500, "25 min"), (5400, "90 min"), (10800, "3 h"), (200000, "2 days")],
)
def test_a_duration_is_in_the_unit_that_people_use(seconds, text):
    assert progress.duration(seconds) == text


@pytest.mark.parametrize("each, words", [(1.08, ["about 3 h", "--epochs 5 (9 min)"]), (0.101, ["about 17 min"])])
def test_the_estimate_comes_once_after_steps_and_seconds_and_leaves_out_the_first_steps(
    monkeypatch, capsys, each, words
):
    """A clock of our own: three slow steps, then equal ones; the device is waited for twice."""
    clock, waits, line = [0.0], [], ""
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    pace = progress.Pace("irmae", torch.device("cpu"), 100, 10_003)
    for number in range(1, 60):
        clock[0] += 30.0 if number <= 3 else each
        pace.step(lambda: waits.append(1))
        said = capsys.readouterr().out
        assert bool(said) is (number == 23), number
        line += said
    assert len(waits) == 2
    assert line.startswith("irmae: 100 epochs, about") and "on this CPU" in line
    assert all(word in line for word in words) and ("--epochs" in line) is (len(words) == 2)
    assert pace.seconds() == pytest.approx(each)
    assert pace.left() == {"left": progress.duration((10_003 - 59) * each)}


def test_fast_steps_are_measured_for_two_seconds(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    pace = progress.Pace("vae", torch.device("cuda"), 1, 10_000)
    assert pace.left() == {}
    while not (said := capsys.readouterr().out):
        clock[0] += 0.125
        pace.step(lambda: None)
        assert clock[0] < 4.0
    assert pace.taken == 3 + 20 and "1 epoch, about 21 min on this GPU" in said
    pace = progress.Pace("vae", torch.device("cuda"), 1, 10_000)
    for _ in range(3 + 31):
        clock[0] += 0.0625
        pace.step(lambda: None)
    assert not capsys.readouterr().out  # 31 steps, 1.94 s
    clock[0] += 0.0625
    pace.step(lambda: None)
    assert capsys.readouterr().out
