"""One file per stage of dvc.yaml, of the same name: read, call, write. What it calls is in plumbline/."""
