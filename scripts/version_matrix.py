"""Installs wheel and sdist into empty environments and runs a short suite there: `python scripts/version_matrix.py [--json] [--out DIR]`.

One environment for each Python of `PYTHONS` that is at hand with the newest versions that pyproject.toml allows, and one with the lowest
versions of what it names (uv's `lowest-direct`) on the lowest Python. In each: the wheel, the command line, the tests of `SUITE`, a short
tour outside the checkout, and the sdist in the wheel's place. Then, in the environment that runs this script's Python: `pyright` and
`mypy --strict` on tests/typing/client.py, and `pip-audit` of the versions installed there. torch is that of `--torch`, a CPU build: for a
Python without one, everything but what needs torch is installed and tested. The exit status is 1 if anything failed; what could not be
tried (no such Python, no CPU build, no vulnerability service) is said and fails nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
CLIENT = REPOSITORY / "tests" / "typing" / "client.py"
PYTHONS = ("3.11", "3.12", "3.13")
TOOLS = ("uv", "build", "pip-audit", "pyright", "mypy")
WITHOUT_TORCH = ("questions/test_coverage.py", "stats/test_rates.py")
SUITE = (*WITHOUT_TORCH, "records/test_records.py", "objectives/test_language.py", "objectives/test_masking.py")
NEEDS_TORCH = ("accelerate", "concept-erasure", "peft", "torch")
MINUTES = 20


@dataclass
class Outcome:
    """One environment: what ran in it, in order, and the last lines of what failed."""

    python: str
    versions: str
    with_torch: bool
    passed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    installed: list[str] = field(default_factory=list)

    def run(self, name: str, command: list[str | Path], cwd: Path | None = None, **environment: str) -> bool:
        """Runs a command as a step; whether it passed."""
        started = time.monotonic()
        done = _run(command, cwd, **environment)
        if done.returncode:
            self.failed[name] = _end(done)
        else:
            self.passed.append(name)
        print(
            f"{self.python} {self.versions}: {name} {'ok' if not done.returncode else 'FAILED'}, {time.monotonic() - started:.0f} s",
            file=sys.stderr,
        )
        return not done.returncode


def _run(command: list[str | Path], cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    settings = {**clean, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment}
    arguments = [str(part) for part in command]
    return subprocess.run(arguments, cwd=cwd, env=settings, capture_output=True, text=True, timeout=60 * MINUTES, check=False)


def _end(done: subprocess.CompletedProcess[str]) -> str:
    return "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])


def interpreter(version: str) -> Path | None:
    """An interpreter of this version: on the path, or one of pyenv's."""
    on_path = shutil.which(f"python{version}")
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [*([Path(on_path)] if on_path else []), *sorted(pyenv.glob(f"{version}.*/bin/python"))]
    return next((path for path in candidates if _run([path, "--version"]).returncode == 0), None)


def find_links() -> list[str]:
    """Folders of wheels in pip's settings, for uv, which does not read them."""
    folders = os.environ.get("PIP_FIND_LINKS", "").split()
    return [part for folder in folders for part in ("--find-links", folder)]


