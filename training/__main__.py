"""``python -m training STEP``: one step of the recipe, or all of them; see README.md."""

from __future__ import annotations

import argparse
from pathlib import Path

from .fetch import fetch_all
from .learned import learned
from .manifest import HERE, load_sources
from .prepare import prepare
from .settings import SETTINGS, load_settings

STEPS = ("fetch", "prepare", "train", "export", "learned", "card", "check")


def main() -> None:
    """Run the step that was asked for, or all."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("step", choices=(*STEPS, "all"))
    parser.add_argument("--settings", type=Path, default=SETTINGS)
    parser.add_argument("--cache", type=Path, default=HERE / "cache", help="packages and tracks")
    parser.add_argument("--run", type=Path, default=HERE / "runs" / "last", help="checkpoint")
    options = parser.parse_args()
    settings = load_settings(options.settings)
    for step in STEPS if options.step == "all" else (options.step,):
        if step == "fetch":
            fetch_all(load_sources(), options.cache)
        elif step == "prepare":
            packages = load_sources()
            folders = fetch_all(packages, options.cache)
            prepare(packages, folders, options.cache, settings.frontend["sr"])
        elif step == "learned":
            learned(settings, options.cache, options.run)
        else:
            # Imported here, because the steps above do not need PyTorch.
            from . import export, train

            if step == "train":
                train.train(settings, options.cache, options.run)
            elif step == "export":
                export.export(settings, options.cache, options.run)
            elif step == "card":
                export.card(settings, options.cache, options.run)
            else:
                export.check(settings, options.cache)


if __name__ == "__main__":
    main()
