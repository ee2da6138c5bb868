"""Archives (`.mar`), and all that serves them: TorchServe, nodes, the gateway, rollouts.

Start at `commands`, or in the folder that you need. `packing` makes and loads an archive,
`comparing` compares two, `torchserve` and `serving` run it on one machine, `nodes` and `gateway` on
several, `rollout` and `judging` replace one by the next. `state` is what the gateway and a rollout
keep on disk.
"""
