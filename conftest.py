"""OpenMP in a run of tests; here, to be there before `tests/conftest.py` imports torch.

Its threads wait for each other in loops that keep a core busy: on a busy machine of two cores a
training step of two threads cost 27 times the CPU time of one. A service still sets threads of its
own; they sleep while they wait. Benchmarks run as users do, without this.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
