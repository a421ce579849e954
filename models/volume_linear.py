"""The linear member of the volume forecaster: what a ticker's own history says, beside networks that serve all tickers.

With x_1 .. x_B what a network is given at cutoff t for session t + h (1, the scaled columns of t, those of the session
ahead), and the target as the networks have it, log V(t + h) less the level of t:

    median = (1 - w) * the networks' median + w * (m + b_1 x_1 + ... + b_B x_B)

1. b: for each ticker and horizon, as har has it (models/har.py): weighted least squares, shrunk towards what all
   tickers of the fit together say (MOST_POOLED of them, where they are more), and these by PRIOR sessions towards the
   pretrained ones, or 0
2. m: the median of the ticker's errors of the last ERRORS cutoffs, shrunk by n / (n + FEW_ERRORS) where there are n:
   least squares say means of logs, and absolute errors ask for medians
3. w = share * n / (n + TRUST), n the weighted sessions of the ticker's fit: a short history says little. It is 0 for a
   ticker that was not in the fit

All quantiles move as the median does. Chosen on 2017 to 2020 (docs/results.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from volcast.models.har import HALF_LIFE, own_ridge, pooled_ridge
from volcast.models.panel import HORIZONS
from volcast.models.volume_inputs import AHEAD_COLUMNS, AT_COLUMNS
from volcast.models.weights import side_by_side

# N tickers, T sessions, C cutoffs, H horizons, R rows of a fit, B coefficients, X columns of a session, A of one ahead

PRIOR = 1000  # sessions
ERRORS, FEW_ERRORS = 1000, 100
TRUST = 500  # sessions
MOST_POOLED = 256
COEFFICIENTS = 1 + len(AT_COLUMNS) + len(AHEAD_COLUMNS)


@dataclass(frozen=True, kw_only=True, eq=False)
class History:
    """What one ticker is fitted on, a row a cutoff."""

    cutoff_R: np.ndarray  # int64, places
    x_RX: Tensor  # float32, scaled
    ahead_RHA: Tensor  # float32
    target_RH: np.ndarray  # float32, NaN where there is none

    def newest(self, cutoffs: int) -> "History":
        """The newest so many of its cutoffs."""
        return History(**{name: values[-cutoffs:] for name, values in vars(self).items()})


@dataclass(frozen=True, kw_only=True, eq=False)
class Coefficients:
    """Those of a panel's tickers, on a device: zeros of a ticker that was not in the fit."""

    own_NHB: Tensor
    share_NH: Tensor

    def of(self, tickers: Tensor) -> "Coefficients":
        """Those of some of the panel's tickers."""
        return Coefficients(own_NHB=self.own_NHB[tickers], share_NH=self.share_NH[tickers])

    def shift(self, median_NCH: Tensor, x_NCX: Tensor, ahead_NCHA: Tensor) -> Tensor:
        """(N, C, H): how far the networks' quantiles move; C of `x_NCX` may be 1, a session with several answers."""
        own_NHX, own_NHA = self.own_NHB[..., 1 : 1 + x_NCX.shape[-1]], self.own_NHB[..., 1 + x_NCX.shape[-1] :]
        said_NCH = torch.einsum("ncx,nhx->nch", x_NCX, own_NHX) + torch.einsum("ncha,nha->nch", ahead_NCHA, own_NHA)
        return self.share_NH[:, None] * (said_NCH + self.own_NHB[:, None, :, 0] - median_NCH)


