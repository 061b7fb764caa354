"""One module per dvc.yaml stage, same name: a pure function, and a thin `main` that reads and writes files."""
