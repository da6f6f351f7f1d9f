#!/usr/bin/env python3
"""Take the picture of the page that README.md shows.

    tools/picture_demo.py --exp exp/NAME… --data dump/raw/SET… --out RESULTS/demo.png

It starts `pam demo`, clicks the first example, asks, and takes the picture when all systems have
answered. It needs Chromium, as the page's tests do (test/README.md).
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from pam.bin.demo import launch
from pam.decode.api import SpeechLLM
from pam.demo.examples import examples_of
from pam.demo.page import make_page
from pam.errors import run_main

MILLISECONDS = 120_000
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--exp", type=Path, nargs="+", required=True)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    return parser


def main(argv: list[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    models = {exp.resolve().name: SpeechLLM.from_pretrained(exp) for exp in args.exp}
    with tempfile.TemporaryDirectory() as folder:
        examples = examples_of(args.data, 2, Path(folder))
        page = make_page(models, Path(folder), examples)
        launch(page, Path(folder), "127.0.0.1", None, prevent_thread_lock=True)
        take(page.local_url, examples[0].label, len(models), args.out)
        page.close()


def take(address: str, label: str, systems: int, out: Path) -> None:
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1300, "height": 820})
        tab.set_default_timeout(MILLISECONDS)
        tab.goto(address)
        tab.get_by_text(label).click()
        expect(tab.locator("#prompt input")).not_to_have_value("", timeout=MILLISECONDS)
        tab.wait_for_timeout(5000)  # the example's audio is loaded
        tab.locator("#ask").click()
        for number in range(systems):
            image = tab.locator(f"#weights_{number} img")
            expect(image).to_be_visible(timeout=MILLISECONDS)
        tab.wait_for_timeout(1000)  # bars move to their places
        tab.screenshot(path=out)
        browser.close()


if __name__ == "__main__":
    run_main(main)
