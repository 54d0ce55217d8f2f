"""Two stacked LSTMs foretell the next character of Python's language reference, which comes with Python, and write on.

The last tenth of the text is held out. The score is the part of a character's bits that the model saves there, against
knowing only how frequent each character is: 0 is no better than that, 1 would be knowing everything in advance.
"""

import math
from pydoc_data.topics import topics

import numpy as np
from _shared import OUT, run, save

from fastrnn import data, models, nn, viz

WANTED, WANTED_QUICK = 0.56, 0.2
STEPS = 64  # that the gradient goes back
PROMPT = "The "


def frequency_bits(training, held_out, characters):
    """Bits per character of `held_out` for one who has counted the characters of `training`."""
    counts = np.bincount(training, minlength=characters) + 1
    return float(-np.log2(counts / counts.sum())[held_out].mean())


def main(quick=False, out=OUT, seed=0):
    """Train by truncated backpropagation through time, state handed on; print what it writes in several ways."""
    rng = np.random.default_rng(seed)
    paragraphs = dict.fromkeys("\n\n".join(topics[name] for name in sorted(topics)).split("\n\n"))
    text = "\n\n".join(paragraphs)[: 120_000 if quick else None]  # once each: topics have parts in common
    vocabulary = data.CharVocabulary(text)
    numbers = vocabulary.encode(text)
    training, held_out = data.time_split(numbers, (0.9, 0.1))
    print(f"{len(text):,} characters, {len(vocabulary)} different ones")

    model = models.CharModel(vocabulary, 32, 64 if quick else 128, num_layers=2, rng=rng)
    epochs, batch, optimiser = 2 if quick else 5, 8 if quick else 16, nn.Adam(model, lr=0.006)
    schedule = nn.CosineLR(optimiser, epochs * math.ceil(len(training) / batch / STEPS), eta_min=3e-4)
    history = {"loss": [], "val_loss": []}
    for epoch in range(epochs):
        bits, chunks = [], data.text_batches(training, batch, STEPS)
        for loss in nn.truncated_bptt(model, nn.CrossEntropyLoss(), optimiser, chunks, max_norm=1.0):
            bits.append(loss / math.log(2))
            schedule.step()
        history["loss"].append(np.mean(bits))
        history["val_loss"].append(model.bits_per_character(held_out))
        print(
            f"epoch {epoch + 1}: bits per character {history['loss'][-1]:.3f}, held out {history['val_loss'][-1]:.3f}"
        )

    bits, counted = history["val_loss"][-1], frequency_bits(training, held_out, len(vocabulary))
    print(f"held out {bits:.3f} bits per character; by how frequent each is {counted:.3f}")
    for temperature, top_k in ((0, None), (0.5, None), (1, None), (1, 5)):
        sample = "".join(model.generate(PROMPT, 60 if quick else 240, temperature, rng, top_k=top_k))
        print(f"\n--- temperature {temperature}, {f'among the {top_k} likeliest' if top_k else 'among all'}")
        print(PROMPT + sample)
    ax = viz.loss_history(
        history, unit="bits per character", title=f"Characters: {bits:.2f} bits instead of {counted:.2f}"
    )
    return {"score": 1 - bits / counted, "picture": save(ax, out, "char_generation")}


if __name__ == "__main__":
    run(main)
