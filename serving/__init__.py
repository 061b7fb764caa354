"""The champion at work: a web page, an API, batches. Nothing here needs TensorFlow."""
