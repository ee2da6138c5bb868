"""`sonode reader`: a page on which a radiologist draws a box and sees scores and heat maps.

Start at `app`, which answers the page; `http_server` lets only this machine's own page ask.
`sources` is where answers come from: a server, or archives in processes of their own. `judging`
writes what the reader says, `cohort_table` makes it a cohort's table, `study` hides scores before
the first reading, `measure` gives the rates of a study. `page` is the browser's side: modules
without a build step; the first is `main.js`. May import `archives`, `batch`, `model_def` and, in
`measure`, `train`; nothing imports `sonode.reader` but the command line.
"""
