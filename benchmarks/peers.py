"""fastrnn beside PyTorch, ONNX Runtime, OpenVINO, JAX, Keras and thinc on this CPU.

    python benchmarks/peers.py --json peers.json --png peers.png

Every peer is optional; those that are not installed are named. All get the same weights, inputs and initial states,
and their results are compared with the NumPy reference before anything is timed: who differs is out of the row, and
the exit status is 1. Then they run in turn, round by round, and medians are compared. Each thread count has a child
process of its own, on as many CPUs as it has threads, without whatever pins a library to another CPU's instructions;
there the machine's own limits are measured first. A full run of the forward rows takes about four minutes for each
thread count.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from engines import PINS, cpu_name

PARTS = ("forward", "train", "float64", "stream", "ragged")
KEYS = ("torch", "onnxruntime", "onnxruntime-bound", "openvino", "jax", "keras", "thinc")
CELLS = ("lstm", "gru", "rnn")
# These would hold a library back as well.
PEER_PINS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
THREAD_VARIABLES = (
    "FASTRNN_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)


def parse(arguments=None):
    def among(known):
        def read(text):
            names = text.split(",")
            unknown = [name for name in names if name not in known]
            if unknown:
                raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(known)}")
            return names

        return read

    def counts(text):
        return [int(count) for count in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", type=among(CELLS), default=list(CELLS), help="lstm,gru,rnn")
    parser.add_argument("--threads", type=counts, default=[1, 2], help="thread counts, 1,2")
    parser.add_argument("--rows", default="", metavar="SUBSTR", help='only shapes "T,B,I,H" that contain this')
    parser.add_argument("--peers", type=among(KEYS), default=list(KEYS), help=",".join(KEYS))
    parser.add_argument("--forward", action="store_true", help="inference; what runs if no other part is asked for")
    parser.add_argument("--train", action="store_true", help="forward and backward to every gradient")
    parser.add_argument("--float64", action="store_true", help="inference in float64, against PyTorch")
    parser.add_argument("--stream", action="store_true", help="single steps, against ONNX Runtime")
    parser.add_argument("--ragged", action="store_true", help="batches of unequal lengths, against dense ones")
    parser.add_argument("--seconds", type=float, default=3.0, help="of timing for each row, 3")
    parser.add_argument("--json", metavar="OUT", help="save all numbers")
    parser.add_argument("--png", metavar="OUT", help="draw the ratios; of further parts into OUT-train and so on")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.parts = [part for part in PARTS if getattr(options, part)] or ["forward"]
    cpus = len(available_cpus())
    if not all(1 <= threads <= cpus for threads in options.threads):
        parser.error(f"--threads: {options.threads}, expected from 1 to {cpus}, the CPUs of this process")
    return options


def available_cpus():
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def environment(threads):
    """That of the child process which runs everything with so many threads."""
    variables = {name: value for name, value in os.environ.items() if name not in (*PINS, *PEER_PINS)}
    variables |= dict.fromkeys(THREAD_VARIABLES, str(threads))
    variables |= {"TF_NUM_INTEROP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}
    if threads == 1:
        variables["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    return variables


def load(options, threads):
    """The libraries that are here, fastrnn first, and why the others are not."""
    from comparison.libraries import FastRNN
    from comparison.parts import PEERS

    loaded, missing = [FastRNN(threads)], {}
    for library in PEERS:
        if library.key in options.peers and not set(options.parts).isdisjoint(library.parts):
            try:
                loaded.append(library(threads))
            except ImportError as error:
                missing[library.key] = str(error)
    return loaded, missing


def work(options):
    """The child process: measure one thread count, print the tables, save the numbers."""
    threads = options.worker
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, available_cpus()[-threads:])  # the first CPU also answers the devices
    from comparison import machine, parts, placement, report

    from fastrnn._progress import Progress

    placement.place(placement.tasks())  # the BLAS has started its threads
    others = machine.Others()
    limits = machine.limits(threads)
    loaded, missing = load(options, threads)
    print(f"\n{report.limits_text(limits)}")
    rows = []
    for part in options.parts:
        heading = report.heading(part, threads)
        keys = [library.key for library in loaded if part in library.parts]
        jobs = parts.jobs(part, options.cells, options.rows, loaded, options.seconds, threads, limits)
        print(f"\n{heading}\n\n{report.header(part, keys)}", flush=True)
        progress = Progress(heading, len(jobs), "rows")
        for name, measure in jobs:
            progress.advance(0, name)
            rows.append(measure())
            progress.close()
            print(report.line(rows[-1], keys), flush=True)
            progress.advance(1, name)
        progress.close()
    versions = {library.key: library.version() for library in loaded}
    result = {"threads": threads, "limits": limits, "disturbance": others.share()}
    result |= {"versions": versions, "missing": missing, "rows": rows}
    Path(options.json).write_text(json.dumps(result))


def run_worker(threads):
    """Run this program again as `work` for one thread count; the numbers it saved."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "worker.json"
        command = [sys.executable, __file__, *sys.argv[1:], "--worker", str(threads), "--json", str(path)]
        subprocess.run(command, env=environment(threads), check=True)
        return json.loads(path.read_text())


