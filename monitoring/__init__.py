"""Judge a site's new, unlabelled images against what the champion knew: python -m monitoring.drift SITE."""
