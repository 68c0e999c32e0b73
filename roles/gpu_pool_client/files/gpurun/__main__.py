# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`python3 -m gpurun`, and the entry of the zipped program."""

from __future__ import annotations

import sys

from gpurun.cli import main

sys.exit(main())
