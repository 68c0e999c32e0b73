"""Reading a live vCenter into a model: what `vsphere-simulator record` prints."""
