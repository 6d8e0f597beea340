"""farfeel: emotion recognition in real rooms, from several distant microphones and a camera."""

__version__ = "0.1.0"
