"""Handwritten digits (scikit-learn's, 8 by 8 pixels) read row by row by a GRU of two layers."""

import numpy as np
from _shared import OUT, accuracy, optional, run, save

import fastrnn
from fastrnn import nn, viz

WANTED, WANTED_QUICK = 0.97, 0.9  # test accuracy


def digits(rng):
    """Training and test set: images (N, 8, 8) from 0 to 1 and labels, 360 of 1797 in the test set."""
    data = optional("sklearn.datasets", "scikit-learn").load_digits()
    order = rng.permutation(len(data.target))
    x, y = (data.images[order] / 16).astype(np.float32), data.target[order]
    return (x[360:], y[360:]), (x[:360], y[:360])


def main(quick=False, out=OUT, seed=0):
    """Train on 1437 images, test on 360 others."""
    rng = np.random.default_rng(seed)
    training, test = digits(rng)
    model = nn.Sequential(
        fastrnn.GRU(8, 64, num_layers=2, batch_first=True, dropout=0.2, rng=rng),
        nn.LastStep(),
        nn.Linear(64, 10, rng=rng),
    )
    print(model.summary((8, 8)))
    epochs, optimiser = 6 if quick else 25, nn.Adam(model, lr=0.005)
    history = nn.fit(
        model, *training, loss=nn.CrossEntropyLoss(), optimiser=optimiser, schedule=nn.CosineLR(optimiser, epochs),
        epochs=epochs, validation_split=0.1, metrics={"accuracy": accuracy}, max_norm=1.0, rng=rng,
    )  # fmt: skip
    score = accuracy(model(test[0]), test[1])
    ax = viz.loss_history(history, unit="cross-entropy", title=f"Digits row by row: test accuracy {score:.3f}")
    return {"score": score, "picture": save(ax, out, "digits_classifier")}


if __name__ == "__main__":
    run(main)
