"""Digits read from the top and from the bottom: an LSTM of two directions, and of each the state where it ends."""

import numpy as np
from _shared import OUT, accuracy, run, save
from digits_classifier import digits

import fastrnn
from fastrnn import nn, viz

WANTED, WANTED_QUICK = 0.97, 0.85  # test accuracy


def main(quick=False, out=OUT, seed=0):
    """Train on 1437 images, test on 360 others."""
    rng = np.random.default_rng(seed)
    training, test = digits(rng)
    lstm = fastrnn.LSTM(8, 48, batch_first=True, bidirectional=True, forget_bias=1.0, rng=rng)
    pixels, ends = nn.Dropout(0.1, rng=rng), nn.Dropout(0.2, rng=rng)
    model = nn.Sequential(pixels, nn.FinalState(lstm), ends, nn.Linear(96, 10, rng=rng))
    epochs, optimiser = 5 if quick else 25, nn.Adam(model, lr=0.01)
    history = nn.fit(
        model, *training, loss=nn.CrossEntropyLoss(), optimiser=optimiser, schedule=nn.CosineLR(optimiser, epochs),
        epochs=epochs, metrics={"accuracy": accuracy}, max_norm=1.0, rng=rng,
    )  # fmt: skip
    score = accuracy(model(test[0]), test[1])
    print(f"training accuracy of the last epoch {history.epochs[-1]['accuracy']:.3f}, test accuracy {score:.3f}")
    ax = viz.unrolled(lstm, steps=3)
    ax.set_title(f"Digits from both ends: test accuracy {score:.3f}")
    return {"score": score, "picture": save(ax, out, "digits_bidirectional")}


if __name__ == "__main__":
    run(main)
