# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""200 requests of random size by two users, many at a time; prints where each ran and when, as it saw that itself.

Lines of JSON: job, gpus (numbers on its server), start and end in seconds. Every tenth goes through gpurun, the others
ask Slurm for what gpurun would ask for.
"""

from __future__ import annotations

import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

COUNT = 200
AT_A_TIME = 16
SAY = (
    "t=$(date +%s.%N); sleep 0.{pause}; "
    'printf "{{\\"job\\": %s, \\"gpus\\": [%s], \\"start\\": %s, \\"end\\": %s}}\\n" '
    "$SLURM_JOB_ID $SLURM_STEP_GPUS $t $(date +%s.%N)"
)


def ask(number: int, tenths: int, pause: int) -> str:
    user = ("alice", "bob")[number % 2]
    if number % 10:
        wanted = "--gres=gpu:1" if tenths == 10 else f"--gres=shard:{tenths}"
        command = ["srun", "--quiet", "--nodes=1", wanted]
    else:
        command = ["gpurun", "run", "--wait", "--quiet", "-p", str(tenths / 10), "--"]
    script = SAY.format(pause=pause)
    done = subprocess.run(
        [*command, "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        user=user,
        group=user,
        extra_groups=[],
        cwd=f"/home/{user}",
    )
    assert done.returncode == 0, (command, done.returncode, done.stdout, done.stderr)
    return done.stdout


chance = random.Random(int(sys.argv[1]))  # noqa: S311 - sizes, no secrets
wishes = [(number, chance.choice([1, 2, 3, 4, 5, 5, 6, 7, 10]), chance.randint(1, 4)) for number in range(COUNT)]
with ThreadPoolExecutor(AT_A_TIME) as pool:
    for line in pool.map(lambda wish: ask(*wish), wishes):
        sys.stdout.write(line)
