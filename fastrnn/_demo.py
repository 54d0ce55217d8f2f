"""The demo of the command line: train a character model on real text, and let it write."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastrnn import config_context, get_config
from fastrnn._progress import Progress
from fastrnn.data import CharVocabulary, read_text, text_batches
from fastrnn.models.char_model import CharModel, check_sampling
from fastrnn.nn import Adam, CrossEntropyLoss, truncated_bptt

VALIDATION_SHARE = 0.1


@dataclass
class Settings:
    """Everything that decides what the demo does."""

    text: str | None = None
    out: str = "fastrnn-demo"
    prompt: str = "The "
    temperature: float = 0.6
    seed: int = 0
    epochs: int = 8
    embedding_dim: int = 32
    hidden_size: int = 256
    batch_size: int = 32
    steps: int = 64
    lr: float = 4e-3
    max_norm: float = 5.0
    comparison_steps: int = 6
    characters: int = 500
    limit: int | None = None  # of the text, in characters

    def quick(self) -> Settings:
        """The same in a few seconds: less text, a smaller model, smaller batches so that it still learns something."""
        self.limit, self.batch_size, self.hidden_size = 300_000, 16, 128
        self.epochs, self.comparison_steps, self.characters = 4, 4, 300
        return self


def load_text(path: str | None) -> str:
    """The text of a file; without one, Python's own language reference, which lies beside every Python."""
    if path is not None:
        return read_text(path)
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise ValueError("this Python comes without pydoc_data.topics; give a text with --text FILE") from None
    return "\n".join(topics[name] for name in sorted(topics))


@contextmanager
def stopping_on_interrupt() -> Iterator[list[bool]]:
    """A list that becomes true at Ctrl-C, so that training can stop between two steps; a second Ctrl-C is as ever."""
    stopped: list[bool] = []

    def stop(signum, frame):
        stopped.append(True)
        signal.signal(signal.SIGINT, before)

    try:
        before = signal.signal(signal.SIGINT, stop)
    except ValueError:  # not in the main thread, where signals do not come
        yield stopped
        return
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)


def compare_engines(settings: Settings, vocabulary: CharVocabulary, numbers: np.ndarray) -> None:
    """The same training steps on the reference and on the compiled engine, and what came of them."""
    # One step more than is counted: the first one of an engine also starts threads and touches fresh memory.
    chunks = list(text_batches(numbers, settings.batch_size, settings.steps))[: settings.comparison_steps + 1]
    losses, rates = {}, {}
    for engine in ("reference", "auto"):
        model = CharModel(vocabulary, settings.embedding_dim, settings.hidden_size, rng=settings.seed)
        training = truncated_bptt(
            model, CrossEntropyLoss(), Adam(model, settings.lr), chunks, max_norm=settings.max_norm
        )
        time.sleep(0.3)  # a BLAS's idle threads spin for a while before they sleep, and the engines use different ones
        with config_context(engine=engine):
            name = get_config()["engine"]
            first = next(training)
            start = time.perf_counter()
            losses[name] = np.array([first, *training])
            rates[name] = sum(inputs.size for inputs, _ in chunks[1:]) / (time.perf_counter() - start)
    (slow, fast), difference = rates, float(np.abs(np.subtract(*losses.values())).max())
    print(f"The same {len(chunks)} training steps on both engines, the first not timed:")
    print(f"  {slow:<10} {rates[slow]:>10,.0f} tokens/s   (NumPy)")
    print(f"  {fast:<10} {rates[fast]:>10,.0f} tokens/s   {rates[fast] / rates[slow]:.1f} times as fast")
    print(f"  largest difference of the losses: {difference:.1e} nats")


