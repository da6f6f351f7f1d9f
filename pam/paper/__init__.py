"""The paper: its numbers (paper.yaml), tables, claims, errata and figures, compared with ours."""
