"""Each stage of the kernel alone: a C program under sanitizers at every level of vector instructions."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cryotile._fit import SIMD_LEVELS, find_simd_level
from tests.support import PROJECT

KERNEL = PROJECT / "src" / "cryotile" / "kernel"
AVAILABLE = SIMD_LEVELS[: SIMD_LEVELS.index(find_simd_level()) + 1]


@pytest.mark.parametrize("level", AVAILABLE)
def test_medians_sort_selection_and_solution_are_correct_and_access_no_foreign_memory(
    level: str, tmp_path: Path
) -> None:
    program = tmp_path / "stages"
    # Compiling with sanitizers above -O1 takes minutes.
    sanitizers = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    flags = ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]  # as in setup.py
    compiled = subprocess.run(
        [
            *("cc", *sanitizers, *flags, f'-DFIT_SOURCE="fit_{level}.c"', "-I", KERNEL),
            *(Path(__file__).with_name("stages.c"), "-o", program, "-lm"),
        ],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert compiled.returncode == 0, compiled.stderr
    # An allocator preloaded by the caller would precede that of the sanitizer.
    environment = {name: text for name, text in os.environ.items() if name != "LD_PRELOAD"}
    ran = subprocess.run([program], capture_output=True, text=True, timeout=600, env=environment)
    assert (ran.returncode, ran.stdout) == (0, "0 failures\n"), ran.stdout + ran.stderr
