#!/usr/bin/env bash
# make test-docker: run the container tests, or print a line that says why they cannot run here.
set -euo pipefail
cd "$(dirname "$0")/.."
base=${BASE_IMAGE:-python:3.11-slim-bookworm}
if ! docker info >/dev/null 2>&1; then
    echo "test-docker SKIPPED: no docker engine answers here"
elif ! docker image inspect "$base" >/dev/null 2>&1 && ! docker pull --quiet "$base" >/dev/null 2>&1; then
    echo "test-docker SKIPPED: the base image $base is missing and cannot be pulled"
else
    BASE_IMAGE=$base "${BIN:-.venv/bin}/python" -m pytest -q -m docker
fi
