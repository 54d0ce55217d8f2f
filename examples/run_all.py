"""All examples, or those that are named, one after the other, and a table of what they reach."""

from __future__ import annotations

import argparse
import importlib
import time
from pathlib import Path
from types import ModuleType

from _shared import OUT

ROW = "{:<22} {:>8} {:>8} {:>8}  {}"


def examples() -> dict[str, ModuleType]:
    """The scripts in this folder that have `WANTED`, the score to reach, and `main`."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))
    modules = {name: importlib.import_module(name) for name in names if name != Path(__file__).stem}
    return {name: module for name, module in modules.items() if hasattr(module, "WANTED") and hasattr(module, "main")}


def wanted(module: ModuleType, quick: bool) -> float:
    """The score that an example has to reach: less, where it says so, if it trains less."""
    return getattr(module, "WANTED_QUICK", module.WANTED) if quick else module.WANTED


def main() -> int:
    """Run them; 1 if a score is below what is wanted."""
    known = examples()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all without a name")
    parser.add_argument("--quick", action="store_true", help="train less, and be content with less")
    parser.add_argument("--out", type=Path, default=OUT, help="the folder of the pictures (%(default)s)")
    options = parser.parse_args()
    names = [Path(name).stem for name in options.names]
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"no example of the name {', '.join(unknown)}; there are {', '.join(known)}")
    rows, missed = [], False
    for name in names or known:
        print(f"--- {name}: {known[name].__doc__.splitlines()[0]}", flush=True)
        least, start = wanted(known[name], options.quick), time.perf_counter()
        try:
            result = known[name].main(quick=options.quick, out=options.out)
        except ImportError as error:
            rows.append((name, "-", f"{least:g}", "-", error))
            continue
        enough = result["score"] >= least  # False for NaN
        missed |= not enough
        seconds = f"{time.perf_counter() - start:.1f}"
        rows.append((name, f"{result['score']:.4g}", f"{least:g}", seconds, result["picture"]))
        if not enough:
            rows.append(("", "too low", "", "", ""))
    print()
    for row in (("system", "score", "wanted", "seconds", "picture"), *rows):
        print(ROW.format(*map(str, row)).rstrip())
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
