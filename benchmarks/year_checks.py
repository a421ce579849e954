"""What a year of the service must have kept (benchmarks/year.py): each check by name, with what is wrong."""

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from deltalake import DeltaTable

from benchmarks.year_script import EVENT_CAUSES, NAME, Diary, Script
from volcast.models.comparisons import CHAMPION, Contest
from volcast.models.forecast_columns import LEDGER_COLUMNS
from volcast.models.forecasters import FALLBACK, HAR, MODEL
from volcast.models.panel import HORIZONS
from volcast.models.scores import BANDS, GATE_BAND, scaled
from volcast.models.sessions import next_session, sessions_after
from volcast.models.volume_evaluation import evaluate_volume, fallback_frame
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.integrity import verify
from volcast.storage.ledger import Ledger
from volcast.storage.prices import PriceTable
from volcast.storage.records import ArtifactRef, Snapshot
from volcast.storage.store import Store, open_store
from volcast.tasks.forecast import model_frame
from volcast.tasks.snapshot import prepare, read_panel
from volcast.tasks.stored_models import CHAMPION as ALIAS
from volcast.tasks.stored_models import model_version, read_model
from volcast.tasks.train import predecessor

SAMPLED = 8  # cutoffs that are forecast from again
NOTICED_WITHIN, LEARNT_WITHIN, COVERED_WITHIN = 10, 30, 30  # sessions since the shift
LEARNT = 0.85  # of har's error, which knows hardly more of the new regime: before the shift it was 0.95
WINDOW = 10  # target sessions over which what was published is compared with har, and the intervals are looked at
COVERED = (0.7, 0.9)  # of the volumes, by 80 % intervals of 1 to 5 sessions ahead over WINDOW target sessions
TRAINED = 20  # sessions of the new regime, with fewer of which a model has hardly been trained on it


@dataclass(frozen=True, kw_only=True)
class Takeover:
    """The first champion that was trained on TRAINED sessions after the shift, and the champion before it."""

    version: int
    before: int
    cutoff: date  # of the prices that it was made from

    def scores(self, script: Script) -> dict[str, float]:
        """MASE of both, and of the baselines, on the sessions after the cutoff."""
        artifacts = ArtifactStore(script.store)
        method, new = read_model(artifacts, NAME, self.version)
        table = PriceTable(script.store)
        last = table.coverage()["last"].max().date()
        data = prepare(_snapshot(script, script.store, last, table.version() or 0), method)
        later = replace(data, through=data.inputs.panel.position(self.cutoff))
        before = {CHAMPION: predecessor(artifacts, NAME, self.before)}
        found = evaluate_volume(later, new, Contest(predecessors=before))
        return {name: own["mase_1_5"] for name, own in found.scores.items()}


def failures(script: Script, diary: Diary) -> dict[str, str]:
    """Check -> what is wrong; empty where nothing is."""
    rows = Ledger(script.store).forecasts(NAME, first=script.eve)
    published = rows.loc[rows["published"]].astype({"cutoff": "datetime64[s]", "ds": "datetime64[s]"})
    return _named(
        {
            "no session is without a forecast of every ticker that had a price": _missing(script, diary, published),
            "no forecast knew prices of after its cutoff": _too_new(script, published),
            "made again, forecasts are the same bit for bit": _not_the_same(script, published),
            "and so they are with another future": _leaks(script, published),
            "no poor model was promoted": _poor_ones(script, diary),
            "every forecast whose session has come is scored": _unscored(script),
            "all that is stored is as it was written": (finding.words for finding in verify(script.store)),
        }
    )


def shift_failures(script: Script, diary: Diary) -> dict[str, str]:
    """The checks of what became of the shift, which take months."""
    return _named(
        {
            f"the shift was noticed within {NOTICED_WITHIN} sessions, and retrained on": _unnoticed(script, diary),
            f"what is published had learnt it within {LEARNT_WITHIN} sessions": _not_learnt(script),
            f"80 % intervals held again within {COVERED_WITHIN} sessions": _not_covered(script),
            "a model that was trained on it took over, and is better than har": _no_better(script),
        }
    )


def noticed(script: Script, diary: Diary) -> tuple[date, str] | None:
    """The first day from the shift on with a finding that starts a retraining, and its code; None without one."""
    for day, health in diary.healths.items():
        codes = [finding.code for finding in health.findings if finding.code in EVENT_CAUSES]
        if day >= script.shift and codes:
            return day, codes[0]
    return None


