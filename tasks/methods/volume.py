"""The volume recipe: the next 10 sessions of every ticker, as quantiles, by one model of all tickers."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date

import pandas as pd
from pydantic import JsonValue

from volcast.models.comparisons import Contest
from volcast.models.drift import FeatureDrift, feature_drift
from volcast.models.forecast_columns import interval_columns, point_of, quantile_columns
from volcast.models.forecasters import MEDIAN, MODEL
from volcast.models.panel import HORIZONS, is_earnings
from volcast.models.point_names import USUAL_POINT, point_words
from volcast.models.points import with_point
from volcast.models.pretrained import Vintage, vintage_for
from volcast.models.recipes import VolumeRecipe
from volcast.models.scores import FIRST_TICKER
from volcast.models.sums import sums_of
from volcast.models.text import counted, format_millions
from volcast.models.volume_evaluation import VolumePredictor, evaluate_volume, volume_frame
from volcast.models.volume_inputs import VolumeData, profile, recent_features, sha256_of, volume_data
from volcast.models.volume_model import VolumeScaler, volume_from_bytes
from volcast.models.volume_training import TrainingRun, fit_volume, scaler_for, steps_of
from volcast.models.weights import load_exactly
from volcast.storage.artifacts import from_parquet, to_parquet
from volcast.storage.errors import Corrupt
from volcast.tasks.methods.method import (
    Evaluated,
    Hardware,
    Marks,
    Method,
    Names,
    Plot,
    ReadFile,
    Rows,
    Scores,
    TableRow,
    Trained,
)
from volcast.tasks.reports.plots import SHOWN_SESSIONS, calibration_plot, fan_chart

PROFILE_FILE, ANNOUNCEMENTS_FILE, CALIBRATION_FILE = "profile.json", "announcements.parquet", "calibration.json"
DRAWN_TICKERS = 12
TABLE_TICKERS = 3  # side by side in 80 columns
HEADINGS = {
    "mase_1": ("MASE h 1", ".3f"),
    "mase_1_5": ("h 1-5", ".3f"),
    "mase_1_10": ("h 1-10", ".3f"),
    "pinball": ("pinball", ".3f"),
    "coverage_80": ("in 80%", ".1%"),
    "coverage_95": ("in 95%", ".1%"),
    "over_share": ("over", ".1%"),
}  # metric -> heading and format; scorecards of release 0.1.0 have no over_share


class VolumeMethod(Method[VolumeRecipe, VolumeData, VolumePredictor]):
    """The steps of the volume recipe; one model serves all tickers."""

    horizon = HORIZONS

    @property
    def trains(self) -> bool:
        return self.recipe.trains

    def epochs(self, prepared: VolumeData) -> int:
        return steps_of(self.recipe, self._vintage(prepared))

    def done(self, epoch: int) -> int:
        return epoch

    def progress_words(self, epoch: int, epochs: int) -> str:
        return f"Step {epoch} of {epochs}"

    def untrained(self, cutoff: date, *, newer_than: date) -> dict[str, JsonValue] | None:
        vintage = vintage_for(self.recipe, through=cutoff)
        return {"tuning_steps": 0} if vintage and vintage.last_session > newer_than else None

    def pretrained_through(self, prepared: VolumeData) -> date | None:
        vintage = self._vintage(prepared)
        return vintage.last_session if vintage else None

    def _start(self, prepared: VolumeData) -> str:
        """The pretrained weights that a training starts from, in words; empty for none."""
        vintage = self._vintage(prepared)
        return f"{vintage.words}, {'tuned' if self.recipe.trains else 'not trained'} here" if vintage else ""

    @property
    def _linear_words(self) -> str:
        return "; the linear member: fitted here to each ticker's own history" if self.recipe.linear_share else ""

    def is_testable(self, prepared: VolumeData) -> bool:
        return prepared.is_testable

    def _vintage(self, prepared: VolumeData) -> Vintage | None:
        """The pretrained weights that a training starts from: they know nothing of its test."""
        return vintage_for(self.recipe, through=prepared.inputs.panel.sessions.date[prepared.through])

    def prepare(self, rows: Rows) -> VolumeData:
        return volume_data(rows.panel, rows.announcements, self.recipe)

    def describe(self, prepared: VolumeData) -> tuple[dict[str, bytes], dict[str, JsonValue]]:
        panel, known = prepared.inputs.panel, prepared.announcements
        earnings = known.loc[is_earnings(known)]
        files = {
            PROFILE_FILE: json.dumps(profile(prepared), indent=1).encode(),
            ANNOUNCEMENTS_FILE: to_parquet(known),
        }
        facts: dict[str, JsonValue] = {
            "rows": int(panel.traded_NT.sum()),
            "train_rows": int(panel.traded_NT[:, : prepared.through + 1].sum()),
            "train_through": str(prepared.span.train_through),
            "test_start": str(prepared.span.test_start),
            "pretrained": self._start(prepared),
            **({"pretrained_through": str(known_to)} if (known_to := self.pretrained_through(prepared)) else {}),
            "earnings_sources": sorted(set(earnings["source"])) if self.recipe.use_earnings else [],
            **({"dated_events": kinds} if (kinds := panel.dated["kind"].value_counts().sort_index().to_dict()) else {}),
            "first_seen_assumed": bool(known["first_seen_assumed"].any()),
        }
        return files, facts

    def restore(self, read: ReadFile, rows: Rows) -> VolumeData:
        """Built again, for the arrays are large. Raises Corrupt where that does not give the same."""
        data = self.prepare(replace(rows, announcements=from_parquet(read(ANNOUNCEMENTS_FILE))))
        expected, found = json.loads(read(PROFILE_FILE))["sha256"], sha256_of(data.inputs)
        if found != expected:
            raise Corrupt(
                f"The features, built again from the prices, have sha256 {found}; {expected} was recorded. They were "
                "made by another release, or on another machine: retrain here."
            )
        return data

    def scaler(self, prepared: VolumeData) -> VolumeScaler:
        return scaler_for(prepared.inputs, self.recipe, self._vintage(prepared), through=prepared.through)

    def shapes(self, prepared: VolumeData) -> list[str]:
        """How much there is to train on."""
        panel, span, start = prepared.inputs.panel, prepared.span, self._start(prepared)
        if start and not self.recipe.trains:
            return [f"No training: {self._networks}, {start}"]
        return [
            f"Training: {counted(len(panel.tickers), 'ticker')}, {counted(prepared.through + 1, 'session')} to "
            f"{span.train_through}, the last {self.recipe.stop_sessions} to stop by; {self._networks}"
            f"{f', {start}' if start else ''}",
            f"Testing: {self.recipe.test_sessions} sessions {span.test_start} to {span.test_end}",
        ]

    @property
    def _networks(self) -> str:
        return f"{counted(self.recipe.members, 'network')} of {self.recipe.cell}"

    def train(self, prepared: VolumeData, scaler: bytes, hardware: Hardware) -> Trained:
        vintage = self._vintage(prepared)
        fitted = fit_volume(
            prepared.inputs,
            self.recipe,
            TrainingRun(
                scaler=load_exactly(VolumeScaler(), scaler),
                through=prepared.through,
                seed=hardware.seed,
                device=hardware.device,
                vintage=vintage,
            ),
            on_epoch=hardware.on_epoch,
            on_resume=hardware.on_resume,
            checkpoint=hardware.checkpoint,
        )
        weights = sum(parameter.numel() for parameter in fitted.model.parameters())
        kept = f"; {fitted.exploded} of them diverged, and are kept as they were before" if fitted.exploded else ""
        return Trained(
            module=fitted.model,
            losses=fitted.losses,
            final_loss=fitted.final_loss,
            seconds=fitted.seconds,
            summary=f"{self._networks}, {weights:,} weights in all{kept}{f'; {vintage.words}' if vintage else ''}",
        )

    def load(self, data: bytes) -> VolumePredictor:
        return VolumePredictor(model=volume_from_bytes(data, self.recipe), recipe=self.recipe)

    def evaluate(self, prepared: VolumeData, model: VolumePredictor, contest: Contest) -> Evaluated:
        found = evaluate_volume(prepared, model, contest)
        start = self._start(prepared)
        return Evaluated(
            scores=found.scores,
            words=(*found.words, *([f"The networks: {start}{self._linear_words}."] if start else [])),
            decision=found.decision,
            files={CALIBRATION_FILE: json.dumps(found.calibration.to_dict(), indent=1).encode()},
        )

    def drift(self, prepared: VolumeData, read: ReadFile, sessions: int) -> dict[str, FeatureDrift]:
        trained = json.loads(read(PROFILE_FILE))["features"]
        deciles = {name: own["deciles"] for name, own in trained.items()}
        return feature_drift(recent_features(prepared, sessions), deciles)

    def forecast(self, prepared: VolumeData, model: VolumePredictor) -> pd.DataFrame:
        return volume_frame(prepared, model)

    def model_plots(
        self,
        prepared: Callable[[], VolumeData],  # noqa: ARG002 (the scorecard has what is drawn)
        model: VolumePredictor,  # noqa: ARG002
        read: ReadFile,
        names: Names,
    ) -> list[Plot]:
        """How often volumes fell below their quantiles."""
        observed = pd.DataFrame(json.loads(read(CALIBRATION_FILE)))
        observed.index = pd.Index([float(level) for level in observed.index])
        png = calibration_plot(observed, title=f"{names.version}{names.note}: calibration")
        return [Plot(file="calibration.png", title="Calibration on the test sessions", png=png)]

    def forecast_plots(self, prices: pd.DataFrame, forecasts: pd.DataFrame, note: str, marks: Marks) -> list[Plot]:
        """A fan chart of each of the first tickers, with the point of the forecasts."""
        plots, point = [], point_of(forecasts)
        for ticker in in_order(forecasts)[:DRAWN_TICKERS]:
            history = prices.loc[prices["ticker"] == ticker, ["session", "volume"]].tail(SHOWN_SESSIONS)
            own = forecasts.loc[forecasts["unique_id"] == ticker]
            title = f"{ticker}{note}: volume of the next {len(own)} sessions"
            special = pd.Series({session: marks.get((ticker, session), "") for session in own["ds"]})
            quantiles_HQ = own[quantile_columns(MODEL)].to_numpy()
            line_H = quantiles_HQ[:, MEDIAN] if point == USUAL_POINT else own[MODEL].to_numpy()
            png = fan_chart(history, special, quantiles_HQ, (point_words(point), line_H), title=title)
            plots.append(Plot(file=f"forecast-{ticker}.png", title=f"{ticker}, the next sessions", png=png))
        return plots

    def score_rows(self, scores: Scores) -> list[TableRow]:
        return [
            {"method": name}
            | {heading: f"{own[metric]:{form}}" for metric, (heading, form) in HEADINGS.items() if metric in own}
            for name, own in scores.items()
        ]

    def forecast_rows(self, forecasts: pd.DataFrame) -> list[TableRow]:
        """Point and 80 % interval in million shares, a column each of the first tickers; then those of the sums."""
        shown, (low_80, high_80, *_) = in_order(forecasts)[:TABLE_TICKERS], interval_columns(MODEL)
        own = forecasts.loc[forecasts["unique_id"].isin(shown)]
        sums, rows = with_point(sums_of(own), point_of(own)), dict[str, TableRow]()
        for row in [*own.to_dict("records"), *sums.to_dict("records")]:
            point, low, high = (format_millions(row[name]) for name in (MODEL, low_80, high_80))
            label = f"the next {row['sessions']}" if "sessions" in row else f"{row['ds']:%a %Y-%m-%d}"
            rows.setdefault(label, dict.fromkeys(shown, ""))[row["unique_id"]] = f"{point} ({low}-{high})"
        return [{"session": label, **cells} for label, cells in rows.items()]


def in_order(forecasts: pd.DataFrame) -> list[str]:
    """The tickers, the leading one first."""
    return sorted(set(forecasts["unique_id"]), key=lambda ticker: (ticker != FIRST_TICKER, ticker))
