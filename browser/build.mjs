/**
 * Bundles the pages into gridsched/_built/pages/: what the server serves and the wheel ships.
 *
 * Called by scripts/build_pages.py (make setup); `node browser/build.mjs` does the same by hand. A folder of `ENTRIES` becomes
 * `pages/NAME/`: each of its modules one minified script, and everything in its `static/` as it is.
 */

import { cp, mkdir, rename, rm } from "node:fs/promises";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const HERE = dirname(fileURLToPath(import.meta.url));
const BUILT = join(HERE, "..", "gridsched", "_built");
const OUT = join(BUILT, "pages");
const ASIDE = join(BUILT, "pages.new");

/** Page -> the modules that are loaded by name: by the page itself, as a worker, as a service worker. */
const ENTRIES = { console: ["console.ts"], join: ["join.ts", "worker.ts"] };
/** What is served under a name of its own, beside the pages' folders: service workers, and all that lies in a page's `doors/`. */
const DOORS = ["join/sw.ts"];

await rm(ASIDE, { recursive: true, force: true });
await mkdir(ASIDE, { recursive: true });
for (const [page, modules] of Object.entries(ENTRIES)) {
    const folder = join(HERE, "src", page);
    await bundle(
        modules.map((module) => join(folder, module)),
        join(ASIDE, page),
    );
    if (existsSync(join(folder, "static"))) {
        await cp(join(folder, "static"), join(ASIDE, page), { recursive: true });
    }
    if (existsSync(join(folder, "doors"))) {
        await cp(join(folder, "doors"), ASIDE, { recursive: true });
    }
}
await bundle(
    DOORS.map((module) => join(HERE, "src", module)),
    ASIDE,
);
// All at once: a server that runs meanwhile never sees half of a page.
await rm(OUT, { recursive: true, force: true });
await rename(ASIDE, OUT);

/** Each of `entryPoints` as one minified script in `outdir`. */
async function bundle(entryPoints, outdir) {
    await build({
        entryPoints,
        outdir,
        bundle: true,
        minify: true,
        format: "esm",
        target: "es2022",
        charset: "utf8",
        legalComments: "none",
        logLevel: "warning",
    });
}
