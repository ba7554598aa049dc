// Before uvu: no run of its own accord, one queue.
globalThis.UVU_DEFER = true;
globalThis.UVU_QUEUE = [[]];
