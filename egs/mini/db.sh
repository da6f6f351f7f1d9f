# shellcheck shell=bash
# Nothing to point at: the corpora of this recipe are downloaded into ${PAM_CACHE:-~/.cache/pam}.