def since_shift(script: Script) -> pd.DataFrame:
    """What was published of 1 to 5 sessions ahead, over the last WINDOW target sessions at each since the shift.

    Index ds; columns ratio (of its error to har's, on the same rows), covered (by the 80 % intervals); NaN before
    WINDOW sessions have come.
    """
    scores = Ledger(script.store).scores(NAME, first=script.shift)
    scores = scores.loc[scores["h"].between(*BANDS[GATE_BAND])]
    scores = scores.assign(mase=scaled(scores["absolute_error"], scores["scale"]))
    key = ["ticker", "cutoff", "h"]
    har = scores.loc[scores["model"] == HAR].set_index(key)["mase"].rename("har")
    rows = scores.loc[scores["published"]].join(har, on=key)
    means = pd.DataFrame(rows.groupby("ds")[["mase", "har", "in_80"]].mean().rolling(WINDOW).mean())
    return pd.DataFrame({"ratio": means["mase"] / means["har"], "covered": means["in_80"]})


def first_since(found: Any) -> int | None:
    """The number of sessions after which something first was so; None where it never was."""
    return int(np.flatnonzero(found)[0]) + 1 if found.any() else None


def takeover(script: Script) -> Takeover | None:
    """None where none took over yet."""
    artifacts, before = ArtifactStore(script.store), 0
    for entry in artifacts.history("model", NAME, ALIAS):
        features = model_version(
            artifacts, script.store.url, artifacts.get("model", NAME, entry.version)
        ).scaler.features
        facts = artifacts.get("features", NAME, features.artifact.version).facts
        if before and sessions_after(script.shift, date.fromisoformat(str(facts["train_through"]))) >= TRAINED:
            return Takeover(version=entry.version, before=before, cutoff=features.snapshot.cutoff)
        before = entry.version
    return None


def _named(wrong: dict[str, Iterable[str]]) -> dict[str, str]:
    return {check: "; ".join(list(each)[:3]) for check, each in wrong.items()}


def _missing(script: Script, diary: Diary, published: pd.DataFrame) -> Iterator[str]:
    """Where the source answered, tickers without all sessions ahead; and stored volumes that nothing had forecast."""
    ahead: dict[Any, int] = published.groupby(["cutoff", "ticker"])["h"].nunique().to_dict()
    for day, health in diary.healths.items():
        expected = set(script.tickers) - set(health.late) if health.cutoff == day else set()
        yield from (f"{t} from {day}" for t in expected if ahead.get((pd.Timestamp(day), t), 0) != HORIZONS)
    forecast = set(zip(published["ticker"], published["ds"], strict=True))
    for ticker, known in PriceTable(script.store).sessions(script.tickers).items():
        lived = known.intersection(diary.sessions[1:])
        yield from (f"{ticker} of {session:%Y-%m-%d}" for session in lived if (ticker, session) not in forecast)


def _too_new(script: Script, published: pd.DataFrame) -> Iterator[str]:
    table = PriceTable(script.store)
    for version, own in published.groupby("prices_version"):
        cutoff, last = own["cutoff"].min().date(), max(table.last_sessions(int(str(version))).values())
        if last > cutoff:
            yield f"the forecast from {cutoff} is by prices v{version}, which go to {last}"


def _not_the_same(script: Script, published: pd.DataFrame) -> Iterator[str]:
    for said, own in _sample(published):
        if _again(script, script.store, own, int(own["prices_version"].iloc[0])) != _bits(own):
            yield said


def _leaks(script: Script, published: pd.DataFrame) -> Iterator[str]:
    """In a copy of the store the prices up to each cutoff are those of then, and later ones are made up."""
    with TemporaryDirectory() as folder:
        copy = open_store(shutil.copytree(str(script.store.folder), f"{folder}/copy"))
        for said, own in _sample(published):
            if _again(script, copy, own, _another_future(script, copy, own)) != _bits(own):
                yield said


