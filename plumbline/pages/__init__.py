"""Everything people read in a browser: one Jinja environment, one stylesheet, charts as inline SVG."""
