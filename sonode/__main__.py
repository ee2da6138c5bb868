"""`python -m sonode`."""

from sonode.command_line import main

main()