class Matrix:
    """The packages, tools and constraints that all environments share, in one folder."""

    def __init__(self, folder: Path, torch: str) -> None:
        self.folder, self.torch = folder, torch
        self.tools = folder / "tools" / "bin"
        project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        self.torchless = [text for text in project["dependencies"] if not text.startswith(NEEDS_TORCH)]
        self.constraint = folder / "constraint.txt"
        self.constraint.write_text(f"torch=={torch}\n", encoding="utf-8")

    def prepare(self) -> None:
        """Installs the tools, and builds wheel and sdist from a copy of the sources."""
        _checked([sys.executable, "-m", "venv", self.tools.parent])
        _checked([self.tools / "python", "-m", "pip", "install", "--quiet", *TOOLS])
        source = self.folder / "source"
        for name in ("src", "pyproject.toml", "README.md", "LICENSE"):
            copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
            source.mkdir(exist_ok=True)
            copy(REPOSITORY / name, source / name)
        _checked([self.tools / "python", "-m", "build", "--installer", "uv", "--outdir", self.folder / "dist", source], PATH=self._path())
        self.wheel, self.sdist = (next((self.folder / "dist").glob(end)) for end in ("*.whl", "*.tar.gz"))

    def _path(self) -> str:
        return os.pathsep.join([str(self.tools), os.environ.get("PATH", "")])

    def has_torch(self, python: Path) -> bool:
        """Whether a build of the wanted torch for the CPU is at hand."""
        command = [self.tools / "uv", "pip", "install", "--dry-run", "--no-deps", "--python", python, "--system", *find_links()]
        return _run([*command, f"torch=={self.torch}"]).returncode == 0

    def environment(self, python: Path, version: str, resolution: str) -> Outcome:
        """Makes one environment and runs every step in it."""
        with_torch = self.has_torch(python)
        outcome = Outcome(version, "lowest" if resolution == "lowest-direct" else "newest", with_torch)
        home = self.folder / f"{version}-{outcome.versions}"
        uv, bin_folder = self.tools / "uv", home / "bin"
        install = [uv, "pip", "install", "--python", bin_folder / "python", *find_links()]
        _checked([uv, "venv", "--quiet", "--python", python, home])
        wanted = [self.wheel] if with_torch else self.torchless
        limits = ["--resolution", resolution, "--constraint", self.constraint]
        if not outcome.run("install the wheel", [*install, *limits, *wanted]):
            return outcome
        if not with_torch:
            outcome.left_out["what needs torch"] = f"no CPU build of torch {self.torch} for Python {version} at hand"
            outcome.run("install the wheel alone", [*install, "--no-deps", self.wheel])
        outcome.installed = _run([uv, "pip", "freeze", "--python", bin_folder / "python"]).stdout.splitlines()
        outcome.run("install pytest", [*install, "--constraint", self._frozen(outcome, home), "pytest", "beartype"])
        self._steps(outcome, home, bin_folder)
        outcome.run("install the sdist", [*install, "--no-deps", "--reinstall", self.sdist])
        outcome.run("theodolite of the sdist", [bin_folder / "theodolite", "coverage", "shapes", "--ask", "shape"], home)
        return outcome

    def _frozen(self, outcome: Outcome, home: Path) -> Path:
        """What is installed, as a constraint, so that the test runner changes none of it."""
        frozen = home / "frozen.txt"
        frozen.write_text("".join(f"{line}\n" for line in outcome.installed if " @ " not in line), encoding="utf-8")
        return frozen

    def _steps(self, outcome: Outcome, home: Path, bin_folder: Path) -> None:
        """Command line, suite and tour, outside the checkout."""
        program = bin_folder / "theodolite"
        outcome.run("theodolite --help", [program, "--help"], home)
        outcome.run("theodolite coverage", [program, "coverage", "shapes", "--ask", "shape"], home)
        suite = home / "suite"
        shutil.copytree(REPOSITORY / "tests", suite / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        (suite / "pytest.ini").write_text("[pytest]\npythonpath = tests\naddopts = --import-mode=importlib -q\n", encoding="utf-8")
        paths = [f"tests/{name}" for name in (SUITE if outcome.with_torch else WITHOUT_TORCH)]
        outcome.run("short suite", [bin_folder / "python", "-m", "pytest", "-p", "no:cacheprovider", *paths], suite)
        if outcome.with_torch:
            outcome.run("tour --short", [program, "tour", "--short", "--out", home / "tour"], home)

    def check_types(self, bin_folder: Path) -> Outcome:
        """Both type checkers on the client file, against the installed wheel."""
        outcome = Outcome("types", "newest", True)
        client = Path(shutil.copy(CLIENT, self.folder / "client.py"))  # outside the checkout, whose sources the checkers would read
        outcome.run("pyright", [self.tools / "pyright", "--pythonpath", bin_folder / "python", client], self.folder)
        outcome.run("mypy --strict", [self.tools / "mypy", "--strict", "--python-executable", bin_folder / "python", client], self.folder)
        return outcome

    def audit(self, installed: list[str]) -> Outcome:
        """Known vulnerabilities of the installed versions."""
        outcome = Outcome("audit", "newest", True)
        listed = self.folder / "installed.txt"
        lines = [line.split("+")[0] for line in installed if " @ " not in line]
        listed.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        done = _run([self.tools / "pip-audit", "--no-deps", "--disable-pip", "--progress-spinner", "off", "-r", listed])
        if done.returncode == 0:
            outcome.passed.append("pip-audit")
        elif "vulnerabilit" in done.stdout + done.stderr and "Found" in done.stdout + done.stderr:
            outcome.failed["pip-audit"] = _end(done)
        else:
            outcome.left_out["pip-audit"] = f"no vulnerability service could be reached: {_end(done).splitlines()[-1][:200]}"
        return outcome


def _checked(command: list[str | Path], **environment: str) -> None:
    done = _run(command, **environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{_end(done)}")


def run_matrix(folder: Path, torch: str) -> list[Outcome]:
    matrix = Matrix(folder, torch)
    matrix.prepare()
    pythons = {wanted: interpreter(wanted) for wanted in PYTHONS}
    outcomes = []
    for wanted, python in pythons.items():
        if python is None:
            missing = Outcome(wanted, "newest", False, left_out={"all": f"no Python {wanted} at hand"})
            outcomes.append(missing)
            continue
        for resolution in ("lowest-direct", "highest") if wanted == PYTHONS[0] else ("highest",):
            outcomes.append(matrix.environment(python, wanted, resolution))
    newest = next((each for each in outcomes if each.versions == "newest" and each.with_torch), None)
    if newest is not None:
        outcomes += [matrix.check_types(folder / f"{newest.python}-newest" / "bin"), matrix.audit(newest.installed)]
    return outcomes


def installed_torch() -> str:
    """The version of torch beside this script, with its build."""
    try:
        return version("torch")
    except PackageNotFoundError:
        return "2.13.0+cpu"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--torch", default=installed_torch(), help="version of torch, with its build; default: the one installed here")
    parser.add_argument("--out", type=Path, help="keep the environments in this folder; default: they are removed")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        outcomes = run_matrix((given.out or Path(scratch)).resolve(), given.torch)
    if given.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    for outcome in () if given.json else outcomes:
        print(f"{outcome.python} {outcome.versions}: {len(outcome.passed)} steps passed")
        for name, end in outcome.failed.items():
            print(f"  FAILED {name}\n{end}")
        for name, why in outcome.left_out.items():
            print(f"  left out: {name} ({why})")
    return int(any(outcome.failed for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
