// Files that survive: middles of units and finished updates. In the origin's private file system where there is one, else in
// IndexedDB, which every page has. A file's name holds its digest, so one that was cut or has rotted is passed over when it is read.

import { Failure, asFailure } from "./errors.ts";
import { database, done } from "./database.ts";

export type Bytes = Uint8Array<ArrayBuffer>;

export interface Files {
    write(folder: string, name: string, data: Bytes): Promise<void>;
    read(folder: string, name: string): Promise<Bytes | null>;
    /** Names in the folder, in no order. */
    list(folder: string): Promise<string[]>;
    folders(): Promise<string[]>;
    remove(folder: string, name?: string): Promise<void>;
}

/** The best place this browser has; `StorageFull` failures come from every write. */
export async function openFiles(): Promise<Files> {
    const indexed = new IndexedFiles();
    if (typeof navigator.storage?.getDirectory !== "function" || typeof FileSystemFileHandle === "undefined") return indexed;
    if (!("createSyncAccessHandle" in FileSystemFileHandle.prototype)) return indexed;
    try {
        const root = await navigator.storage.getDirectory();
        return new PrivateFiles(await root.getDirectoryHandle("gridsched", { create: true }));
    } catch {
        return indexed; // a private window may have the interface and refuse its use
    }
}

/** Forget every file in both places. */
export async function eraseFiles(): Promise<void> {
    const root = await navigator.storage?.getDirectory?.().catch(() => null);
    await root?.removeEntry("gridsched", { recursive: true }).catch(() => undefined);
    const indexed = new IndexedFiles();
    for (const folder of await indexed.folders()) await indexed.remove(folder);
}

class IndexedFiles implements Files {
    async write(folder: string, name: string, data: Bytes): Promise<void> {
        await this.store("readwrite", (store) => store.put(data, [folder, name]));
    }

    async read(folder: string, name: string): Promise<Bytes | null> {
        return ((await this.store("readonly", (store) => store.get([folder, name]))) as Bytes | undefined) ?? null;
    }

    async list(folder: string): Promise<string[]> {
        const keys = (await this.store("readonly", (store) => store.getAllKeys(within(folder)))) as [string, string][];
        return keys.map(([, name]) => name);
    }

    async folders(): Promise<string[]> {
        const keys = (await this.store("readonly", (store) => store.getAllKeys())) as [string, string][];
        return [...new Set(keys.map(([folder]) => folder))];
    }

    async remove(folder: string, name?: string): Promise<void> {
        await this.store("readwrite", (store) => store.delete(name === undefined ? within(folder) : [folder, name]));
    }

    private async store(mode: IDBTransactionMode, use: (store: IDBObjectStore) => IDBRequest): Promise<unknown> {
        const base = await database();
        try {
            const task = base.transaction("files", mode, { durability: "strict" });
            return await done(use(task.objectStore("files")), task);
        } catch (error) {
            throw full(error);
        }
    }
}

class PrivateFiles implements Files {
    constructor(private readonly root: FileSystemDirectoryHandle) {}

    async write(folder: string, name: string, data: Bytes): Promise<void> {
        try {
            const place = await this.root.getDirectoryHandle(encodeURIComponent(folder), { create: true });
            const file = (await place.getFileHandle(name, { create: true })) as unknown as SyncFile;
            const handle = await file.createSyncAccessHandle();
            try {
                handle.truncate(0);
                handle.write(data, { at: 0 });
                handle.flush();
            } finally {
                handle.close();
            }
        } catch (error) {
            throw full(error);
        }
    }

    async read(folder: string, name: string): Promise<Bytes | null> {
        try {
            const place = await this.root.getDirectoryHandle(encodeURIComponent(folder));
            const file = await (await place.getFileHandle(name)).getFile();
            return new Uint8Array(await file.arrayBuffer());
        } catch {
            return null;
        }
    }

    async list(folder: string): Promise<string[]> {
        try {
            return await names(await this.root.getDirectoryHandle(encodeURIComponent(folder)));
        } catch {
            return [];
        }
    }

    async folders(): Promise<string[]> {
        return (await names(this.root)).map(decodeURIComponent);
    }

    async remove(folder: string, name?: string): Promise<void> {
        try {
            if (name === undefined) return await this.root.removeEntry(encodeURIComponent(folder), { recursive: true });
            await (await this.root.getDirectoryHandle(encodeURIComponent(folder))).removeEntry(name);
        } catch {
            // it is gone already
        }
    }
}

/** What only workers have, so that the DOM's types do not know it. */
interface SyncFile {
    createSyncAccessHandle(): Promise<{ truncate(size: number): void; write(data: Bytes, where: { at: number }): number; flush(): void; close(): void }>;
}

/** Asynchronous iteration of a directory, which the DOM types do not know yet. */
interface Listed {
    keys(): AsyncIterable<string>;
}

async function names(place: FileSystemDirectoryHandle): Promise<string[]> {
    const found: string[] = [];
    for await (const name of (place as unknown as Listed).keys()) found.push(name);
    return found;
}

function within(folder: string): IDBKeyRange {
    return IDBKeyRange.bound([folder], [folder, []]); // an array sorts after every text
}

function full(error: unknown): Failure {
    const words = asFailure(error).message;
    return new Failure("StorageFull", `this browser stores no more (${words}); free some space`);
}
