"""The Makefile's own logic; what its targets run has tests elsewhere."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SCRIPT = "if __name__ == '__main__':\n    raise SystemExit({status})\n"


def test_a_failing_benchmark_does_not_keep_the_others_from_running(tmp_path: Path) -> None:
    """`make bench` goes on, and says at its end which scripts failed."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "benchmarks").mkdir()
    for name, status in {"first": 2, "second": 0, "third": 1}.items():
        (tmp_path / "benchmarks" / f"{name}.py").write_text(SCRIPT.format(status=status))
    (tmp_path / "benchmarks" / "library.py").touch()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    for name in ("pyproject.toml", "constraints.txt", ".venv/.installed"):  # the last is the newest: all is installed
        (tmp_path / name).touch()
    done = subprocess.run(
        [shutil.which("make") or "make", "bench"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stdout.splitlines() == [
        "== benchmarks/first.py",
        "== benchmarks/second.py",
        "== benchmarks/third.py",
        "failed: benchmarks/first.py benchmarks/third.py",
    ]
