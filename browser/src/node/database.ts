// The one IndexedDB of this origin: `state` holds small records by name, `files` bytes by [folder, name].

const NAME = "gridsched";

let opened: Promise<IDBDatabase> | null = null;

/** The open database. */
export function database(): Promise<IDBDatabase> {
    opened ??= new Promise((resolve, reject) => {
        const asked = indexedDB.open(NAME, 1);
        asked.onupgradeneeded = () => {
            asked.result.createObjectStore("state");
            asked.result.createObjectStore("files");
        };
        asked.onsuccess = () => {
            asked.result.onversionchange = () => {
                asked.result.close();
                opened = null;
            };
            asked.result.onclose = () => (opened = null); // the browser has taken the storage back
            resolve(asked.result);
        };
        asked.onerror = () => {
            opened = null;
            reject(asked.error ?? new Error("IndexedDB does not open"));
        };
    });
    return opened;
}

/** What `request` found, once `task` is durable. */
export function done<T>(request: IDBRequest<T>, task: IDBTransaction): Promise<T> {
    return new Promise((resolve, reject) => {
        task.oncomplete = () => resolve(request.result);
        task.onabort = task.onerror = () => reject(task.error ?? request.error ?? new Error("the transaction was aborted"));
    });
}
