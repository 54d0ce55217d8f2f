"""All examples, or those that are named, one after the other, and a table of what they reach from each seed."""

from __future__ import annotations

import argparse
import importlib
import time
from pathlib import Path
from types import ModuleType

from _shared import OUT

NEAR = 0.02  # how far the scores of other seeds may be from that of the first


def examples() -> dict[str, ModuleType]:
    """The scripts in this folder that have `WANTED`, the score to reach, and `main`."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))
    modules = {name: importlib.import_module(name) for name in names if name != Path(__file__).stem}
    return {name: module for name, module in modules.items() if hasattr(module, "WANTED") and hasattr(module, "main")}


def wanted(module: ModuleType, quick: bool) -> float:
    """The score that an example has to reach: less, where it says so, if it trains less."""
    return getattr(module, "WANTED_QUICK", module.WANTED) if quick else module.WANTED


def main() -> int:
    """Run them; 1 if a score is below what is wanted, or, of full runs, far from that of the first seed."""
    known = examples()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all without a name")
    parser.add_argument("--quick", action="store_true", help="train less, and be content with less")
    parser.add_argument("--out", type=Path, default=OUT, help="the folder of the pictures (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="SEED", help="each runs all (0)")
    options = parser.parse_args()
    names = [Path(name).stem for name in options.names]
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"no example of the name {', '.join(unknown)}; there are {', '.join(known)}")
    folders = {seed: options.out / f"seed_{seed}" for seed in options.seeds}  # of the pictures
    folders[options.seeds[0]] = options.out
    rows, missed = [("system", "wanted", "seconds", *(f"seed {seed}" for seed in folders), "picture")], False
    for name in names or known:
        print(f"--- {name}: {known[name].__doc__.splitlines()[0]}", flush=True)
        least, start = wanted(known[name], options.quick), time.perf_counter()
        try:
            results = [known[name].main(quick=options.quick, out=out, seed=seed) for seed, out in folders.items()]
        except ImportError as error:
            rows.append((name, f"{least:g}", *"-" * (1 + len(folders)), error))
            continue
        scores = [result["score"] for result in results]
        seconds = (time.perf_counter() - start) / len(scores)
        remark = ""
        if not all(score >= least for score in scores):  # NaN too
            remark = "  TOO LOW"
        elif not options.quick and max(abs(score - scores[0]) for score in scores) > NEAR:
            remark = "  SEEDS DIFFER"
        missed |= bool(remark)
        columns = (f"{least:g}", f"{seconds:.1f}", *(f"{score:.4g}" for score in scores))
        rows.append((name, *columns, f"{results[0]['picture']}{remark}"))
    print()
    for name, *numbers, picture in rows:
        print(f"{name:<22}", *(f"{number:>8}" for number in numbers), f" {picture}")
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
