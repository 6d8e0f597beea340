"""From a recording to predictions: decoding, windows, engines, the recognizer, streams, many files."""
