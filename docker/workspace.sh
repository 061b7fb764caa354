#!/bin/sh
# A clone of PLUMBLINE_GIT for this container alone, then a command in it; `coordinate`: deploy, and work on the pool
# `plumbline`.
set -eu
if [ ! -d "$PLUMBLINE_WORKSPACE" ]; then
  rm -rf "$PLUMBLINE_WORKSPACE.part" # of a container that was killed in the middle
  git clone --quiet "${PLUMBLINE_GIT:?the Git URL of the project}" "$PLUMBLINE_WORKSPACE.part"
  mv "$PLUMBLINE_WORKSPACE.part" "$PLUMBLINE_WORKSPACE"
fi
cd "$PLUMBLINE_WORKSPACE"
if [ "$1" = coordinate ]; then
  python -m flows.setup
  prefect --no-prompt deploy --all
  set -- prefect worker start --pool plumbline --limit 8 --with-healthcheck
fi
exec "$@"
