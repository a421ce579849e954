from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from panels import InMemory, drawn_volumes, gappy_volumes, panel_of, priced_panel, tiny_recipe

from volcast.models import volume_training
from volcast.models.errors import NotEnoughSessions, TrainingDiverged
from volcast.models.forecasters import LEVELS
from volcast.models.recipes import Market
from volcast.models.text import silent
from volcast.models.volume_inputs import Inputs, build_inputs
from volcast.models.volume_model import fit_volume_scaler, targets_at
from volcast.models.volume_training import (
    PATIENCE,
    Checkpoint,
    FittedVolume,
    NetworkForecaster,
    TrainingRun,
    fit_volume,
    one_cycle,
)
from volcast.models.weights import to_bytes

CPU = torch.device("cpu")


@lru_cache(maxsize=1)
def some_inputs() -> Inputs:
    return build_inputs(priced_panel(gappy_volumes(6, 420)), use_earnings=True)


def fit(
    inputs: Inputs,
    *,
    seed: int = 3,
    on_epoch: Callable[[int, float], None] = silent,
    checkpoint: Checkpoint | None = None,
    beyond_its_limits: Mapping[str, Any] | None = None,
    **changes: Any,
) -> FittedVolume:
    recipe, through = tiny_recipe(**changes), inputs.panel.known - 1
    for setting, value in (beyond_its_limits or {}).items():
        object.__setattr__(recipe, setting, value)  # a recipe would not take it
    scaler = fit_volume_scaler(inputs, through=through - recipe.stop_sessions)
    run = TrainingRun(scaler=scaler, through=through, seed=seed, device=CPU)
    return fit_volume(inputs, recipe, run, on_epoch=on_epoch, checkpoint=checkpoint)


def test_the_same_seed_gives_the_same_weights_and_another_gives_others() -> None:
    first, again, other = (fit(some_inputs(), seed=seed) for seed in (3, 3, 4))
    assert to_bytes(first.model) == to_bytes(again.model)
    assert first.losses == again.losses
    assert to_bytes(first.model) != to_bytes(other.model)


def test_members_differ() -> None:
    one, two = fit(some_inputs()).model.members
    assert not torch.equal(one.get_parameter("known.weight"), two.get_parameter("known.weight"))


@pytest.mark.parametrize("last_steps", [10, 20, 40])
def test_a_training_that_was_killed_goes_on_to_the_same_weights(last_steps: int) -> None:
    def killed(steps: int, _loss: float) -> None:
        if steps == last_steps:
            raise KeyboardInterrupt

    checkpoint, whole = InMemory(), fit(some_inputs())
    with pytest.raises(KeyboardInterrupt):
        fit(some_inputs(), on_epoch=killed, checkpoint=checkpoint)
    assert checkpoint.data is not None
    told: list[int] = []
    resumed = fit(some_inputs(), on_epoch=lambda steps, _loss: told.append(steps), checkpoint=checkpoint)
    assert told == list(range(last_steps + 10, 41, 10))  # only what was left
    assert resumed.losses == whole.losses
    assert resumed.final_loss == whole.final_loss
    assert to_bytes(resumed.model) == to_bytes(whole.model)
    assert fit(some_inputs(), checkpoint=checkpoint).losses == whole.losses  # as where the model could not be stored


def test_the_best_weights_are_kept_when_the_held_back_loss_rises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume_training, "one_cycle", lambda share: (1.0 if share < 0.25 else 1e4, 0.9))
    fitted = fit(some_inputs(), members=1)
    losses = [loss for _, loss in fitted.losses]
    assert min(losses[1:]) > losses[0]  # from the second epoch on the steps are wild
    assert fitted.final_loss == losses[0]
    monkeypatch.setattr(volume_training, "one_cycle", lambda _share: (1.0, 0.9))
    assert to_bytes(fit(some_inputs(), members=1, steps=10).model) == to_bytes(fitted.model)


def test_a_member_that_no_longer_improves_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume_training, "one_cycle", lambda share: (1.0 if share < 0.05 else 1e4, 0.9))
    fitted = fit(some_inputs(), members=1, steps=200)
    best = int(np.argmin([loss for _, loss in fitted.losses]))
    assert len(fitted.losses) == best + 1 + PATIENCE < 20


def test_the_learning_rate_rises_then_falls_and_the_momentum_does_the_opposite() -> None:
    assert one_cycle(0.0) == pytest.approx((1 / 25, 0.95))
    assert one_cycle(0.15) == pytest.approx(((1 / 25 + 1) / 2, 0.9))
    assert one_cycle(0.3) == pytest.approx((1.0, 0.85))
    assert one_cycle(1.0) == pytest.approx((1e-5, 0.95))


def test_a_training_learns_weekdays_and_yesterday() -> None:
    volume_NT = drawn_volumes(6, 420, seed=2)
    weekday_T = panel_of(volume_NT).sessions.day_of_week.to_numpy()[:420]
    volume_NT = volume_NT * np.exp(1.0 * (weekday_T == 0))
    inputs = build_inputs(panel_of(volume_NT), use_earnings=False)
    fitted = fit(inputs, steps=120, validate_every_steps=20)
    held_back = np.arange(420 - 1 - 42, 419)
    before, after = (targets_at(inputs, each, through=419) for each in (np.arange(40, 377), held_back))
    naive_Q = np.quantile(before[0][before[1]], LEVELS)  # of all targets before, whatever the session
    error_RQ = after[0][after[1]][:, None] - naive_Q
    naive_loss = np.maximum(np.array(LEVELS) * error_RQ, (np.array(LEVELS) - 1) * error_RQ).mean()
    assert fitted.final_loss < 0.85 * naive_loss


def test_too_few_sessions_are_told_so() -> None:
    panel = priced_panel(drawn_volumes(3, 120))
    recipe = tiny_recipe()
    with pytest.raises(NotEnoughSessions, match=r"sequences take 84 .* and 42 are held back .* an earlier start"):
        NetworkForecaster(recipe, seed=0, device=CPU).fit(panel, through=119)
    with pytest.raises(NotEnoughSessions, match="an earlier start"):
        NetworkForecaster(recipe, seed=0, device=CPU).fit(panel, through=20)


@pytest.mark.parametrize("steps", [1, 40])
def test_a_training_that_diverges_is_told_so(steps: int) -> None:
    with pytest.raises(TrainingDiverged, match=r"must be finite\. Lower the learning rate"):
        fit(some_inputs(), steps=steps, beyond_its_limits={"learning_rate": 1e30})


@pytest.mark.parametrize(("market", "loss"), [("mean of all", 0.10466), ("others", 0.10529)])
def test_the_golden_loss(market: Market, loss: float) -> None:
    inputs = build_inputs(some_inputs().panel, use_earnings=True, market=market)
    assert fit(inputs).final_loss == pytest.approx(loss, abs=1e-4)
