# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What ends gpurun before or instead of the job: one line for a person, one exit code for a script."""

from __future__ import annotations


class GpurunError(Exception):
    """A line that says what and what to do; `exit_code` tells scripts the kind."""

    exit_code = 125


class UsageError(GpurunError):
    """The command line is wrong."""

    exit_code = 2


class RefusedError(GpurunError):
    """The pool can never give what was asked for; the message says what it could give."""

    exit_code = 120


class QuotaError(GpurunError):
    """The tenant's quota can never cover the request."""

    exit_code = 121


class ImageError(GpurunError):
    """The container image is missing, or not signed where that is required."""

    exit_code = 122


class UnreachableError(GpurunError):
    """No controller of the pool answers."""

    exit_code = 123


class CredentialError(GpurunError):
    """The pool does not accept this machine's or this user's credential."""

    exit_code = 124


class SlurmError(GpurunError):
    """Slurm refused or failed in another way; the message is its own."""

    exit_code = 125
