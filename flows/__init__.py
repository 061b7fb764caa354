"""Prefect runs what dvc.yaml describes: training, intake of labelled batches, monitoring; on a schedule, anywhere."""

import os

from plumbline.common.errors import prepare_environment

# Before anything here starts a process or a connection. A deployed run begins here too: its worker may have neither.
prepare_environment()
# Prefect reads its settings when it is imported, which is later. Its own heartbeat, every 180 s, would let flows.keeper
# declare a healthy run of `python -m flows.training` dead.
os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
