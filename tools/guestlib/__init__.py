"""Guests with systemd and sshd as podman containers, for scenarios and the lab."""
