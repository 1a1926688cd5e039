// Being let in: a code is good for one joining, so it is used only where this browser would remember what comes of it.

import { Failure } from "../node/errors.ts";
import type { Identity } from "../node/home.ts";
import type { Keeper } from "../node/keeper.ts";

/** This browser stores nothing; the daemon was not asked. */
export class Unstored extends Failure {
    constructor(why: string) {
        super("StorageFull", why);
    }
}

/** Join, and remember as whom. Throws `Unstored` before the code is used; an identity that is not stored after all is kept at hand and tried again. */
export async function admit(keeper: Keeper, join: () => Promise<Identity>): Promise<Identity> {
    const why = await keeper.trial();
    if (why !== "") throw new Unstored(why);
    const identity = await join();
    await keeper.keep("identity", identity);
    return identity;
}
