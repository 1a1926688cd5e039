// The operator API as the console uses it. The token goes in a header and nowhere else; it is never in an address.

const KEY = "gridsched.token";

/** A refusal in the server's own words, which name the thing and the remedy. */
export class Refused extends Error {
    constructor(
        readonly status: number,
        detail: string,
    ) {
        super(detail);
    }
}

/** No answer at all. */
export class Unreachable extends Error {}

export class Api {
    constructor(
        readonly token: string,
        private readonly refused: () => void,
    ) {}

    get<T>(path: string): Promise<T> {
        return this.json<T>("GET", path);
    }

    post<T>(path: string, body: unknown = {}): Promise<T> {
        return this.json<T>("POST", path, body);
    }

    put<T>(path: string, body: unknown): Promise<T> {
        return this.json<T>("PUT", path, body);
    }

    /** A file behind a door that takes the header: a link could not send it. */
    async download(path: string, name: string): Promise<void> {
        const answer = await this.ask("GET", path);
        const link = document.createElement("a");
        link.href = URL.createObjectURL(await answer.blob());
        link.download = name;
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    }

    private async json<T>(method: string, path: string, body?: unknown): Promise<T> {
        return (await (await this.ask(method, path, body)).json()) as T;
    }

    private async ask(method: string, path: string, body?: unknown): Promise<Response> {
        const headers: Record<string, string> = { Authorization: `Bearer ${this.token}` };
        if (body !== undefined) headers["Content-Type"] = "application/json";
        let answer: Response;
        try {
            answer = await fetch(path, { method, headers, cache: "no-store", ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
        } catch {
            throw new Unreachable();
        }
        if (!answer.ok) {
            if (answer.status === 401) this.refused();
            throw new Refused(answer.status, await detailOf(answer));
        }
        return answer;
    }
}

async function detailOf(answer: Response): Promise<string> {
    try {
        return ((await answer.json()) as { detail?: string }).detail ?? answer.statusText;
    } catch {
        return answer.statusText;
    }
}

/** The token kept for this tab, or for longer where the operator asked for that. */
export function keptToken(): string | null {
    return sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY);
}

export function keepToken(token: string, longer: boolean): void {
    sessionStorage.setItem(KEY, token);
    if (longer) localStorage.setItem(KEY, token);
}

export function forgetToken(): void {
    sessionStorage.removeItem(KEY);
    localStorage.removeItem(KEY);
}
