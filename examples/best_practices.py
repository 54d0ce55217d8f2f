"""What helps a deep recurrent network to learn, all in one: a language model of characters, by good habits.

- Layers: normalised inside their cells (`layer_norm`), with dropout between them and before the head.
- Long texts: truncated backpropagation through time. The layers are `stateful`: each batch goes on in the text where
  the one before stopped, and the gradient goes back through the 64 characters of its own.
- Steps: gradients clipped to a norm of 1; Adam, whose learning rate falls whenever the validation loss has not.
- The end: when the validation loss has not got better three times in a row, with the weights that were best.
- The score: by a part of the text that decided nothing of this.

The text is Python's language reference.
"""

from pydoc_data.topics import topics

import numpy as np
from _shared import OUT, run, save

import fastrnn
from fastrnn import data, nn, viz

WANTED, WANTED_QUICK = 0.5, 0.25  # what is saved of the bits that a character costs by how common it is
B, T = 16, 64  # places in the text that are read at a time, and characters that the gradient goes back through


def batches(numbers):
    """Characters and those that follow them, (N, T) each: B rows are a batch, and the next B go on from them."""
    length = (len(numbers) - 1) // (B * T) * T
    pieces = (part[: B * length].reshape(B, -1, T) for part in (numbers[:-1], numbers[1:]))
    return tuple(piece.swapaxes(0, 1).reshape(-1, T) for piece in pieces)


def bits(model, x, y):
    """What a character costs with the model, batch after batch."""
    logits = [model(x[start : start + B]) for start in range(0, len(x), B)]
    return nn.CrossEntropyLoss()(np.concatenate(logits), y) / np.log(2)


def main(quick=False, out=OUT, seed=0):
    """Train on 160000 characters, validate with the next 20000, test with the 20000 after these. Quick: a quarter."""
    rng = np.random.default_rng(seed)
    text = "\n".join(topics[name] for name in sorted(topics))[: 50_000 if quick else 200_000]
    vocabulary = data.CharVocabulary(text)
    size, hidden = len(vocabulary), 64 if quick else 128
    training, validation, test = map(batches, data.time_split(vocabulary.encode(text), (0.8, 0.1, 0.1)))
    options = {"layer_norm": True, "dropout": 0.3, "stateful": True, "batch_first": True}
    layers = fastrnn.LSTM(32, hidden, num_layers=2, **options, rng=rng)
    embedding, head = nn.Embedding(size, 32, rng=rng), nn.Linear(hidden, size, rng=rng)
    model = nn.Sequential(embedding, layers, nn.Dropout(0.3, rng=rng), head)
    optimiser = nn.Adam(model, lr=0.005)
    history = nn.fit(
        model, *training, loss=nn.CrossEntropyLoss(), optimiser=optimiser, epochs=4 if quick else 20, batch_size=B,
        validation=validation, patience=3, schedule=nn.ReduceOnPlateau(optimiser, factor=0.3, patience=0),
        shuffle=False, max_norm=1.0,
    )  # fmt: skip
    common = np.bincount(training[0].ravel(), minlength=size) + 1
    counted = -np.log2(common / common.sum())[test[1]].mean()
    learned = bits(model, *test)
    print(f"best epoch {history.best_epoch} of {len(history.epochs)}, rates {sorted({*history.to_dict()['lr']})[::-1]}")
    print(f"bits per character of the test: {learned:.2f}; by how common each one is: {counted:.2f}")
    losses = {name: np.array(history.to_dict()[name]) / np.log(2) for name in ("loss", "val_loss")}
    ax = viz.loss_history(losses, unit="bits per character", title=f"Characters: {learned:.2f} bits each in the test")
    return {"score": float(1 - learned / counted), "picture": save(ax, out, "best_practices")}


if __name__ == "__main__":
    run(main)
