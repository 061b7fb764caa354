"""What the stages, flows and monitors share, by what a room knows."""
