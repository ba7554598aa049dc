/** Signals that ask a process to end: Ctrl-C, kill, a terminal that closes. */
export const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
