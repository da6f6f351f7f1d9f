"""Figures of training and of several systems; see also pam/analysis/plots."""
