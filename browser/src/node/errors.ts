// What can go wrong between the page and the daemon, by the daemon's own names (gridsched/core/errors.py).

/** Where an answer has not the daemon's own words, and is what a daemon's would be. A login page or a proxy refuses nothing in its name. */
const BY_STATUS: Record<number, string> = {
    404: "NotFound",
    429: "Busy",
    503: "Busy",
    507: "StorageFull",
};

/** `name` is the daemon's error class, or `Unreachable` where there is no whole answer; the message is a public sentence. */
export class Failure extends Error {
    constructor(
        name: string,
        message: string,
        readonly status = 0,
    ) {
        super(message);
        this.name = name;
    }
}

/** The failure an answer of `status` stands for. */
export function failureFrom(status: number, body: string, what: string): Failure {
    try {
        const problem = JSON.parse(body) as { error?: unknown; detail?: unknown };
        if (typeof problem.error === "string" && typeof problem.detail === "string") return new Failure(problem.error, problem.detail, status);
    } catch {
        // no problem in our form: a proxy's page perhaps
    }
    return new Failure(BY_STATUS[status] ?? "Unreachable", `${what} is answered with HTTP ${status}`, status);
}

/** Whatever was thrown, as a failure. */
export function asFailure(error: unknown): Failure {
    if (error instanceof Failure) return error;
    const words = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    return new Failure("Unreachable", words);
}

const FATAL = new Set(["DuplicateIdentity", "Unauthorized", "Forbidden"]);
const FINAL = new Set(["OtherRelease", "ProgramError", "UnsupportedOperator", "InvalidInput", "MessageError", "UpdateRefused", "Conflict", "LeaseLost", "IllegalMove", "TooLarge", "BlobCorrupt"]);

/** Whether going on as this node makes no sense. */
export const isFatal = (error: Failure): boolean => FATAL.has(error.name);

/** Whether page and daemon are of different releases. A hello is always well formed but for that. */
export const isOtherRelease = (error: Failure): boolean => error.name === "OtherRelease" || error.name === "MessageError";

/** Whether trying the same again would not help. */
export const isFinal = (error: Failure): boolean => FINAL.has(error.name);
