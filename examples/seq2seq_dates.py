"""Dates as people write them into ISO 8601: an encoder of two directions, a decoder that looks at what it read.

The days are those of 1950 to 2049, so that a year of two digits has one meaning; with dots the day comes first, with
slashes the month. A tenth of the days is never trained on, in no format, and is what the score is of.
"""

import calendar
import datetime

import numpy as np
from _shared import OUT, run, save

from fastrnn import data, models, nn, viz

WANTED, WANTED_QUICK = 0.98, 0.7  # days not trained on, each in all formats, whose ISO date is right to the last digit
FORMATS = (
    "{month} {d}, {Y}", "{mon} {d}, {Y}", "{d} {month} {Y}", "{d} {mon} {Y}", "{d} {mon} {y}", "{d}-{mon}-{Y}",
    "{weekday}, {month} {d}, {Y}", "{weekday}, {d} {month} {Y}", "{day}, {d} {mon} {y}", "{day} {mon} {d} {Y}",
    "{month} {d}{th}, {Y}", "{d}{th} of {month} {Y}", "the {d}{th} of {month}, {Y}", "{mon} {d}{th} '{y}",
    "{d}.{m}.{Y}", "{dd}.{mm}.{Y}", "{d}.{m}.{y}", "{m}/{d}/{Y}", "{mm}/{dd}/{y}", "{Y}/{mm}/{dd}", "{Y}{mm}{dd}",
)  # fmt: skip
PAD, BOS, EOS = "\0", "\1", "\2"  # the first characters of the vocabulary, so that they are 0, 1 and 2


def write(date, form):
    """A day in one of the formats; the calendar's names are in lower case, as hurried people have them."""
    month, weekday = calendar.month_name[date.month].lower(), calendar.day_name[date.weekday()].lower()
    th = "th" if 11 <= date.day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(date.day % 10, "th")
    return form.format(
        d=date.day, dd=f"{date.day:02}", m=date.month, mm=f"{date.month:02}", month=month, mon=month[:3], th=th,
        weekday=weekday, day=weekday[:3], Y=date.year, y=f"{date.year % 100:02}",
    )  # fmt: skip


def main(quick=False, out=OUT, seed=0):
    """Train on days and formats drawn anew for each step, test on 200 other days in all formats."""
    rng = np.random.default_rng(seed)
    days = np.arange(datetime.date(1950, 1, 1).toordinal(), datetime.date(2050, 1, 1).toordinal())
    rng.shuffle(days)
    vocabulary = data.CharVocabulary(PAD + BOS + EOS + "0123456789abcdefghijklmnopqrstuvwxyz ,.-/'")

    def samples(dates, forms):
        """Sources, their lengths, targets."""
        dates = [datetime.date.fromordinal(day) for day in dates]
        texts = [write(date, form) for date, form in zip(dates, forms, strict=True)]
        targets = [vocabulary.encode(BOS + date.isoformat() + EOS) for date in dates]
        return *data.pad_sequences([vocabulary.encode(text) for text in texts]), np.array(targets)

    size = len(vocabulary)
    options = {"attention": "luong", "bidirectional": True, "forget_bias": 1.0, "rng": rng}
    model = models.Seq2Seq(size, size, 32, 64, **options)
    optimiser, steps = nn.Adam(model, lr=0.005), 300 if quick else 1600
    schedule = nn.CosineLR(optimiser, steps)
    for step in range(1, steps + 1):
        chosen, forms = rng.choice(days[len(days) // 10 :], 64), rng.choice(FORMATS, 64)
        optimiser.zero_grad()
        loss = model.learn(*samples(chosen, forms))
        nn.clip_grad_norm_(model, 1.0)
        optimiser.step()
        schedule.step()
        if step % (steps // 5) == 0:
            print(f"step {step}: {loss:.4f} nats per character", flush=True)

    n = 40 if quick else 200
    source, lengths, target = samples(np.repeat(days[:n], len(FORMATS)), FORMATS * n)
    found = model.decode(source, lengths, target.shape[1] - 1, weights=True)
    right = (found.tokens == target[:, 1:]).all(axis=1).reshape(n, len(FORMATS))
    worst = right.mean(axis=0).argmin()
    print(f"right {right.mean():.2%}; no format has less than {FORMATS[worst]} with {right[:, worst].mean():.1%}")
    shown = next(n for n, form in enumerate(FORMATS) if form.startswith("the "))
    text, written = (vocabulary.decode(row) for row in (source[shown, : lengths[shown]], found.tokens[shown, :-1]))
    ax = viz.attention(found.weights[shown, : len(written), : len(text)], list(text), list(written))
    ax.set(xlabel="characters read", ylabel="characters written", title=f"{right.mean():.1%} of the dates are right")
    return {"score": float(right.mean()), "picture": save(ax, out, "seq2seq_dates")}


if __name__ == "__main__":
    run(main)
