"""The scalers as part of the module, so that they are saved, loaded and moved with the weights."""

import pandas as pd
import torch
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from torch import Tensor, nn

from models.features import rows, tensors
from models.recipes import TutorialRecipe

# N sessions, F features


class Scaler(nn.Module):
    """Features to mean 0 and variance 1, target to 0..1, in float64, as scikit-learn's two scalers do it.

    x' = (x - mean) / scale and y' = y * scale + min, with scikit-learn's own fitted numbers: population variance, and a
    scale of 1 for a column that is constant. Every buffer is NaN until `fit_scaler` or `load_state_dict` fills it.
    """

    feature_mean: Tensor  # (F,), USD a share
    feature_scale: Tensor  # (F,), USD a share
    target_min: Tensor  # (1,), of the scaled target: what 0 shares become
    target_scale: Tensor  # (1,), per share

    def __init__(self, feature_count: int) -> None:
        super().__init__()
        sizes = {"feature_mean": feature_count, "feature_scale": feature_count}
        for name, size in {**sizes, "target_min": 1, "target_scale": 1}.items():
            self.register_buffer(name, torch.full((size,), torch.nan, dtype=torch.float64))

    def scale_features(self, x_NF: Tensor) -> Tensor:
        """Prices in USD a share to units of the fitted rows' standard deviation; (N, F) float64."""
        return (x_NF - self.feature_mean) / self.feature_scale

    def scale_target(self, y_N1: Tensor) -> Tensor:
        """Shares to 0..1 over the fitted rows (outside of it for others); (N, 1) float64."""
        return y_N1 * self.target_scale + self.target_min

    def unscale_target(self, y_N1: Tensor) -> Tensor:
        """The inverse of `scale_target`: shares, not clipped."""
        return (y_N1 - self.target_min) / self.target_scale


def fit_scaler(frame: pd.DataFrame, recipe: TutorialRecipe) -> Scaler:
    """The scaler of a frame of `build_features`, fitted on its train rows, or on every row for fit_scalers_on="all"."""
    fitted_on = frame if recipe.fit_scalers_on == "all" else rows(frame, "train")
    x_NF, y_N1 = (tensor.numpy() for tensor in tensors(fitted_on, recipe))
    standard, min_max = StandardScaler().fit(x_NF), MinMaxScaler().fit(y_N1)
    scaler = Scaler(len(recipe.features))
    scaler.load_state_dict(
        {
            "feature_mean": torch.as_tensor(standard.mean_),
            "feature_scale": torch.as_tensor(standard.scale_),
            "target_min": torch.as_tensor(min_max.min_),
            "target_scale": torch.as_tensor(min_max.scale_),
        }
    )
    return scaler
