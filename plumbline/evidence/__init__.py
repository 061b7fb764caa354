"""Statistics and pages behind evaluate, gate and leaderboard; the stages themselves are one file each in `stages/`."""
