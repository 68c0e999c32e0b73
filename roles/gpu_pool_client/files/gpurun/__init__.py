# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""gpurun: any fraction of any GPU of the pool, from any client machine. Standard library and Slurm's JSON only."""
