"""The network, its heads, the preprocessing facts and the checkpoint.

Start at `network`; `limits` has every size limit of an image, `overlay` colours heat maps. It
travels in an archive, so it imports nothing else of this project.
"""
