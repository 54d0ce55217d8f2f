"""A GRU reads a hundred steps of a sine wave it has never seen and goes on for 200 more, fed with its own outputs.

The periods are any number from 12 to 40 steps, the phases anything. The model learns to foretell one step. What lets it
go on alone is noise on the inputs it is trained with: its own outputs will be a little off too.
"""

import numpy as np
from _shared import OUT, run, save

from fastrnn import models, nn, viz

WANTED, WANTED_QUICK = 0.9, 0.6  # 1 less the error: the root mean square of what is off, over all steps and waves
READ, NOISE = 100, 0.1


def waves(n, steps, rng):
    """Sines (n, steps, 1) of amplitude 1, of any period from 12 to 40 and any phase."""
    period, phase = rng.uniform(12, 40, (n, 1, 1)), rng.uniform(0, 2 * np.pi, (n, 1, 1))
    return np.sin(2 * np.pi * np.arange(steps)[:, None] / period + phase).astype(np.float32)


def main(quick=False, out=OUT, seed=0):
    """Train on 4000 waves of 200 steps, continue 200 others from their first 100; quick goes on for 50 steps only."""
    rng = np.random.default_rng(seed)
    count, epochs, written = (2500, 4, 50) if quick else (4000, 20, 200)
    series = waves(count, 200, rng)
    x, y = series[:, :-1], series[:, 1:]
    model = models.SequenceModel(1, 64, cell="gru", rng=rng)
    optimiser = nn.Adam(model, lr=0.01)
    nn.fit(
        model, x + NOISE * rng.standard_normal(x.shape, np.float32), y, loss=nn.MSELoss(), optimiser=optimiser,
        schedule=nn.CosineLR(optimiser, epochs), epochs=epochs, max_norm=1.0, rng=rng,
    )  # fmt: skip
    test = waves(200, READ + written, rng)
    squares = (model.continue_(test[:, :READ], written) - test[:, READ:]) ** 2
    for steps in sorted({1, 20, 50, written}):
        print(f"error of the first {steps} steps: {np.sqrt(squares[:, :steps].mean()):.3f}")
    each = np.sqrt(squares.mean(axis=(1, 2)))
    middle = np.argsort(each)[100]  # the picture is of a wave that is continued as well as half of the others
    ax = viz.forecast(test[middle, :, 0], model.continue_(test[[middle], :READ], written)[0, :, 0])
    ax.lines[1].set(linestyle="--", linewidth=2.5)  # so that the truth is seen through it
    ax.legend(loc="upper left", ncols=2)
    ax.axvline(READ, color="0.5", ls="--", lw=1)
    ax.set_title(f"Continued from step {READ} on; error {each[middle]:.3f}, of all waves {np.sqrt(squares.mean()):.3f}")
    return {"score": 1 - float(np.sqrt(squares.mean())), "picture": save(ax, out, "sequence_generation")}


if __name__ == "__main__":
    run(main)
