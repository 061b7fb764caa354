"""Prefect runs what dvc.yaml describes: training, intake of labelled batches, monitoring; on a schedule, anywhere."""
