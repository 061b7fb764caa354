"""Judge a site's new, unlabelled images against what the champion knew: plumbline drift SITE."""
