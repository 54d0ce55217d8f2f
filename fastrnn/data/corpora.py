"""Small data sets that come with the package."""

from __future__ import annotations

from importlib.resources import files


def sentiment() -> tuple[list[str], list[int]]:
    """
    Read 2000 short English reviews of films, books, food, hotels, gadgets, concerts and trains, half of them positive.

    They were written for this package and are under its license. Most say plainly what they think; some praise with
    negations ("never boring") or after a complaint, some condemn after praise or by irony. Many things are reviewed
    twice, with praise and with blame, so that the thing gives nothing away. Enough to see a model learn, too few to
    compare models with.

    Returns
    -------
    texts : list of 2000 str
        ASCII, 8 to 32 words each, in an order that is mixed and always the same: a cut anywhere makes two parts of
        about the same kind (`time_split`).
    labels : list of 2000 int
        1 for a positive one, 0 for a negative one.
    """
    lines = files("fastrnn.data").joinpath("sentiment.tsv").read_text(encoding="ascii").splitlines()
    labels, texts = zip(*(line.split("\t") for line in lines), strict=True)
    return list(texts), [int(label) for label in labels]
