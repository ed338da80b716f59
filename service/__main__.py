"""`python -m service …` is the command line, for when the console script is not on the path."""

from service.cli import main

main()
