"""What ``import fastrnn`` costs beyond ``import numpy, scipy.linalg``, in fresh processes run in turn."""

import statistics
import subprocess
import sys

PROGRAM = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
BASE = "import numpy, scipy.linalg"

times: dict[str, list[float]] = {BASE: [], f"{BASE}, fastrnn": []}
for _ in range(11):
    for statement, mine in times.items():
        mine.append(float(subprocess.check_output([sys.executable, "-c", PROGRAM.format(statement)])))
base, all_ = (statistics.median(mine) * 1e3 for mine in times.values())
print(f"{BASE}: {base:.0f} ms; with fastrnn: {all_:.0f} ms; difference {all_ - base:.0f} ms")
