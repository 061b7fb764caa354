"""What `detectors` of detection/params.yaml may name: an architecture each."""