def train(
    settings: Settings, model: CharModel, training: np.ndarray, validation: np.ndarray
) -> tuple[list, list, bool]:
    """Bits per character of each epoch in training and validation, and whether it was stopped by Ctrl-C."""
    optimiser, loss = Adam(model, settings.lr), CrossEntropyLoss()
    history: tuple[list[float], list[float]] = ([], [])
    with stopping_on_interrupt() as stopped:
        for epoch in range(1, settings.epochs + 1):
            # A half cosine from lr to a twentieth of it.
            optimiser.lr = settings.lr * (0.525 + 0.475 * math.cos(math.pi * (epoch - 1) / max(1, settings.epochs - 1)))
            chunks = list(text_batches(training, settings.batch_size, settings.steps))
            tokens = [targets.size for _, targets in chunks]
            progress = Progress(f"epoch {epoch}/{settings.epochs}", sum(tokens), "tokens")
            bits = 0.0
            steps = truncated_bptt(model, loss, optimiser, chunks, max_norm=settings.max_norm)
            for size, value in zip(tokens, steps, strict=True):
                bits += value / math.log(2) * size
                progress.advance(size, f"{value / math.log(2):.2f} bits/char")
                if stopped:
                    break
            progress.close()
            history[0].append(bits / progress.done)
            history[1].append(model.bits_per_character(validation, settings.batch_size))
            print(
                f"  epoch {epoch}/{settings.epochs}: training {history[0][-1]:.3f}, validation {history[1][-1]:.3f}"
                f" bits per character   {progress.rate:,.0f} tokens/s",
                flush=True,
            )
            if stopped:
                return *history, True
    return *history, False


def save_curve(path: str, training: list, validation: list) -> bool:
    """Save the loss curve; False where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from fastrnn import viz

    losses = {"loss": training, "val_loss": validation}
    ax = viz.loss_history(losses, unit="bits per character", title="Character LSTM")
    ax.figure.savefig(path)
    return True


def write(model: CharModel, prompt: str, length: int, temperature: float, seed: int | None) -> None:
    """Print a prompt and what the model makes of it."""
    characters = model.generate(prompt, length, temperature, seed)
    print(prompt, end="")
    for character in characters:
        print(character, end="", flush=True)
    print()


def run(settings: Settings) -> int:
    """Run the demo; the exit code."""
    begin = time.perf_counter()
    text = load_text(settings.text)[: settings.limit]
    vocabulary = CharVocabulary(text)
    check_sampling(vocabulary, settings.prompt, settings.temperature)  # now, and not after the training
    numbers = vocabulary.encode(text)
    split = int(len(numbers) * (1 - VALIDATION_SHARE))
    training, validation = numbers[:split], numbers[split:]
    shortest = settings.batch_size + 1
    if min(len(training), len(validation)) < shortest:
        raise ValueError(
            f"text: {len(text):,} characters, expected at least {math.ceil(shortest / VALIDATION_SHARE):,}: a tenth is "
            f"for validation, and a batch takes {settings.batch_size} pieces"
        )
    weights, picture = Path(settings.out + ".npz"), settings.out + ".png"
    if not weights.absolute().parent.is_dir():
        raise ValueError(f"--out: the folder {weights.parent} does not exist")

    source = settings.text or "Python's language reference (pydoc_data.topics)"
    print(f"{len(text):,} characters, {len(vocabulary)} different ones, from {source}")
    compare_engines(settings, vocabulary, training)

    model = CharModel(vocabulary, settings.embedding_dim, settings.hidden_size, rng=settings.seed)
    count = sum(p.value.size for p in model.parameters())
    print(f"Training an LSTM of {settings.hidden_size} units, {count:,} parameters; Ctrl-C stops and keeps it:")
    *history, stopped = train(settings, model, training, validation)
    model.save(weights)
    print(f"Weights saved to {weights}" + (" (stopped early)" if stopped else ""))
    if save_curve(picture, *history):
        print(f"Loss curve saved to {picture}")
    else:
        print("No loss curve: matplotlib is not installed (pip install 'fastrnn[plot]')")
    print(f"\nWhat it writes, at temperature {settings.temperature}:\n")
    write(model, settings.prompt, settings.characters, settings.temperature, settings.seed)
    print(f"\nDone in {time.perf_counter() - begin:.0f} s. More of it: python -m fastrnn generate {weights}")
    return 130 if stopped else 0
