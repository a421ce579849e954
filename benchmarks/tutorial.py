"""The tutorial recipe on the article's own year of SBUX, over many seeds: does it give what the article's code gives?

python -m benchmarks.tutorial [--data ../shared/data/SBUX_tutorial.csv] [--fit-scalers-on all train] [--seeds 20]
"""

import argparse
from pathlib import Path

import pandas as pd
import torch

from volcast.models.forecasters import MODEL
from volcast.models.recipes import TutorialRecipe, make_recipe
from volcast.models.tutorial import BASELINES, build_features, evaluate_nowcast, fit, fit_scaler, tensors

REPRODUCED = (0.0102, 0.0117)  # final losses of the article's code on this file when no unit is dead
STUCK = 0.0135  # above it the ReLU after the LSTM has lost a unit or both


def read_prices(path: Path, ticker: str = "SBUX") -> pd.DataFrame:
    """Yahoo's CSV columns under the names of the prices table."""
    prices = pd.read_csv(path, parse_dates=["Date"]).rename(columns={"Date": "session", "Adj Close": "adj_close"})
    return prices.rename(columns=str.lower).assign(ticker=ticker)


def run_seeds(frame: pd.DataFrame, recipe: TutorialRecipe, seeds: int) -> pd.DataFrame:
    """One row a seed: final_loss, seconds, and the test RMSE in shares of volcast and of each baseline."""
    x_NF, _ = tensors(frame, recipe)
    scaler = fit_scaler(frame, recipe)
    results = []
    for seed in range(seeds):
        fitted = fit(frame, recipe, scaler=scaler, seed=seed, device=torch.device("cpu"))
        rmses = evaluate_nowcast(frame, fitted.nowcaster.predict(x_NF), recipe).table["rmse_shares"]
        results.append({"final_loss": fitted.final_loss, "seconds": fitted.seconds, **rmses.to_dict()})
    return pd.DataFrame(results).rename_axis("seed")


def print_table(table: pd.DataFrame, recipe: TutorialRecipe) -> None:
    """A row a seed, the medians, and the baselines."""
    print(f"\nScalers fitted on {recipe.fit_scalers_on} rows\n")
    shown = table.assign(test_rmse=table[MODEL])[["final_loss", "test_rmse", "seconds"]]
    print(shown.to_string(float_format="%.4f"))
    losses = table["final_loss"]
    print(f"\nmedian final loss {losses.median():.4f}, median test RMSE {table[MODEL].median():,.0f} shares")
    print(f"{losses.between(*REPRODUCED).sum()} of {len(table)} final losses within {REPRODUCED[0]} to {REPRODUCED[1]}")
    print(f"{(losses > STUCK).sum()} of {len(table)} stuck above {STUCK}")
    for name in BASELINES:
        print(f"test RMSE of {name}: {table[name].iloc[0]:,.0f} shares")


def main() -> None:
    """Prints one table for each way of fitting the scalers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/SBUX_tutorial.csv"))
    parser.add_argument("--fit-scalers-on", nargs="+", choices=["all", "train"], default=["all", "train"])
    parser.add_argument("--seeds", type=int, default=20)
    arguments = parser.parse_args()
    prices = read_prices(arguments.data)
    print(f"{arguments.data}: {len(prices)} sessions; torch {torch.__version__}")
    for fit_scalers_on in arguments.fit_scalers_on:
        recipe = make_recipe("tutorial", fit_scalers_on=fit_scalers_on)
        print_table(run_seeds(build_features(prices, recipe), recipe, arguments.seeds), recipe)


if __name__ == "__main__":
    main()
