"""What every package shares, and the command line that joins them.

Start at `command_line`, which is `sonode`: it mounts the commands, prints a user's mistake and sets
the exit code. `console` prints, and has the class of such a mistake; `defaults` has ports,
bootstrap draws, rows of a result file, and limits of clients and of the batch; `page` is the frame
of every HTML page; `measure_text` writes a measure with its interval, and `wilson` is that of a
proportion. Folders: `files` (written whole, checked when read), `boxes` (drawn elsewhere), `demo`,
`locating`, `reader`.

All but `command_line` and the last three folders import nothing outside this package. `handlers`
and `model_def`, which travel in an archive, may import nothing of it.
"""
