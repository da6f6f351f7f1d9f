"""Training through ESPnet's AbsTask and Trainer."""