class LinearMember(nn.Module):
    """The coefficients of the tickers that it was fitted on, by their names."""

    pooled_HB: Tensor  # float32: of all tickers of the fit together
    own_NHB: Tensor  # float32: of each; the first is that of 1, m in it
    share_NH: Tensor  # float32: w
    names: Tensor  # uint8: the tickers, one a line, in UTF-8

    def __init__(self, *, tickers: int = 0, letters: int = 0) -> None:
        super().__init__()
        self.register_buffer("pooled_HB", torch.zeros(HORIZONS, COEFFICIENTS))
        self.register_buffer("own_NHB", torch.zeros(tickers, HORIZONS, COEFFICIENTS))
        self.register_buffer("share_NH", torch.zeros(tickers, HORIZONS))
        self.register_buffer("names", torch.zeros(letters, dtype=torch.uint8))

    def fitted(
        self, tickers: Sequence[str], history: Callable[[int, int], History], *, through: int, share: float
    ) -> "LinearMember":
        """A fit on targets up to place `through`, shrunk towards the pooled coefficients of this one.

        `history(row, newest)` gives the newest so many cutoffs of one of the tickers; 0: all.
        """
        found, names = LinearMember(tickers=len(tickers)), "\n".join(tickers).encode()
        found.names = torch.frombuffer(bytearray(names), dtype=torch.uint8)
        some = np.unique(np.linspace(0, len(tickers) - 1, min(len(tickers), MOST_POOLED)).astype(int)).tolist()

        def products(row: int) -> np.ndarray:
            return _products(history(row, 0), through)

        with threadpool_limits(1, "blas"):
            kept = dict(zip(some, side_by_side(products, some), strict=True))
            sums_HBB = np.stack(list(kept.values())).sum(axis=0, dtype=np.float64)
            added_B, towards_HB = np.full(COEFFICIENTS, PRIOR), self.pooled_HB.double().numpy()
            held = [pooled_ridge(*each) for each in zip(sums_HBB, [added_B] * HORIZONS, towards_HB, strict=True)]
            found.pooled_HB = torch.from_numpy(np.stack([pooled_B for pooled_B, _ in held])).float()

            def fit(row: int) -> None:
                newest = history(row, ERRORS if row in kept else 0)
                own_HBB = (kept.pop(row) if row in kept else _products(newest, through)).astype(np.float64)
                own = [own_ridge(each[None], *prior)[0] for each, prior in zip(own_HBB, held, strict=True)]
                own_HB, sessions_H = np.stack(own), own_HBB[:, 0, 0]
                own_HB[:, 0] += _middle(newest.newest(ERRORS), own_HB)
                found.own_NHB[row] = torch.from_numpy(own_HB)
                found.share_NH[row] = torch.from_numpy(share * sessions_H / (sessions_H + TRUST))

            list(side_by_side(fit, range(len(tickers))))
        return found

    def of(self, tickers: Sequence[str]) -> Coefficients:
        """The coefficients of a panel's tickers."""
        text = bytes(self.names.cpu().numpy()).decode()
        places = {name: place for place, name in enumerate(text.split("\n"))} if text else {}
        device = self.own_NHB.device
        own_NHB, share_NH = (
            torch.zeros((len(tickers), *each.shape[1:]), device=device) for each in (self.own_NHB, self.share_NH)
        )
        there = [row for row, ticker in enumerate(tickers) if ticker in places]
        which = [places[tickers[row]] for row in there]
        own_NHB[there], share_NH[there] = self.own_NHB[which], self.share_NH[which]
        return Coefficients(own_NHB=own_NHB, share_NH=share_NH)


def _columns(history: History, h: int) -> np.ndarray:
    """(R, B) float32."""
    x_RX, ahead_RA = history.x_RX.numpy(), history.ahead_RHA[:, h].numpy()
    return np.concatenate([np.ones((len(x_RX), 1)), x_RX, ahead_RA], axis=1, dtype=np.float32)


def _products(history: History, through: int) -> np.ndarray:
    """(H, B + 1, B + 1) float32: weighted sums of products of the regressors and, last, the target.

    In float32 they take a fourth of the time: half the bytes, and a matrix by itself is half the products.
    """
    found = []
    for h in range(HORIZONS):
        target_R1 = history.target_RH[:, h, None]
        weight_R1 = 0.5 ** ((through - history.cutoff_R[:, None] - 1 - h) / HALF_LIFE)
        whole_RB = np.concatenate([_columns(history, h), np.nan_to_num(target_R1)], axis=1)
        whole_RB *= np.sqrt(np.where(np.isfinite(target_R1), weight_R1, 0), dtype=np.float32)
        found.append(whole_RB.T @ whole_RB)
    return np.stack(found)


def _middle(newest: History, own_HB: np.ndarray) -> np.ndarray:
    """(H,): the median of the newest errors, shrunk."""
    middle_H = np.zeros(HORIZONS)
    for h, own_B in enumerate(own_HB):
        error_R = newest.target_RH[:, h] - _columns(newest, h) @ own_B
        error_R = error_R[np.isfinite(error_R)]
        if len(error_R):
            middle_H[h] = np.median(error_R) * len(error_R) / (len(error_R) + FEW_ERRORS)
    return middle_H
