// One page at a time works as this browser's node: a lock where the browser has them, else a channel on which pages hear each other.

const NAME = "gridsched.node";
const ANSWER_MS = 300;

/** Calls `first` once this page is the only one; until then `waiting` has been called, if another one works. */
export async function single(first: () => void, waiting: () => void): Promise<void> {
    if (navigator.locks !== undefined) return locked(first, waiting);
    if (typeof BroadcastChannel === "undefined") return first();
    return asked(first, waiting);
}

async function locked(first: () => void, waiting: () => void): Promise<void> {
    const forever = new Promise<never>(() => undefined);
    const free = await new Promise<boolean>((resolve) => {
        void navigator.locks.request(NAME, { ifAvailable: true }, (lock) => {
            resolve(lock !== null);
            return lock === null ? undefined : forever;
        });
    });
    if (free) return first();
    waiting();
    void navigator.locks.request(NAME, () => {
        first();
        return forever;
    });
}

/** Without locks (plain http): ask who is there. The older page answers, and says when it leaves. */
async function asked(first: () => void, waiting: () => void): Promise<void> {
    const line = new BroadcastChannel(NAME);
    let mine = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const take = (): void => {
        mine = true;
        addEventListener("pagehide", () => line.postMessage("gone"));
        first();
    };
    const ask = (): void => {
        line.postMessage("anyone?");
        timer = setTimeout(take, ANSWER_MS * (1 + Math.random()));
    };
    line.onmessage = (event: MessageEvent<string>) => {
        if (mine) {
            if (event.data === "anyone?") line.postMessage("here");
        } else if (event.data === "here") {
            clearTimeout(timer);
            waiting();
        } else if (event.data === "gone") ask();
    };
    ask();
}
