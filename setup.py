"""The extension module; everything static stands in pyproject.toml."""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

# -ffp-contract=off: a fused multiply-add would make the last bit depend on the compiler's mood,
# and the same points must give the same bytes everywhere.
FLAGS = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]

setup(
    ext_modules=cythonize(
        [
            Extension(
                "cryotile._fit",
                ["src/cryotile/_fit.pyx"],
                depends=[
                    *map(str, sorted(Path("src/cryotile/kernel").glob("*.h"))),
                ],
                extra_compile_args=FLAGS,
            ),
        ],
        compiler_directives={"language_level": 3},
    )
)