def picture_paths(path, parts):
    """The first part's picture has the name that was asked for, the others' their part's in it."""
    path = Path(path)
    return {part: path if k == 0 else path.with_stem(f"{path.stem}-{part}") for k, part in enumerate(parts)}


def tell(results, summaries):
    """Print what the tables do not say; how many errors there were."""
    from comparison.report import LABELS, disturbance_text, summary_text

    print()
    for key, version in results[0]["versions"].items():
        print(f"{LABELS[key]} {version}")
    for key, reason in results[0]["missing"].items():
        print(f"{LABELS[key]}: missing ({reason})")
    for summary in summaries:
        print(summary_text(summary))
    errors = 0
    for result in results:
        if warning := disturbance_text(result["disturbance"], result["threads"]):
            print(warning)
        for row in result["rows"]:
            for key, message in row["errors"].items():
                errors += 1
                shape = ",".join(map(str, row["shape"]))
                print(f"error: {LABELS[key]}, {row['part']} {row['cell']} {shape}, {row['threads']} threads: {message}")
    return errors


def save(options, results, summaries):
    system = f"{platform.system()} {platform.machine()}"
    saved = {
        "machine": {"cpu": cpu_name(), "cpus": len(available_cpus()), "system": system},
        "versions": {"python": platform.python_version(), **results[0]["versions"]},
        "missing": results[0]["missing"],
        "settings": {name: getattr(options, name) for name in ("cells", "threads", "rows", "parts", "seconds")},
        "limits": {result["threads"]: result["limits"] for result in results},
        "disturbance": {result["threads"]: result["disturbance"] for result in results},
        "summaries": summaries,
        "rows": [row for result in results for row in result["rows"]],
    }
    Path(options.json).write_text(json.dumps(saved, indent=1) + "\n")


def main():
    options = parse()
    if options.worker:
        return work(options)
    from comparison import report

    print(f"{cpu_name()}, {len(available_cpus())} CPUs, Python {platform.python_version()}", flush=True)
    results = [run_worker(threads) for threads in options.threads]
    rows = [row for result in results for row in result["rows"]]
    summaries = report.summarise(rows)
    errors = tell(results, summaries)
    if len(options.threads) > 1:
        for part in dict.fromkeys(summary["part"] for summary in summaries):
            print(f"\n{report.TITLES[part]}\n\n{report.side_by_side([row for row in rows if row['part'] == part])}")
    if options.json:
        save(options, results, summaries)
    if options.png:
        parts = list(dict.fromkeys(summary["part"] for summary in summaries))
        for part, path in picture_paths(options.png, parts).items():
            report.draw(rows, part, f"{report.TITLES[part]}: fastrnn and its best peer,\n{cpu_name()}", path)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
