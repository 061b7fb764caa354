"""The embedded sample: pictures of workers drawn from a seed, with the truth about them kept beside."""
