"""The sampling rate of all audio, and the frame rate of the fusion's input."""

SAMPLE_RATE = 16000
FRAMES_PER_SECOND = 25  # for every encoder (pam.encoders.pooling)
