// One page at a time works as this browser's node: a lock where the browser has them, else a channel on which pages hear each other.

const NAME = "gridsched.node";
const ANSWER_S = 0.3;
const AGAIN_S = 10;

/** Calls `first` once this page is the only one; until then `waiting` has been called, if another one works. */
export async function single(first: () => void, waiting: () => void, answerS = ANSWER_S, againS = AGAIN_S): Promise<void> {
    if (navigator.locks !== undefined) return locked(first, waiting);
    if (typeof BroadcastChannel === "undefined") return first();
    return asked(first, waiting, answerS, againS);
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

/**
 * Without locks (plain http): ask who is there. The page that works answers, and says when it leaves; one that ends without a word is
 * found by asking again. Of pages that ask at the same time the one with the least number begins.
 */
async function asked(first: () => void, waiting: () => void, answerS: number, againS: number): Promise<void> {
    const line = new BroadcastChannel(NAME);
    const mine = crypto.getRandomValues(new Uint32Array(1))[0]!;
    let works = false;
    let told = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const take = (): void => {
        works = true;
        line.postMessage("here");
        addEventListener("pagehide", () => line.postMessage("gone"));
        first();
    };
    const ask = (): void => {
        clearTimeout(timer);
        line.postMessage(mine);
        timer = setTimeout(take, 1000 * answerS);
    };
    const askLater = (): void => {
        clearTimeout(timer);
        timer = setTimeout(ask, 1000 * againS);
    };
    line.onmessage = ({ data }: MessageEvent<"here" | "gone" | number>) => {
        if (works) {
            if (typeof data === "number") line.postMessage("here");
        } else if (data === "here") {
            askLater();
            if (!told) waiting();
            told = true;
        } else if (data === "gone") ask();
        else if (data < mine) askLater();
        else line.postMessage(mine); // it may not have been there to hear it
    };
    ask();
}
