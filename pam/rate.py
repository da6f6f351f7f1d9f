"""The sampling rate and the scale of all audio, and the frame rate of the fusion's input."""

SAMPLE_RATE = 16000
LEAST_RATE, MOST_RATE = 1_000, 1_000_000  # of audio that is accepted, in Hz
LOUDEST = 100.0  # beyond are integers as floats; samples with variance 1 stay far below
FRAMES_PER_SECOND = 25  # for every encoder (pam.encoders.pooling)
