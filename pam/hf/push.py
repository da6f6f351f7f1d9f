"""Upload an exported folder to the hub."""

import os
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from pam.errors import PamError

TOKEN = "HF_TOKEN"


def token() -> str:
    """The token in the environment. `PamError` if there is none."""
    if not os.environ.get(TOKEN):
        raise PamError(f"--push: {TOKEN} is not set: export {TOKEN}=… (a token that may write)")
    return os.environ[TOKEN]


def push(folder: Path, repo: str) -> str:
    """Upload `folder` to the repository USER/NAME, which is made if need be; returns its URL."""
    api = HfApi(token=token())
    try:
        url = str(api.create_repo(repo, exist_ok=True))
        api.upload_folder(repo_id=repo, folder_path=folder)
    except (HfHubHTTPError, OSError) as error:
        reason = " ".join(str(error).split())
        raise PamError(f"--push {repo}: {reason}: {folder} is complete, upload it again") from error
    return url
