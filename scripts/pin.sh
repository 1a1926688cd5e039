#!/usr/bin/env bash
# Writes constraints.txt: the newest set of packages that pyproject.toml allows, as a fresh environment resolves it.
# Run `make test check long` before committing what it wrote.
set -euo pipefail
cd "$(dirname "$0")/.."

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
"${PYTHON:-python3}" -m venv "$fresh"
"$fresh/bin/python" -m pip install --disable-pip-version-check --quiet -e '.[plan,train,wasm,report,postgres,mqtt,nvml,build,test]'
{
    echo "# The whole tested set, written by scripts/pin.sh. pyproject.toml says what is allowed; this says what was tried."
    # A build tag (torch's +cpu) names an index, not a release: leave it out. pip and gridsched itself are not pinned.
    "$fresh/bin/python" -m pip list --disable-pip-version-check --format=freeze --exclude-editable --exclude pip |
        sed 's/+[a-z0-9.]*$//' | LC_ALL=C sort --ignore-case
} >constraints.txt
