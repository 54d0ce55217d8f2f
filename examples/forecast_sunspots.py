"""Next year's sunspots (statsmodels' yearly series, 1700 to 2008) from the last 22 years, by the mean of five LSTMs."""

import numpy as np
from _shared import OUT, optional, run, save

import fastrnn
from fastrnn import data, nn, viz

WANTED = 0.3  # how far the error is below the better one of the two simple forecasts
LENGTH, SEASON = 22, 11  # two cycles of the sun, one


def rmse(predicted, actual):
    """The root of the mean squared error."""
    return float(np.sqrt(np.mean((predicted - actual) ** 2)))


def main(quick=False, out=OUT, seed=0):
    """Train on the first 70 percent of the years, stop by the next 15, test on the last 15."""
    rng = np.random.default_rng(seed)
    frame = optional("statsmodels.api", "statsmodels").datasets.sunspots.load_pandas().data
    spots = frame["SUNACTIVITY"].to_numpy(np.float32)
    series = np.sqrt(spots) / 5  # minima and maxima vary alike then
    x, y = data.windows(series, LENGTH)
    training, validation, test = data.time_split((x, y[:, 0]), (0.7, 0.15, 0.15))
    forecasts = []
    for _ in range(2 if quick else 5):  # single ones differ, their mean hardly does
        model = nn.Sequential(fastrnn.LSTM(1, 16, batch_first=True, rng=rng), nn.LastStep(), nn.Linear(16, 1, rng=rng))
        history = nn.fit(
            model, *training, loss=nn.MSELoss(), optimiser=nn.Adam(model, lr=0.005), validation=validation,
            batch_size=8, epochs=20 if quick else 150, patience=20, max_norm=1.0, rng=rng,
        )  # fmt: skip
        print(f"best epoch {history.best_epoch} of {len(history.epochs)}")
        forecasts.append((5 * model(x)[:, 0]) ** 2)
    predicted = np.mean(forecasts, axis=0)
    first = len(spots) - len(test[1])  # the first year of the test
    errors = {
        "LSTMs": rmse(predicted[-len(test[1]) :], spots[first:]),
        "as last year (persistence)": rmse(spots[first - 1 : -1], spots[first:]),
        "as 11 years ago (seasonal naive)": rmse(spots[first - SEASON : -SEASON], spots[first:]),
    }
    print("root mean square error of the test years:")
    for name, error in errors.items():
        print(f"{error:6.1f}  {name}")
    lstms, *simple = errors.values()
    ax = viz.forecast(spots, predicted, split=first, unit="sunspots")
    ax.set_xlabel(f"years since {frame['YEAR'].iloc[0]:.0f}")
    return {"score": 1 - lstms / min(simple), "picture": save(ax, out, "forecast_sunspots")}


if __name__ == "__main__":
    run(main)
