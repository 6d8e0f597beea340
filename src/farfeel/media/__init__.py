"""Media files in: decoding of audio and video, face crops, and signal processing that runs before the network.

`audio` reads audio files and `video` reads video files; both use `container`, which wraps FFmpeg. `face` finds and
crops faces, `face_video` serves those crops window by window, `camera` simulates a camera. `speech` detects speech.
`beamforming` and `dereverberation` clean up the microphone signals. All audio channels are always kept.
"""
