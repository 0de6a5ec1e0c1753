"""``python -m fastdeconv``: the command line."""

from .cli import main

main(prog_name="python -m fastdeconv")
