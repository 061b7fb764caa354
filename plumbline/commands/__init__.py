"""What people call by name: one file per command of `plumbline`, wired together in plumbline/cli.py."""
