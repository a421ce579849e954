"""The tutorial recipe: one ticker a model, a nowcast of the same session's volume."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from pydantic import JsonValue

from volcast.models.comparisons import CHAMPION, CUMULATED, Comparison, Contest, decide
from volcast.models.forecasters import MODEL
from volcast.models.recipes import TutorialRecipe
from volcast.models.text import format_shares, listed
from volcast.models.tutorial import (
    Scaler,
    as_sequences,
    build_features,
    evaluate_nowcast,
    fit,
    fit_scaler,
    from_bytes,
    nowcast_frame,
    rows,
    summary,
    tensors,
)
from volcast.models.weights import load_exactly
from volcast.storage.artifacts import from_parquet, to_parquet
from volcast.tasks.methods.method import (
    Evaluated,
    Hardware,
    Method,
    Names,
    Plot,
    ReadFile,
    Rows,
    Scores,
    TableRow,
    Trained,
)
from volcast.tasks.reports.plots import actual_against_predicted, volume_over_time
from volcast.tasks.stored_models import FEATURES_FILE

Nowcast = Callable[[pd.DataFrame], np.ndarray]  # a features frame -> shares, one a row


class TutorialMethod(Method[TutorialRecipe, pd.DataFrame, Nowcast]):
    """Prepared is the features frame; a predictor says the volume of each of its rows."""

    def epochs(self, prepared: pd.DataFrame) -> int:  # noqa: ARG002 (the article's, whatever comes)
        return self.recipe.epochs

    def split_tickers(self, tickers: Sequence[str]) -> list[tuple[str, ...]]:
        return [(ticker,) for ticker in tickers]

    def model_name(self, tickers: Sequence[str]) -> str:
        """For example `tutorial.SBUX`."""
        if len(tickers) != 1:
            raise ValueError(
                f"The tutorial recipe trains one ticker a model; {listed(tickers)} came. Start one run for each."
            )
        return f"{self._name}.{tickers[0]}"

    def prepare(self, rows: Rows) -> pd.DataFrame:
        return build_features(rows.prices, self.recipe)

    def describe(self, prepared: pd.DataFrame) -> tuple[dict[str, bytes], dict[str, JsonValue]]:
        facts: dict[str, JsonValue] = {"rows": len(prepared), "train_rows": len(rows(prepared, "train"))}
        return {FEATURES_FILE: to_parquet(prepared)}, facts

    def restore(self, read: ReadFile, rows: Rows) -> pd.DataFrame:  # noqa: ARG002
        return from_parquet(read(FEATURES_FILE))

    def scaler(self, prepared: pd.DataFrame) -> Scaler:
        return fit_scaler(prepared, self.recipe)

    def shapes(self, prepared: pd.DataFrame) -> list[str]:
        """Of inputs and target of both parts, as (rows, steps, features) and (rows, 1)."""
        lines = []
        for role, title in (("train", "Training"), ("test", "Testing")):
            x_NF, y_N1 = tensors(rows(prepared, role), self.recipe)
            lines.append(f"{title} shape: {tuple(as_sequences(x_NF).shape)} {tuple(y_N1.shape)}")
        return lines

    def train(self, prepared: pd.DataFrame, scaler: bytes, hardware: Hardware) -> Trained:
        fitted = fit(
            prepared,
            self.recipe,
            scaler=load_exactly(Scaler(len(self.recipe.features)), scaler),
            seed=hardware.seed,
            device=hardware.device,
            on_epoch=hardware.on_epoch,
        )
        return Trained(
            module=fitted.nowcaster,
            losses=fitted.losses,
            final_loss=fitted.final_loss,
            seconds=fitted.seconds,
            summary=summary(fitted.nowcaster.network),
        )

    def load(self, data: bytes) -> Nowcast:
        nowcaster = from_bytes(data, self.recipe)
        return lambda frame: nowcaster.predict(tensors(frame, self.recipe)[0])

    def evaluate(self, prepared: pd.DataFrame, model: Nowcast, contest: Contest) -> Evaluated:
        tested = rows(prepared, "test")["session"].min().date()
        fair = {name: each for name, each in contest.predecessors.items() if each.trained_through < tested}
        rivals = {name: each.predictor(prepared) for name, each in fair.items()}
        evaluation = evaluate_nowcast(prepared, model(prepared), self.recipe, rivals=rivals)
        errors = evaluation.table["rmse_shares"].to_dict()
        comparisons = [
            Comparison(
                name=name,
                challenger=errors[MODEL],
                predecessor=errors[name],
                margin=0.0 if name == CHAMPION else CUMULATED * contest.margin,
            )
            for name in fair
        ]
        unfair = contest.predecessors.keys() - fair.keys()
        bar = f"the champion was trained on sessions of the test, from {tested} on" if CHAMPION in unfair else ""
        decision = decide(evaluation.rmse_shares, replace(contest, bar=contest.bar or bar), comparisons)
        scores = {str(method): errors for method, errors in evaluation.table.to_dict("index").items()}
        return Evaluated(scores=scores, words=evaluation.words, decision=decision)

    def forecast(self, prepared: pd.DataFrame, model: Nowcast) -> pd.DataFrame:
        return nowcast_frame(prepared, model(prepared), self.recipe)

    def model_plots(
        self,
        prepared: Callable[[], pd.DataFrame],
        model: Nowcast,
        read: ReadFile,  # noqa: ARG002 (nothing but scores is kept)
        names: Names,
    ) -> list[Plot]:
        """The volume that it was trained and tested on, and what the model says of it."""
        what, frame = names.tickers + names.note, prepared()
        over_time = volume_over_time(frame, title=f"{what}: daily volume")
        against = actual_against_predicted(
            frame, model(frame), title=f"{what}: same-session nowcast by {names.version}"
        )
        return [
            Plot(file="volume.png", title="Volume over time", png=over_time),
            Plot(file="predicted.png", title="Actual against predicted volume", png=against),
        ]

    def score_rows(self, scores: Scores) -> list[TableRow]:
        return [
            {
                "method": method,
                "RMSE, shares": format_shares(errors["rmse_shares"]),
                "MAE, shares": format_shares(errors["mae_shares"]),
                "MAPE": f"{errors['mape']:.1%}",
                "sMAPE (0 to 1)": f"{errors['smape']:.3f}",
            }
            for method, errors in scores.items()
        ]
