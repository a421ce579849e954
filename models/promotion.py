"""Whether a challenger takes the champion's place."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from models.metrics import format_shares


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The gate's answer, and the sentence that says why."""

    promote: bool
    reason: str


def decide(challenger: float, champion: float | None, *, baselines: Mapping[str, float]) -> Decision:
    """Promotes the first version, and then each that is not worse (<=) than the present champion.

    All numbers are RMSE in shares, of present models on the same test rows (never a champion's old score); `champion`
    is None when there is none. Baselines do not gate: the verdict against each is part of the reason. Raises ValueError
    for a number that is not finite, or without a baseline.
    """
    if not baselines:
        raise ValueError("A decision needs at least one baseline's RMSE on the same rows.")
    named = {"challenger": challenger, **({} if champion is None else {"champion": champion}), **baselines}
    unusable = [f"{name} {rmse}" for name, rmse in named.items() if not math.isfinite(rmse)]
    if unusable:
        raise ValueError(f"A decision needs finite RMSEs; {', '.join(unusable)} came.")
    promote = champion is None or challenger <= champion
    return Decision(promote=promote, reason=f"{_verdict(challenger, champion)} {_against(challenger, baselines)}")


def _verdict(challenger: float, champion: float | None) -> str:
    own = f"RMSE {format_shares(challenger)} shares"
    if champion is None:
        return f"Promoted: the first version, {own}."
    verdict = "Promoted: not worse" if challenger <= champion else "Not promoted: worse"
    return f"{verdict} than the champion on the same sessions, {own} against {format_shares(champion)}."


def _against(challenger: float, baselines: Mapping[str, float]) -> str:
    beaten = [f"{name} ({format_shares(rmse)})" for name, rmse in baselines.items() if challenger < rmse]
    others = [f"{name} ({format_shares(rmse)})" for name, rmse in baselines.items() if not challenger < rmse]
    if not others:
        return f"It beats every baseline: {', '.join(beaten)}."
    if not beaten:
        return f"It beats no baseline: {', '.join(others)}."
    return f"It beats {', '.join(beaten)}, and does not beat {', '.join(others)}."
