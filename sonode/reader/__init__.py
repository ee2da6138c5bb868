"""`sonode reader`: a page on which a radiologist draws a box and sees scores and heat maps.

Start at `app`, which answers the page; `http_server` lets only this machine's own page ask.
`sources` is where answers come from: a server, or archives in processes of their own. May import
`archives`, `batch` and `model_def`; nothing imports `sonode.reader` but the command line.
"""
