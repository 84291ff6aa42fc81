"""A substitute for PBS, which Debian does not package: a ``qsub`` that runs members as processes, and a ``qstat``.

Like the real one, it reads ``#PBS`` lines, which options of the command line override, refuses an array of one member,
and gives a member its index but not the size of the array, and only a few variables of the caller's environment.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

QSUB = """\
#!{python}
import argparse, os, pathlib, re, shlex, subprocess, sys

here = pathlib.Path(__file__).parent
parser = argparse.ArgumentParser(allow_abbrev=False)
for name in ("-N", "-S", "-j", "-J", "-A", "-W"):
    parser.add_argument(name)
parser.add_argument("-l", action="append", default=[])
parser.add_argument("script")
lines = pathlib.Path(sys.argv[-1]).read_text().splitlines()
directives = [word for line in lines if line.startswith("#PBS ") for word in shlex.split(line[5:])]
asked = parser.parse_args(directives + sys.argv[1:])
resources = dict(item.split("=", 1) for item in asked.l)
if not (re.fullmatch(r"select=\\d+:ncpus=\\d+:mem=\\d+mb", "select=" + resources["select"])):
    sys.exit("qsub: Illegal attribute or resource value Resource_List.select")
indices = [None]
if asked.J:
    first, last = map(int, asked.J.split("-"))
    if last <= first:
        sys.exit("qsub: illegal -J value")
    indices = range(first, last + 1)
number = len(list(here.glob("*.job"))) + 1
(here / f"{{number}}.job").write_text("Resource_List.walltime = " + resources["walltime"] + "\\n")
members = []
for index in indices:
    job = f"{{number}}.fake" if index is None else f"{{number}}[{{index}}].fake"
    environment = {{"HOME": os.environ["HOME"], "PATH": os.environ["PATH"], "PBS_JOBID": job,
                   "PBS_ENVIRONMENT": "PBS_BATCH", "NCPUS": "1", "PBS_O_WORKDIR": os.getcwd()}}
    if index is not None:
        environment["PBS_ARRAY_INDEX"] = str(index)
    with open(f"{{asked.N}}.o{{number}}" + ("" if index is None else f".{{index}}"), "wb") as output:
        members.append(subprocess.Popen([asked.S, os.path.abspath(asked.script)], cwd=os.environ["HOME"],
                                        env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output))
print(f"{{number}}[].fake" if asked.J else f"{{number}}.fake", flush=True)
if asked.W == "block=true":
    sys.exit(max(member.wait() for member in members) != 0)
"""

QSTAT = """\
#!/bin/sh
number=${2%%[!0-9]*}
cat "$(dirname "$0")/$number.job"
"""


@dataclass(frozen=True)
class PBS:
    """The two commands.

    Attributes
    ----------
    environment : dict
        Environment with the commands on the PATH.
    """

    environment: dict[str, str]


@pytest.fixture
def pbs(tmp_path: Path) -> PBS:
    """Put the commands on the PATH."""
    commands = tmp_path / "pbs"
    commands.mkdir()
    for name, text in {"qsub": QSUB.format(python=sys.executable), "qstat": QSTAT}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    return PBS({**os.environ, "PATH": f"{commands}:{os.environ['PATH']}"})
