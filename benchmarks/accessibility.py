"""Check report pages with axe-core in headless Chromium: nothing serious may be found.

    npm pack axe-core && tar xzf axe-core-*.tgz package/axe.min.js
    python -m benchmarks.accessibility --axe package/axe.min.js runs/cars/report/index.html

Each page is looked at in light and dark colours, on a desktop and a phone, and with an image open
where it has a gallery. Needs playwright and Chromium. Exits with 1 where axe finds what it calls
serious or critical.
"""

import argparse
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright


def main() -> None:
    """Check every page in every form."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("pages", nargs="+", type=Path, help="index.html files")
    parser.add_argument("--axe", type=Path, required=True, help="axe.min.js of npm's axe-core")
    asked = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    serious = 0
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for page in asked.pages:
            for width in (1280, 390):
                for scheme in ("light", "dark"):
                    tab = browser.new_page(
                        viewport={"width": width, "height": 900},
                        color_scheme=scheme,
                        bypass_csp=True,  # the page runs no script but its own
                    )
                    tab.set_default_timeout(300_000)
                    tab.goto(page.resolve().as_uri())
                    tab.add_script_tag(path=asked.axe)
                    serious += told(tab.evaluate("axe.run()"), f"{page} {width} {scheme}")
                    if tab.locator(".shots button").count():
                        tab.locator(".shots button").first.click()
                        found = tab.evaluate("axe.run('dialog')")
                        serious += told(found, f"{page} {width} {scheme} open")
                    tab.close()
    sys.exit(1 if serious else 0)


def told(found: dict, where: str) -> int:
    """Print what axe found; how much of it is serious."""
    serious = 0
    for violation in found["violations"]:
        serious += violation["impact"] in ("serious", "critical")
        print(f"{where}: {violation['impact']}: {violation['id']}: {violation['help']}")
        for node in violation["nodes"][:5]:
            print(f"    {node['html'][:160]}")
    if not found["violations"]:
        print(f"{where}: nothing, of {len(found['passes'])} rules that apply")
    return serious


if __name__ == "__main__":
    main()
