"""Small data sets that come with the package."""

from __future__ import annotations

from importlib.resources import files


def sentiment() -> tuple[list[str], list[int]]:
    """
    Read 600 short English reviews of films, books, food, hotels and gadgets, half of them positive.

    They were written for this package and are under its license. Some praise with negations ("never boring") or
    after a complaint, some condemn after praise: counting kind words does not suffice. Enough to see a model learn,
    too few to compare models with.

    Returns
    -------
    texts : list of 600 str
        ASCII, 8 to 25 words each, in an order that is mixed and always the same: a cut anywhere makes two parts of
        about the same kind (`time_split`).
    labels : list of 600 int
        1 for a positive one, 0 for a negative one.
    """
    lines = files("fastrnn.data").joinpath("sentiment.tsv").read_text(encoding="ascii").splitlines()
    labels, texts = zip(*(line.split("\t") for line in lines), strict=True)
    return list(texts), [int(label) for label in labels]
