# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Metrics of the GPU pool and of GPUs, as files for the textfile collector of Prometheus' node exporter."""
