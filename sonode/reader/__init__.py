"""`sonode reader`: a page on which a radiologist draws a box and sees scores and heat maps.

Start at `app`, which answers the page; `http_server` lets only this machine's own page ask.
`sources` is where answers come from: a server, or archives in processes of their own. `judgements`
has what the reader says and the reader study; `cohort_table` makes a cohort's table of it. `page`
is the browser's side: modules without a build step; the first is `main.js`. May import `archives`,
`batch`, `model_def` and, to measure a study, `train`; nothing imports `sonode.reader` but the
command line.
"""
