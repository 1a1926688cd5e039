// Two languages, kept small: tables of sentences with {places}, and which of them a visitor reads.

export type Language = "de" | "en";

const KEY = "gridsched.language";

/** The language to begin with: what was chosen here before, else what the browser asks for. */
export function preferred(): Language {
    let chosen: string | null = null;
    try {
        chosen = localStorage.getItem(KEY);
    } catch {
        // storage may be shut off; the browser's own language will do
    }
    return (chosen ?? navigator.language).toLowerCase().startsWith("de") ? "de" : "en";
}

/** Keep the visitor's choice for the next visit. */
export function choose(language: Language): void {
    try {
        localStorage.setItem(KEY, language);
    } catch {
        // it holds for this visit then
    }
}

/** `sentence` with each {name} replaced by its value; a place without a value stays, so that it is seen. */
export function filled(sentence: string, values: Readonly<Record<string, string | number>> = {}): string {
    return sentence.replace(/\{(\w+)\}/g, (place, name: string) => (name in values ? String(values[name]) : place));
}
