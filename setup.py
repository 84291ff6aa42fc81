"""The extension module; everything static stands in pyproject.toml."""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

# -ffp-contract=off: with fused multiply-adds the last bit would depend on the compiler, and the same points must give
# the same bytes everywhere.
# -g0: debug information holds the path of the build, and makes three quarters of the file.
FLAGS = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-g0"]
KERNEL = Path("src/cryotile/kernel")

setup(
    ext_modules=cythonize(
        [
            Extension(
                "cryotile._fit",
                ["src/cryotile/_fit.pyx", *map(str, sorted(KERNEL.glob("*.c")))],
                depends=[str(header) for header in sorted(KERNEL.rglob("*.h"))],
                extra_compile_args=FLAGS,
            ),
        ],
        compiler_directives={"language_level": 3},
    )
)
