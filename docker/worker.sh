#!/bin/sh
# A workspace of this worker's own, then the worker: worker POOL. PLUMBLINE_GIT names the repository to clone.
set -eu
if [ ! -d "$PLUMBLINE_WORKSPACE/.git" ]; then
  git clone --quiet "${PLUMBLINE_GIT:?the Git URL of the project}" "$PLUMBLINE_WORKSPACE"
fi
cd "$PLUMBLINE_WORKSPACE"
if [ "$1" = plumbline ]; then
  python -m flows.setup
  prefect --no-prompt deploy --all
fi
exec prefect worker start --pool "$1" --with-healthcheck
