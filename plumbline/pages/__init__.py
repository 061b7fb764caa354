"""The leaderboard page: a template, its style and script, and small functions that draw charts as inline SVG."""
