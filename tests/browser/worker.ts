/** The trainer in a Web Worker: a message in, a message out (see perform.ts). */

import { perform } from "./perform.ts";

addEventListener("message", (event: MessageEvent<string>) => {
    void perform(event.data).then((answer) => postMessage(answer));
});
