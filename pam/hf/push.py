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


def push(folder: Path, repo: str, private: bool = False) -> str:
    """Upload `folder` to the repository USER/NAME, which is made if need be; returns its URL.

    `private`: nobody else sees it. `PamError` if it exists and is public.
    """
    api = HfApi(token=token())
    try:
        # None: public, unless the default of an organisation is another.
        url = str(api.create_repo(repo, private=private or None, exist_ok=True))
        if private and not api.repo_info(repo).private:
            raise PamError(
                f"--private: {repo} exists and is public: make it private ({url}/settings), or "
                f"choose another name; {folder} is complete, upload it again"
            )
        api.upload_folder(repo_id=repo, folder_path=folder)
    except (HfHubHTTPError, OSError) as error:
        reason = " ".join(str(error).split())
        raise PamError(f"--push {repo}: {reason}: {folder} is complete, upload it again") from error
    return url
