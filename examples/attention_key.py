"""One of four keys is planted at a random step in noise: a GRU with attention over time says which, and shows where."""

import numpy as np
from _shared import OUT, accuracy, run, save

import fastrnn
from fastrnn import nn, viz

WANTED, WANTED_QUICK = 0.99, 0.9  # accuracy on sequences that were not trained on
WIDTH, KEYS = 8, 4


def planted(n, steps, rng, keys):
    """Noise (n, steps, WIDTH) with a key in one step of each sequence; which key, and where."""
    x, which, where = rng.standard_normal((n, steps, WIDTH)), rng.integers(KEYS, size=n), rng.integers(steps, size=n)
    x[np.arange(n), where] = keys[which] + 0.3 * rng.standard_normal((n, WIDTH))
    return x.astype(np.float32), which, where


def main(quick=False, out=OUT, seed=0):
    """Train on 4000 sequences of 40 steps, test on 500 others."""
    rng = np.random.default_rng(seed)
    keys = 4 * np.linalg.qr(rng.standard_normal((WIDTH, KEYS)))[0].T  # steps of noise are 2.8 long on average
    (x, which, _), test = planted(1500 if quick else 4000, 40, rng, keys), planted(500, 40, rng, keys)
    model = nn.Sequential(
        fastrnn.GRU(WIDTH, 32, batch_first=True, rng=rng),
        nn.AttentionPooling(32, 16, rng=rng),
        nn.Linear(32, KEYS, rng=rng),
    )
    epochs, optimiser = 5 if quick else 12, nn.Adam(model, lr=0.01)
    history = nn.fit(
        model, x, which, loss=nn.CrossEntropyLoss(), optimiser=optimiser, schedule=nn.CosineLR(optimiser, epochs),
        epochs=epochs, max_norm=1.0, metrics={"accuracy": accuracy}, rng=rng,
    )  # fmt: skip
    print(f"training accuracy of the last epoch {history.epochs[-1]['accuracy']:.3f}")
    gru, pooling, _ = model
    weights = pooling.weights(gru(test[0])[0])
    late = weights.argmax(axis=1) - test[2]
    print(f"the largest weight is on the key's step in {np.mean(late == 0):.0%} of the sequences, ", end="")
    print(f"on one of the three after it in {np.mean((late > 0) & (late <= 3)):.0%}")
    order = np.argsort(test[2][:20])
    ax = viz.attention(weights[:20][order])
    ax.plot(test[2][:20][order], np.arange(20), "x", color="red", label="the key")
    ax.set(xlabel="time step", ylabel="sequence")
    ax.legend(loc="upper right")
    return {"score": accuracy(model(test[0]), test[1]), "picture": save(ax, out, "attention_key")}


if __name__ == "__main__":
    run(main)
