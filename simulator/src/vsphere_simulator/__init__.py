"""A GPU-aware vCenter simulator: SOAP over HTTPS on pyVmomi's own type registry."""
