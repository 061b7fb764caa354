"""What promotion puts into the registry, and how a challenger is set against the champion."""
