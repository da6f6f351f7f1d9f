"""egs/multitask/EARLY_EXIT.md is what the program renders from the stored results."""

from pathlib import Path

from pam.exits.page import document
from pam.exits.store import read_folder

RECIPE = Path(__file__).resolve().parents[2] / "egs/multitask"
RESULTS = RECIPE / "RESULTS/early_exit"


def test_the_page_is_that_of_the_stored_results():
    page = RECIPE / "EARLY_EXIT.md"
    assert page.read_text(encoding="utf-8") == document(read_folder(RESULTS), RESULTS, page)


def test_the_figures_of_the_page_exist():
    text = (RECIPE / "EARLY_EXIT.md").read_text(encoding="utf-8")
    names = [part.split(")")[0] for part in text.split("](")[1:]]
    assert names and all((RECIPE / name).is_file() for name in names if not name.startswith("http"))