def _sample(published: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Some forecasts, in words and as rows; not those of the last session, which has no future yet."""
    versions = published.loc[published["cutoff"] < published["cutoff"].max(), "version"].unique()
    for version in versions[np.linspace(0, len(versions) - 1, SAMPLED).astype(int)]:
        own = published.loc[published["version"] == version]
        yield f"forecast v{version} from {own['cutoff'].iloc[0]:%Y-%m-%d} by {own['model'].iloc[0]}", own


def _snapshot(script: Script, store: Store, cutoff: date, version: int) -> Snapshot:
    rows = PriceTable(store).describe(script.tickers, last=cutoff, version=version)
    assert rows.first_session is not None
    return Snapshot(
        store=store.url,
        prices=ArtifactRef(kind="prices", name="prices", version=version, digest=rows.digest),
        source=script.data(cutoff).source,
        simulated=True,
        tickers=rows.tickers,
        first_session=rows.first_session,
        cutoff=cutoff,
        rows=rows.rows,
    )


def _again(script: Script, store: Store, own: pd.DataFrame, version: int) -> bytes:
    """The forecast of the same cutoff and author, from a version of a store's prices."""
    snapshot = _snapshot(script, store, own["cutoff"].iloc[0].date(), version)
    if own["model"].iloc[0] == FALLBACK:
        frame = fallback_frame(read_panel(snapshot))
    else:
        artifacts = ArtifactStore(store)
        manifest = artifacts.get("model", NAME, int(own["model_version"].iloc[0]))
        frame = model_frame(snapshot, model_version(artifacts, store.url, manifest))[1]
    return _bits(frame.rename(columns={"unique_id": "ticker", **LEDGER_COLUMNS}))


def _bits(forecasts: pd.DataFrame) -> bytes:
    return forecasts.sort_values(["ticker", "h"])[list(LEDGER_COLUMNS.values())].to_numpy().tobytes()


def _another_future(script: Script, copy: Store, own: pd.DataFrame) -> int:
    """The version of the copy's prices that is the forecast's own up to its cutoff, and something else after it."""
    cutoff, version = own["cutoff"].iloc[0].date(), int(own["prices_version"].iloc[0])
    DeltaTable(copy.table_url("prices")).restore(version)
    later = PriceTable(script.store).raw(script.tickers, first=next_session(cutoff))
    draws = np.random.default_rng(version)
    prices = later[["open", "high", "low", "close"]].mul(np.exp(draws.normal(0, 0.3, len(later))), axis=0)
    volume = np.ceil(later["volume"] * np.exp(draws.normal(0, 1, len(later)))).astype("int64")
    return PriceTable(copy).upsert(later.assign(**prices, volume=volume, split=0.0)).version


def _poor_ones(script: Script, diary: Diary) -> Iterator[str]:
    moves = ArtifactStore(script.store).history("model", NAME, ALIAS)
    poor = [each for each in diary.trainings if each.is_poor]
    if not poor:
        yield "none was trained"
    yield from (f"v{each.version}" for each in poor if each.version in {entry.version for entry in moves})


def _unscored(script: Script) -> Iterator[str]:
    known = PriceTable(script.store).sessions(script.tickers)
    pending = Ledger(script.store).pending(first=script.eve, last=script.end)
    for ticker, session in sorted(set(zip(pending["ticker"], pending["ds"], strict=True))):
        if session in known[ticker]:
            yield f"{ticker} of {session:%Y-%m-%d}"


def _unnoticed(script: Script, diary: Diary) -> Iterator[str]:
    found = noticed(script, diary)
    if found is None or sessions_after(script.shift, found[0]) > NOTICED_WITHIN:
        yield f"it was noticed on {found[0]}" if found else "it was not noticed"
    elif not any(
        each.cause in EVENT_CAUSES.values() and each.version and each.day >= found[0] for each in diary.trainings
    ):
        yield f"noticed on {found[0]}, and no event started a training"


def _not_learnt(script: Script) -> Iterator[str]:
    after = first_since(since_shift(script)["ratio"] <= LEARNT)
    if after is None or after > LEARNT_WITHIN:
        yield f"it first erred {LEARNT} times as much as har, or less, after {after} sessions"


def _not_covered(script: Script) -> Iterator[str]:
    after = first_since(since_shift(script)["covered"].between(*COVERED))
    if after is None or after > COVERED_WITHIN:
        yield f"they first covered {COVERED[0]:.0%} to {COVERED[1]:.0%} after {after} sessions"


def _no_better(script: Script) -> Iterator[str]:
    found = takeover(script)
    if found is None:
        yield "none took over"
        return
    scores = found.scores(script)
    if scores[MODEL] >= scores[HAR]:
        yield f"v{found.version} has MASE {scores[MODEL]:.3f}, har {scores[HAR]:.3f}"
