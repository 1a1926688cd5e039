// The page's elements, by id. One that is not there is our own mistake and says so.

export function find<T extends HTMLElement = HTMLElement>(id: string): T {
    const found = document.getElementById(id);
    if (found === null) throw new Error(`the page has no element ${id}`);
    return found as T;
}

/** Change an element's text only where it differs: what has not changed is not read out again. */
export function write(element: HTMLElement, text: string): void {
    if (element.textContent !== text) element.textContent = text;
}

const VIEWS = ["wait", "join", "node"] as const;

/** Show one of the page's views. */
export function show(view: (typeof VIEWS)[number]): void {
    for (const name of VIEWS) find(`view-${name}`).hidden = name !== view;
}
