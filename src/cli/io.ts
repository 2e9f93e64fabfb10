// Owns what a command may touch of its process, and how it fails. Called by every command; main.ts binds it to the real process.

/** Output, environment and signals of a command; tests give their own. */
export interface Io {
  /** Writes text to standard output. */
  readonly out: (text: string) => void;
  /** Writes text to standard error. */
  readonly err: (text: string) => void;
  readonly env: ReadonlyMap<string, string>;
  /** Standard output is a terminal: progress may be drawn over. */
  readonly terminal: boolean;
  /** Aborts when the user has had enough (Ctrl-C); only commands that go on until then look at it. */
  readonly stop: AbortSignal;
}

export const EXIT_OK = 0;
/** The request failed, or the sidecar is not there. */
export const EXIT_FAILED = 1;
/** Wrong arguments or a wrong configuration. */
export const EXIT_USAGE = 2;
/** `weir migrate verify`: something differs. */
export const EXIT_DRIFT = 3;
/** `weir migrate verify`: a cutover now would lose capacity. */
export const EXIT_UNSAFE = 4;

/** Ends a command: the message is printed as it is, without a stack. */
export class CommandFailure extends Error {
  readonly exit: number;

  constructor(exit: number, message: string) {
    super(message);
    this.name = 'CommandFailure';
    this.exit = exit;
  }
}

/** A failure of the caller's making (exit 2). */
export function usageFailure(message: string): CommandFailure {
  return new CommandFailure(EXIT_USAGE, `USAGE: ${message}`);
}
